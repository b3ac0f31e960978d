package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"
)

// What can happen to an exchange with WeChat.
var (
	errUnreachable = errors.New("no connection")        // nothing was sent
	errBroken      = errors.New("the connection broke") // it may have been carried out
	errTimeout     = errors.New("too late")             // likewise
)

const (
	dialTimeout = 5 * time.Second
	// WeChat closes idle connections after about 20 s; one that is older than this is not used again.
	upstreamIdle = 12 * time.Second
	// A connection that rested for longer than this is looked at before it is used: WeChat may have
	// closed it meanwhile, and a call sent into it would be lost.
	restedLong = 100 * time.Millisecond
	// Answers up to this size are held whole, so that their errcode can be read; larger
	// ones are looked into as far as this, and streamed.
	peekSize = 64 << 10
	// Requests up to this size are sent as one piece, and by the wire in one go with the wait for the answer.
	onePiece = 8 << 10
	// mostHeld is what the wire holds back at most: a request, and what TLS adds to it.
	mostHeld = onePiece + 1<<10
	// WeChat's headers, all together.
	upstreamHeaderLimit = 16 << 10
)

// upstream is the way to WeChat. fasthttp keeps the connections; the exchange itself is ours, for
// four reasons: the bytes must go out as they came in, nothing may ever be sent twice
// behind our back, an answer's size decides whether it is held or streamed, and a stream's
// deadline must move on while it flows.
type upstream struct {
	pool  *fasthttp.HostClient
	host  string    // for the Host header
	ahead *holdings // what is read ahead of slow callers
}

func newUpstream(base string, roots *x509.CertPool, ahead *holdings) (*upstream, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("the upstream address is no URL")
	}
	secure := u.Scheme == "https"
	addr := u.Host
	if u.Port() == "" {
		addr = net.JoinHostPort(u.Hostname(), map[bool]string{true: "443", false: "80"}[secure])
	}
	conf := &tls.Config{
		RootCAs:            roots,
		ServerName:         u.Hostname(),
		MinVersion:         tls.VersionTLS12,
		ClientSessionCache: tls.NewLRUClientSessionCache(64),
		NextProtos:         []string{"http/1.1"},
	}
	dial := func(addr string, timeout time.Duration) (net.Conn, error) {
		if timeout <= 0 || timeout > dialTimeout {
			timeout = dialTimeout
		}
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		d := net.Dialer{KeepAlive: 15 * time.Second}
		conn, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		w := newWire(conn.(*net.TCPConn))
		if !secure {
			return &upstreamConn{Conn: w, wire: w}, nil
		}
		c := tls.Client(w, conf)
		if err := c.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, err
		}
		return &upstreamConn{Conn: c, wire: w}, nil
	}
	return &upstream{
		host:  u.Host,
		ahead: ahead,
		pool: &fasthttp.HostClient{
			Addr:                addr,
			DialTimeout:         dial,             // with TLS of its own, so fasthttp's is off
			MaxConns:            2 * mostUnderWay, // shares has the limit
			MaxIdleConnDuration: upstreamIdle,
			ReadBufferSize:      upstreamHeaderLimit,
			ConnPoolStrategy:    fasthttp.LIFO, // few busy connections rather than many that rest
		},
	}, nil
}

// upstreamConn remembers its deadline. Setting one costs more than a look at the clock, so it is set a
// little late, and left alone while it is late enough.
type upstreamConn struct {
	net.Conn
	wire  *wire // below it
	until time.Time
}

// within makes sure that reading and writing end at deadline, or at most an eighth of timeout or
// a second later.
func (c *upstreamConn) within(deadline time.Time, timeout time.Duration) error {
	slack := min(timeout/8, time.Second)
	if late := c.until.Sub(deadline); late >= 0 && late <= slack {
		return nil
	}
	c.until = deadline.Add(slack)
	return c.SetDeadline(c.until)
}

func (u *upstream) close() { u.pool.CloseIdleConnections() }

// exchange sends head (request line and headers, ready with the empty line, and the body if it is short) and body, and reads the
// answer into resp: the whole of it, or for a large one the header, with the rest as a stream. The deadline is for
// everything up to there.
func (u *upstream) exchange(head, body []byte, isHead bool, client net.Conn, resp *fasthttp.Response, timeout time.Duration, now, deadline time.Time) error {
	cc, err := u.pool.AcquireConn(deadline.Sub(now), false)
	for err == nil && now.Sub(cc.LastUseTime()) > restedLong && cc.LastUseTime().After(cc.CreatedTime()) && spoiled(cc.Conn()) {
		u.pool.CloseConn(cc)
		cc, err = u.pool.AcquireConn(time.Until(deadline), false)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errUnreachable, dialError(err))
	}
	conn := cc.Conn().(*upstreamConn)
	if err := conn.within(deadline, timeout); err != nil {
		u.pool.CloseConn(cc)
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	conn.wire.hold = len(body) == 0
	_, err = conn.Write(head)
	if err == nil && len(body) > 0 {
		_, err = conn.Write(body)
	}
	if err != nil {
		u.pool.CloseConn(cc)
		return transferError(err)
	}
	br := u.pool.AcquireReader(conn)
	err = readHeader(br, resp)
	if err == nil && conn.wire.unsent() {
		// An answer that nobody has asked for was there before the request went out, and it has not gone out.
		u.pool.ReleaseReader(br)
		u.pool.CloseConn(cc)
		return u.exchange(head, body, isHead, client, resp, timeout, time.Now(), deadline)
	}
	if err == nil {
		closing := resp.Header.ConnectionClose()
		n := resp.Header.ContentLength()
		skip := isHead || bodiless(resp.StatusCode())
		switch {
		case skip:
			resp.SkipBody = true
			// A server that sends a body all the same would have it taken for the next caller's answer.
			closing = true
		case n >= 0 && n <= peekSize: // nearly all answers
			err = resp.ReadBody(br, peekSize)
		default:
			cc, closing := cc, closing // or all calls would pay for the closure
			return u.stream(conn, client, br, resp, timeout, n, func(reusable bool) {
				silent := br.Buffered() == 0
				u.pool.ReleaseReader(br)
				if reusable && !closing && silent {
					u.pool.ReleaseConn(cc)
				} else {
					u.pool.CloseConn(cc)
				}
			})
		}
		// What comes behind an answer would be taken for the next caller's.
		if err == nil && !closing && br.Buffered() == 0 {
			u.pool.ReleaseReader(br)
			u.pool.ReleaseConn(cc)
			return nil
		}
	}
	u.pool.ReleaseReader(br)
	u.pool.CloseConn(cc)
	if err != nil {
		return transferError(err)
	}
	return nil
}

// stream takes a large answer in as far as it is looked into; the rest flows when resp is written.
func (u *upstream) stream(conn *upstreamConn, client net.Conn, br *bufio.Reader, resp *fasthttp.Response, timeout time.Duration, n int, done func(reusable bool)) error {
	a := &answerBody{conn: conn, client: client, br: br, timeout: timeout, room: u.ahead, done: done}
	if err := a.read(resp, n); err != nil {
		done(false)
		return transferError(err)
	}
	return nil
}

func bodiless(status int) bool {
	return status == http.StatusNoContent || status == http.StatusNotModified || status < 200
}

// maxInterim bounds the 1xx answers before the real one.
const maxInterim = 8

func readHeader(br *bufio.Reader, resp *fasthttp.Response) error {
	for range maxInterim {
		if err := resp.Header.Read(br); err != nil {
			return err
		}
		if s := resp.Header.StatusCode(); s >= 200 || s == http.StatusSwitchingProtocols {
			return nil
		}
	}
	return errors.New("too many interim answers")
}

// spoiled reports whether a connection that should be silent has something to say: its end, or
// bytes that nobody asked for.
func spoiled(conn net.Conn) bool {
	raw, err := conn.(*upstreamConn).wire.SyscallConn()
	if err != nil {
		return true
	}
	spoiled := false
	err = raw.Read(func(fd uintptr) bool {
		var one [1]byte
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		spoiled = !errors.Is(err, syscall.EAGAIN)
		return true
	})
	return err != nil || spoiled
}

func transferError(err error) error {
	var t interface{ Timeout() bool }
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &t) && t.Timeout() {
		return errTimeout
	}
	return fmt.Errorf("%w: %w", errBroken, plain(err))
}

// dialError says what kept us from connecting, without more than an operator needs.
func dialError(err error) error {
	switch {
	case errors.Is(err, fasthttp.ErrNoFreeConns):
		return errors.New("all connections are in use")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, fasthttp.ErrDialTimeout), errors.Is(err, fasthttp.ErrTimeout):
		return errors.New("connecting took too long")
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err
	}
	return err
}

// plain keeps what a fault of the transport is called, and drops fasthttp's quotations of what it read.
func plain(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err
	}
	switch {
	case errors.Is(err, syscall.ECONNRESET):
		return syscall.ECONNRESET
	case err.Error() == "EOF", errors.Is(err, fasthttp.ErrConnectionClosed):
		return errors.New("closed without an answer")
	}
	return errors.New("the answer is not HTTP, or incomplete")
}

package transport

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
	ErrUnreachable = errors.New("no connection")        // nothing was sent
	ErrBroken      = errors.New("the connection broke") // it may have been carried out
	ErrTimeout     = errors.New("too late")             // likewise
)

const (
	dialTimeout = 5 * time.Second
	// WeChat closes idle connections after about 20 s; one that is older than this is not used again.
	upstreamIdle = 12 * time.Second
	// A connection that rested for longer than this is looked at before it is used: WeChat may have
	// closed it meanwhile, and a call sent into it would be lost.
	staleCheckAfter = 100 * time.Millisecond
	// Answers up to this size are held whole, so that their errcode can be read; larger
	// ones are looked into as far as this, and streamed.
	InspectLimit = 64 << 10
	// Requests up to this size are sent as one piece, and by the wire in one go with the wait for the answer.
	MaxCoalesced = 8 << 10
	// WeChat's headers, all together.
	upstreamHeaderLimit = 16 << 10
)

// Upstream is the way to WeChat. fasthttp keeps the connections; the exchange itself is ours, for
// four reasons: the bytes must go out as they came in, nothing may ever be sent twice
// behind our back, an answer's size decides whether it is held or streamed, and a stream's
// deadline must move on while it flows.
type Upstream struct {
	pool  *fasthttp.HostClient
	host  string  // for the Host header
	ahead *Budget // what is read ahead of slow callers
}

// UpstreamConfig is what an [Upstream] needs. URL is required.
type UpstreamConfig struct {
	URL       string         // http or https, and the host
	Roots     *x509.CertPool // that vouch for it; nil: the system's
	ReadAhead *Budget        // for what is read ahead of slow callers
	// Dial makes the connections; nil: by TCP, and by TLS for https.
	Dial func(addr string, timeout time.Duration) (net.Conn, error)
}

// NewUpstream returns an upstream that has no connections yet.
func NewUpstream(c UpstreamConfig) (*Upstream, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" {
		return nil, errors.New("the upstream address is no URL")
	}
	secure := u.Scheme == "https"
	addr := u.Host
	if u.Port() == "" {
		addr = net.JoinHostPort(u.Hostname(), map[bool]string{true: "443", false: "80"}[secure])
	}
	d := dialer{}
	if secure {
		d.tls = &tls.Config{
			RootCAs:            c.Roots,
			ServerName:         u.Hostname(),
			MinVersion:         tls.VersionTLS12,
			ClientSessionCache: tls.NewLRUClientSessionCache(64),
			NextProtos:         []string{"http/1.1"},
		}
	}
	dial := d.dial
	if c.Dial != nil {
		dial = func(addr string, timeout time.Duration) (net.Conn, error) {
			conn, err := c.Dial(addr, timeout)
			if err != nil {
				return nil, err
			}
			return &upstreamConn{Conn: conn, socket: new(socket)}, nil
		}
	}
	return &Upstream{
		host:  u.Host,
		ahead: c.ReadAhead,
		pool: &fasthttp.HostClient{
			Addr:                addr,
			DialTimeout:         dial,            // with TLS of its own, so fasthttp's is off
			MaxConns:            2 * MaxInFlight, // shares has the limit
			MaxIdleConnDuration: upstreamIdle,
			ReadBufferSize:      upstreamHeaderLimit,
			ConnPoolStrategy:    fasthttp.LIFO, // few busy connections rather than many that rest
		},
	}, nil
}

// Host is what the Host header has to be.
func (u *Upstream) Host() string { return u.host }

// dialer makes connections.
type dialer struct{ tls *tls.Config }

func (d dialer) dial(addr string, timeout time.Duration) (net.Conn, error) {
	if timeout <= 0 || timeout > dialTimeout {
		timeout = dialTimeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	nd := net.Dialer{KeepAlive: 15 * time.Second}
	conn, err := nd.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	s := newSocket(conn.(*net.TCPConn))
	if d.tls == nil {
		return &upstreamConn{Conn: s, socket: s}, nil
	}
	c := tls.Client(s, d.tls)
	if err := c.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return &upstreamConn{Conn: c, socket: s}, nil
}

// upstreamConn remembers its deadline. Setting one costs more than a look at the clock, so it is set a
// little late, and left alone while it is late enough.
type upstreamConn struct {
	net.Conn
	socket   *socket // below it
	deadline time.Time
}

// within makes sure that reading and writing end at deadline, or at most an eighth of timeout or
// a second later.
func (c *upstreamConn) extendDeadline(deadline time.Time, timeout time.Duration) error {
	slack := min(timeout/8, time.Second)
	if over := c.deadline.Sub(deadline); over >= 0 && over <= slack {
		return nil
	}
	c.deadline = deadline.Add(slack)
	return c.SetDeadline(c.deadline)
}

// stale reports whether the connection is not fit for another request.
func (c *upstreamConn) stale() bool {
	if c.socket.TCPConn == nil {
		return true
	}
	c.deadline = time.Time{} // isStale can change it
	return isStale(c.socket.TCPConn)
}

// Close closes the connections that are not in use.
func (u *Upstream) Close() { u.pool.CloseIdleConnections() }

// Request is one request to WeChat.
type Request struct {
	Head []byte // request line and headers, ready with the empty line, and the body if it is short, see MaxCoalesced
	Body []byte // the body, where it is not in Head

	IsHead   bool          // its method is HEAD: the response has no body
	Client   net.Conn      // the caller's connection, whose deadline is extended while a large response flows
	Timeout  time.Duration // of a response that flows: how long it may stall
	Now      time.Time     // what time it is
	Deadline time.Time     // of everything until Exchange returns
}

// Exchange sends a request, and reads the response into resp: the whole of it, or for a large one the header, with the rest as a
// [Stream].
func (u *Upstream) Exchange(r *Request, resp *fasthttp.Response) error {
	cc, err := u.pool.AcquireConn(r.Deadline.Sub(r.Now), false)
	for err == nil && r.Now.Sub(cc.LastUseTime()) > staleCheckAfter && cc.LastUseTime().After(cc.CreatedTime()) && cc.Conn().(*upstreamConn).stale() {
		u.pool.CloseConn(cc)
		cc, err = u.pool.AcquireConn(time.Until(r.Deadline), false)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, dialError(err))
	}
	conn := cc.Conn().(*upstreamConn)
	if err := conn.extendDeadline(r.Deadline, r.Timeout); err != nil {
		u.pool.CloseConn(cc)
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	conn.socket.setDeferWrite(len(r.Body) == 0)
	_, err = conn.Write(r.Head)
	if err == nil && len(r.Body) > 0 {
		_, err = conn.Write(r.Body)
	}
	if err != nil {
		u.pool.CloseConn(cc)
		return transferError(err)
	}
	br := u.pool.AcquireReader(conn)
	err = readHeader(br, resp)
	if err == nil && conn.socket.hasPending() {
		// A response that nobody has asked for was there before the request went out, and it has not gone out.
		u.pool.ReleaseReader(br)
		u.pool.CloseConn(cc)
		r.Now = time.Now()
		return u.Exchange(r, resp)
	}
	if err == nil {
		closing := resp.Header.ConnectionClose()
		n := resp.Header.ContentLength()
		skip := r.IsHead || bodiless(resp.StatusCode())
		switch {
		case skip:
			resp.SkipBody = true
			// A server that sends a body all the same would have it taken for the next caller's answer.
			closing = true
		case n >= 0 && n <= InspectLimit: // nearly all answers
			err = resp.ReadBody(br, InspectLimit)
		default:
			cc, closing := cc, closing // or all calls would pay for the closure
			a := &Stream{conn: conn, client: r.Client, br: br, timeout: r.Timeout, room: u.ahead}
			a.done = func(reusable bool) {
				silent := br.Buffered() == 0
				u.pool.ReleaseReader(br)
				if reusable && !closing && silent {
					u.pool.ReleaseConn(cc)
				} else {
					u.pool.CloseConn(cc)
				}
			}
			// The response is taken in as far as it is looked into; the rest flows when resp is written.
			if err := a.read(resp, n); err != nil {
				a.done(false)
				return transferError(err)
			}
			return nil
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

func transferError(err error) error {
	var t interface{ Timeout() bool }
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &t) && t.Timeout() {
		return ErrTimeout
	}
	return fmt.Errorf("%w: %w", ErrBroken, sanitizeError(err))
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
func sanitizeError(err error) error {
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

package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"time"

	"github.com/valyala/fasthttp"
)

const (
	// dialTimeout bounds connecting to WeChat, the TLS handshake included.
	dialTimeout = 5 * time.Second
	// keepAlive is the period of TCP keep-alive probes.
	keepAlive = 15 * time.Second
	// upstreamIdle is the longest that an idle connection is kept. WeChat
	// closes them after about 20 s.
	upstreamIdle = 12 * time.Second
	// maxUnfitDials is the number of new connections that one exchange makes in
	// vain, because they are closed or have input before a request is sent.
	maxUnfitDials = 3
	// upstreamHeaderLimit bounds the headers of a response, bytes.
	upstreamHeaderLimit = 16 << 10
)

// Upstream is WeChat's server. It makes exchanges and keeps the connections for
// them. All its methods are safe for concurrent use.
//
// fasthttp pools the connections, but does not make the exchange, for four
// reasons. The bytes of a request have to be sent as they are. Nothing may ever
// be sent twice, and fasthttp repeats GET, HEAD and PUT. The size of a response
// decides whether it is buffered or streamed. The deadline of a stream has to
// move while it makes progress.
type Upstream struct {
	pool      *fasthttp.HostClient
	host      string
	readAhead *Budget
}

// UpstreamConfig configures an [Upstream]. URL is required.
type UpstreamConfig struct {
	// URL is the base URL, http or https. Its path is ignored.
	URL string
	// Roots holds the CAs of URL. nil: those of the system.
	Roots *x509.CertPool
	// ReadAhead bounds what is buffered for slow clients, of all upstreams that
	// share it. nil: every client gets one chunk.
	ReadAhead *Budget
	// Dial replaces connecting, and TLS with it. Its connections are used
	// again only if they have a method Idle() bool, which reports that there
	// is no input: no other way to inspect them is known. nil: TCP, with TLS
	// for https.
	Dial func(addr string, timeout time.Duration) (net.Conn, error)
}

// NewUpstream returns an Upstream. It does not connect.
func NewUpstream(c UpstreamConfig) (*Upstream, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" {
		return nil, errors.New("upstream address is not a URL") // without quoting it
	}
	secure := u.Scheme == "https"
	addr := u.Host
	if u.Port() == "" {
		addr = net.JoinHostPort(u.Hostname(), map[bool]string{true: "443", false: "80"}[secure])
	}
	dial := dialer{}
	if secure {
		dial.tls = &tls.Config{
			RootCAs:            c.Roots,
			ServerName:         u.Hostname(),
			MinVersion:         tls.VersionTLS12,
			ClientSessionCache: tls.NewLRUClientSessionCache(64),
			NextProtos:         []string{"http/1.1"},
		}
	}
	dial.replacement = c.Dial
	if c.ReadAhead == nil {
		c.ReadAhead = new(Budget)
	}
	return &Upstream{
		host:      u.Host,
		readAhead: c.ReadAhead,
		pool: &fasthttp.HostClient{
			Addr:                addr,
			DialTimeout:         dial.dial,       // makes TLS connections too, so IsTLS stays false
			MaxConns:            2 * MaxInFlight, // never reached: admission limits the requests
			MaxIdleConnDuration: upstreamIdle,
			ReadBufferSize:      upstreamHeaderLimit,
			ConnPoolStrategy:    fasthttp.LIFO, // a few busy connections rather than many idle ones
		},
	}, nil
}

// Host returns the value for the Host header of requests.
func (u *Upstream) Host() string { return u.host }

// Close closes the idle connections. Exchanges in flight go on, and later ones
// work.
func (u *Upstream) Close() { u.pool.CloseIdleConnections() }

// dialer makes connections to WeChat.
type dialer struct {
	tls         *tls.Config // nil: no TLS
	replacement func(addr string, timeout time.Duration) (net.Conn, error)
}

// dial returns an upstreamConn.
func (d dialer) dial(addr string, timeout time.Duration) (net.Conn, error) {
	if timeout <= 0 || timeout > dialTimeout {
		timeout = dialTimeout
	}
	if d.replacement != nil {
		conn, err := d.replacement(addr, timeout)
		if err != nil {
			return nil, err
		}
		return &upstreamConn{Conn: conn, socket: new(socket)}, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	tcp := net.Dialer{KeepAlive: keepAlive}
	conn, err := tcp.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	s := newSocket(conn.(*net.TCPConn), fastSockets())
	if err := s.allowProbes(); err != nil {
		conn.Close()
		return nil, err
	}
	if d.tls == nil {
		return &upstreamConn{Conn: s, socket: s}, nil
	}
	s.framed = true
	c := tls.Client(s, d.tls)
	if err := c.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return &upstreamConn{Conn: c, socket: s}, nil
}

// upstreamConn is a connection to WeChat. It is used by one goroutine at a
// time.
//
// Before each request it has to be fit: nothing that was received may be
// unread, wherever it lies, and the connection may not have ended. Otherwise
// what lies there would be taken for the response, which can be another
// caller's. There are three places: the reader of the last exchange, which is
// checked when that ends, TLS, and the kernel.
type upstreamConn struct {
	net.Conn           // the socket, or TLS on it
	socket   *socket   // never nil
	deadline time.Time // of Conn, as far as it is known; zero: not known
	used     bool      // for an exchange
	unfit    bool      // found not to be fit, and nothing of a request was sent since
	probe    [1]byte   // of isFit
}

// extendDeadline makes reads and writes fail after deadline, or up to an
// eighth of timeout or a second later. Setting a deadline costs more than a
// comparison, so one that is within these bounds is left as it is.
func (c *upstreamConn) extendDeadline(deadline time.Time, timeout time.Duration) error {
	slack := min(timeout/8, time.Second)
	if over := c.deadline.Sub(deadline); over >= 0 && over <= slack {
		return nil
	}
	c.deadline = deadline.Add(slack)
	return c.SetDeadline(c.deadline)
}

// send writes the request. Without Body, sending is left to the first Read,
// which costs less. Then Read checks whether the connection is fit.
func (c *upstreamConn) send(r *Request) error {
	inspectable := c.socket.TCPConn != nil
	deferred := len(r.Body) == 0 && inspectable
	if c.extendDeadline(r.Deadline, r.Timeout) != nil || !deferred && !c.isFit(inspectable) {
		c.unfit = true
		return errUnfit
	}
	c.used = true
	c.socket.deferWrites(deferred)
	if _, err := c.Write(r.Head); err != nil || len(r.Body) == 0 {
		return err
	}
	_, err := c.Write(r.Body)
	return err
}

// isFit reports whether nothing is unread and the connection has not ended. It
// does not wait, and takes what is there. A TLS 1.3 connection may have session
// tickets and key updates, which TLS processes.
func (c *upstreamConn) isFit(inspectable bool) bool {
	if !inspectable {
		conn, ok := c.Conn.(interface{ Idle() bool })
		return !ok && !c.used || ok && conn.Idle()
	}
	c.socket.probing = true
	_, err := c.Conn.Read(c.probe[:])
	c.socket.probing = false
	return err == errNoInput
}

// Read implements [net.Conn]. If the request has not been sent, there was
// input, or the end of the connection, before it. That is not returned.
func (c *upstreamConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.socket.hasPending() {
		c.unfit = true
		return 0, errUnfit
	}
	return n, err
}

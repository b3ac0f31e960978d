package harness

import (
	"crypto/tls"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"wxproxy/sandbox"
)

// WeChat is the upstream of the proxies. It knows one token and one response:
// more would cost CPU time that the proxies need.
type WeChat struct {
	// Target measures WeChat without a proxy.
	Target

	// Delay postpones each response. Set it only while no requests are made.
	Delay time.Duration

	OpenConns atomic.Int64 // open connections
	MaxConns  atomic.Int64 // the most that were open at one time

	ca     []byte
	secure bool
}

// NewWeChat serves WeChat on a free port, with TLS if secure. It serves until
// the process ends.
func NewWeChat(secure bool) (*WeChat, error) {
	certificate, ca, err := sandbox.NewCertificate()
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &WeChat{
		Target: Target{Name: "direct", address: ln.Addr().String(), path: path},
		ca:     ca, secure: secure,
	}
	if secure {
		ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{certificate}})
	}
	server := &fasthttp.Server{Handler: w.serve, ConnState: w.count}
	go func() { _ = server.Serve(ln) }()
	return w, nil
}

// serve answers every request with success, and the endpoint of tokens with a
// token of WeChat's length.
func (w *WeChat) serve(c *fasthttp.RequestCtx) {
	if w.Delay > 0 {
		time.Sleep(w.Delay)
	}
	c.SetContentType("application/json; encoding=utf-8")
	c.SetBodyString(reply)
	if string(c.Path()) == "/cgi-bin/stable_token" {
		token := strings.Repeat("78_AbCdEfGh", 12)
		c.SetBodyString(`{"access_token":"` + token + `","expires_in":7200}`)
	}
}

// count keeps OpenConns and MaxConns.
func (w *WeChat) count(_ net.Conn, s fasthttp.ConnState) {
	switch s {
	case fasthttp.StateNew:
		n := w.OpenConns.Add(1)
		for old := w.MaxConns.Load(); n > old && !w.MaxConns.CompareAndSwap(old, n); {
			old = w.MaxConns.Load()
		}
	case fasthttp.StateClosed:
		w.OpenConns.Add(-1)
	}
}

// Package proxy is the listener for callers. It takes plain WeChat requests,
// finds out which account they are for, injects the credential that they need,
// and forwards them byte for byte. If WeChat rejects the token, it sends the
// request once more with a new one.
//
// To follow a request, read call.go (handle), head.go, decide.go, route.go,
// authenticate.go, authorize.go, then forward.go and report.go, or issue.go for
// requests that SDKs send to fetch a token.
package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/valyala/fasthttp"

	"wxproxy/internal/peerlimit"
	"wxproxy/proxy/admission"
	"wxproxy/proxy/transport"
)

// Proxy serves callers. Its methods are safe for concurrent use, except that
// Reconfigure must not run twice at the same time.
type Proxy struct {
	settings atomic.Pointer[settings]
	tokens   Tokens
	observer Observer
	watch    func(Call)
	log      *slog.Logger
	server   *fasthttp.Server

	limiter         *admission.Limiter
	wrongKeys       *peerlimit.Limiter
	rejectionLogged [len(overloadErrors)]atomic.Int64 // Unix seconds; see suppressLog
	maxConns        int                               // of callers
	idleTimeout     time.Duration
	bodyPace        transport.Pace   // the zero value is the default
	bodyBudget      transport.Budget // for bodies of requests
	minBodyBudget   int
	formBudget      transport.Budget // for bodies of unauthenticated requests
	readAhead       transport.Budget // for responses that slow callers have not read yet
	wholeBudget     transport.Budget // for responses that are read whole
	anonymous       memory           // of all requests while authentication is disabled
	unauthenticated memory           // of requests whose caller is not known before the body

	listener atomic.Pointer[transport.Listener] // nil before Serve
	draining atomic.Bool                        // each response is the last of its connection
}

// More wrong keys than maxWrongKeys from one address within wrongKeyWindow get
// 429.
const (
	maxWrongKeys   = 10
	wrongKeyWindow = time.Minute
)

const (
	// defaultIdleTimeout is longer than clients keep idle connections (90 s are
	// common), so that they close them first. Otherwise a request could be sent
	// into a connection that wxproxy is closing.
	defaultIdleTimeout = 100 * time.Second
	// maxHeadSize bounds request line and headers together, in bytes.
	maxHeadSize = 16 << 10
	// defaultMinBodyBudget is what the bodies of all requests may take
	// together, in bytes. It is bodyBudgetFactor times the largest body that
	// the configuration allows, if that is more: then every caller can send a
	// body of this size while another one takes all memory that it can get,
	// half of it (see transport.Budget).
	defaultMinBodyBudget = 512 << 20
	bodyBudgetFactor     = 4
	// defaultFormBudget is what bodies may take together whose caller is not
	// known yet, in bytes: requests for stand-ins with the key in the body.
	// They are short and need no memory that counts, except those of an
	// attacker.
	defaultFormBudget = 16 << 20
	// defaultWholeBudget is what responses may take together that are read whole
	// to be searched, in bytes, if they are over transport.InspectLimit.
	defaultWholeBudget = 128 << 20
	// drainTimeout is how long Shutdown waits for callers to send one more
	// request, whose response tells them that the connection ends.
	drainTimeout = time.Second
)

// New returns a proxy. Call Serve to start it.
func New(c Config) (*Proxy, error) {
	maxInFlight, maxConns := transport.FileDescriptorLimits(c.OwnCalls)
	p := &Proxy{
		tokens: c.Tokens, observer: c.Observer, watch: c.Watch, log: c.Log,
		limiter: admission.NewLimiter(maxInFlight, admission.QueueTimeout), maxConns: maxConns,
		idleTimeout: c.IdleTimeout, minBodyBudget: defaultMinBodyBudget,
	}
	p.wrongKeys = peerlimit.New(maxWrongKeys, wrongKeyWindow)
	p.readAhead.SetLimit(transport.ReadAheadLimit)
	p.formBudget.SetLimit(defaultFormBudget)
	p.wholeBudget.SetLimit(defaultWholeBudget)
	p.anonymous = p.newMemory()
	p.unauthenticated = memory{bodies: p.formBudget.NewShare()}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if p.observer == nil {
		p.observer = nopObserver{}
	}
	if p.idleTimeout <= 0 {
		p.idleTimeout = defaultIdleTimeout
	}
	if err := p.Reconfigure(c); err != nil {
		return nil, err
	}
	p.server = p.newServer()
	return p, nil
}

func (p *Proxy) newServer() *fasthttp.Server {
	return &fasthttp.Server{
		Handler:       p.handle,
		ErrorHandler:  p.reject,
		ExpectHandler: p.expect,
		Logger:        fasthttpLogger{p.log},

		// These limits are enforced elsewhere: timeouts by
		// transport.CallerConn, the size of bodies by readBody, and the number
		// of connections by transport.Listener. MaxRequestBodySize does not
		// limit bodies that are streamed.
		ReadBufferSize:     maxHeadSize,
		MaxRequestBodySize: transport.PrereadBody,
		StreamRequestBody:  true,
		Concurrency:        1 << 20,
		LazyRequestTime:    true,

		// Requests and responses pass unchanged, and nothing is added to them.
		DisableHeaderNamesNormalizing: true,
		DisablePreParseMultipartForm:  true,
		NoDefaultServerHeader:         true,
		NoDefaultDate:                 true,
		NoDefaultContentType:          true,
		SecureErrorLogMessage:         true,
		CloseOnShutdown:               true,
	}
}

// Reconfigure replaces the configuration for requests that start from now on.
// Config says which fields only New uses. With an error nothing changes.
func (p *Proxy) Reconfigure(c Config) error {
	old := p.settings.Load()
	s, err := newSettings(c, old, &p.readAhead)
	if err != nil {
		return err
	}
	p.divideMemory(s, old)
	p.settings.Store(s)
	if old != nil {
		old.upstream.Close()
	}
	return nil
}

// divideMemory gives each caller of s its share of the memory. What requests of
// a caller hold already, under the settings old, counts.
func (p *Proxy) divideMemory(s, old *settings) {
	p.bodyBudget.SetLimit(max(p.minBodyBudget, bodyBudgetFactor*s.maxBody))
	several := len(s.callers.byName) > 1
	p.bodyBudget.SetDivided(several)
	p.readAhead.SetDivided(several)
	p.wholeBudget.SetDivided(several)
	for name, c := range s.callers.byName {
		c.memory = p.newMemory()
		if old == nil {
			continue
		}
		if before := old.callers.byName[name]; before != nil {
			c.memory = before.memory
		}
	}
}

// newMemory returns the memory of another caller.
func (p *Proxy) newMemory() memory {
	return memory{
		bodies: p.bodyBudget.NewShare(), readAhead: p.readAhead.NewShare(), whole: p.wholeBudget.NewShare(),
	}
}

// Serve answers requests on ln until Shutdown. With a TLS configuration the
// listener speaks TLS. It must be called once.
func (p *Proxy) Serve(ln net.Listener, conf *tls.Config) error {
	l := transport.NewListener(ln, transport.ListenerConfig{
		MaxConns: p.maxConns, IdleTimeout: p.idleTimeout, Pace: p.bodyPace,
		TLS: conf, TooManyConns: errTooManyConns.response(),
	})
	p.listener.Store(l)
	stop := make(chan struct{})
	defer close(stop)
	go p.limiter.Run(stop, p.log)
	return p.server.Serve(l)
}

// CutOffError is returned by [Proxy.Shutdown] if its context ended first.
type CutOffError struct {
	Requests int // in flight
}

// Error implements the error interface.
func (e *CutOffError) Error() string {
	return fmt.Sprintf("%d requests still in flight at the shutdown deadline", e.Requests)
}

// Shutdown stops accepting and waits for requests in flight until ctx ends;
// then it returns a [CutOffError]. If connections were closed at once, requests
// that are on their way would be lost. So connections in use end with a
// response that announces it, and idle ones are closed after drainTimeout.
func (p *Proxy) Shutdown(ctx context.Context) error {
	p.draining.Store(true)
	l := p.listener.Load()
	if l != nil {
		l.Close() // an error is returned below, by the second Close
	}
	end := time.Now().Add(drainTimeout)
	for l != nil && l.Open() > 0 && time.Now().Before(end) && ctx.Err() == nil {
		time.Sleep(5 * time.Millisecond)
	}
	err := p.server.ShutdownWithContext(ctx)
	p.settings.Load().upstream.Close()
	if l != nil && errors.Is(err, context.DeadlineExceeded) {
		return &CutOffError{l.Open()} // those that are idle were closed
	}
	return err
}

// unsafeString returns a string that shares the memory of b. It is for lookups
// only. Whatever keeps the string must clone it.
func unsafeString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// nopObserver counts nothing.
type nopObserver struct{}

func (nopObserver) CallStarted()                                               {}
func (nopObserver) CallDone(string, string, int, time.Duration, time.Duration) {}
func (nopObserver) TokenUsed(string, bool)                                     {}
func (nopObserver) Retried(string, int, string)                                {}
func (nopObserver) WeChatError(int)                                            {}
func (nopObserver) Redacted()                                                  {}
func (nopObserver) KeyRejected(string)                                         {}

// fasthttpLogger receives fasthttp's own messages, which can quote requests. It
// logs their format only.
type fasthttpLogger struct{ log *slog.Logger }

// Printf implements [fasthttp.Logger].
func (l fasthttpLogger) Printf(format string, _ ...any) {
	l.log.Debug("connection error", "kind", format)
}

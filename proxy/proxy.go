// Package proxy serves the callers: it takes plain WeChat requests, finds out for whom they are, puts
// the right credential in, forwards them byte for byte, and sends a call once more when WeChat
// says that the token has expired.
package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"math"
	"net"
	"net/http"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/valyala/fasthttp"

	"wxproxy/proxy/admission"
	"wxproxy/proxy/standin"
	"wxproxy/proxy/transport"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

// Tokens gives the tokens; [tokens.Broker] does.
type Tokens interface {
	Cached(appid string) (tokens.Token, bool)
	Token(ctx context.Context, appid string) (tokens.Token, error)
	Renew(ctx context.Context, appid string, stale wechat.Secret) (tokens.Token, error)
	// Known says whether there is such an account to call for: nil, ErrUnknownAccount, ErrRevoked, or why it cannot
	// be told. It does not ask WeChat.
	Known(ctx context.Context, appid string) error
}

// Observer counts. Durations of 0 mean that WeChat was not asked.
type Observer interface {
	CallStarted()
	CallDone(caller, credential string, code int, took, upstream time.Duration)
	TokenUsed(credential string, hit bool)
	Retried(credential string, errcode int, result string)
	WeChatError(errcode int)
	Redacted()
}

// Call is what can be told of a call when it is over, without telling a secret.
type Call struct {
	RequestID string
	Caller    string // its name; "" where no callers are configured, "unknown" where it showed no good key
	AppID     string // for whom
	Method    string
	Path      string // without the query
	Status    int
	ErrCode   int    // WeChat's, of the answer that went back
	Token     string // hit, miss, retried, none
	Took      time.Duration
	Upstream  time.Duration
	Error     string // ours, if there was one
}

// Config of a Proxy. Upstream and Tokens are needed; every other zero value is legal.
type Config struct {
	Component    string                   // the component's appid
	Apps         map[string]wechat.Secret // own accounts and their app secrets
	DefaultAppID string                   // for calls that name no account
	Routes       []wechat.Endpoint        // before the table
	Callers      []Caller                 // who may call; none: everybody, and everything
	Upstream     string                   // base URL, http or https
	Roots        *x509.CertPool           // that vouch for Upstream; nil: the system's
	Timeout      time.Duration            // of a call; 0: 60 s
	MaxBody      int                      // of a request, bytes; 0: 32 MiB
	Patience     time.Duration            // with slow callers, see patience; 0: 100 s. Only New looks at it
	Tokens       Tokens
	// StandInKey signs what SDKs get in place of tokens, 32 bytes; all replicas need the same, for ever. nil: one that
	// is made up, and forgotten at the end.
	StandInKey []byte
	// Exchange spends an authorization code and keeps the tokens. Its errors are WeChat's ([wechat.Code]) or those of
	// Tokens. nil: api_query_auth is not possible.
	Exchange func(ctx context.Context, code wechat.Secret) (tokens.Authorization, error)
	// Doubt is told where WeChat's answer to a call for appid may mean that its authorization has ended (61003,
	// 42007); it must not wait. nil: nobody is.
	Doubt func(appid string, errcode int)

	Observer Observer     // nil: nobody counts
	Watch    func(Call)   // sees every call that is over; nil: nobody does
	Log      *slog.Logger // nil: nothing is logged
}

// settings is a Config made ready.
type settings struct {
	component    []byte // nil: none
	apps         map[string]wechat.Secret
	defaultAppID []byte
	table        *wechat.Table
	roster       roster
	signer       *standin.Signer
	exchange     func(context.Context, wechat.Secret) (tokens.Authorization, error)
	doubt        func(appid string, errcode int)
	upstream     *transport.Upstream
	timeout      time.Duration
	maxBody      int
}

// callers is who could call until now; of none where there were no settings yet.
func (s *settings) callers() roster {
	if s == nil {
		return roster{}
	}
	return s.roster
}

func (s *settings) kindOf(appid []byte) tokens.Kind {
	if _, ok := s.apps[text(appid)]; ok {
		return tokens.App
	}
	return tokens.Authorizer
}

// Proxy is the listener of the callers.
type Proxy struct {
	settings atomic.Pointer[settings]
	tokens   Tokens
	observe  Observer
	watch    func(Call)
	log      *slog.Logger
	server   *fasthttp.Server

	certificates atomic.Bool // clients are asked for certificates
	limiter      *admission.Limiter
	refusalAt    atomic.Int64 // see quietRefusal
	most         int64        // connections of callers
	patience     time.Duration
	bodies       transport.Budget // of requests
	ahead        transport.Budget // of answers that slow callers have not taken yet
	leastBodies  int

	listener atomic.Pointer[transport.Listener] // nil: not yet
	leaving  atomic.Bool                        // each answer is the last one of its connection
}

// What the server allows its callers.
const (
	// patience bounds the reading of a request, the time between two of them, and each stall of an
	// answer. It is longer than clients keep idle connections (90 s are common), so that it is they who close
	// them and no call is sent into a closing connection.
	patience = 100 * time.Second
	// Request line and headers, together.
	headerLimit = 16 << 10
)

// New builds a proxy; Serve starts it.
func New(c Config) (*Proxy, error) {
	underWay, most := transport.FileDescriptorLimits()
	p := &Proxy{tokens: c.Tokens, observe: c.Observer, watch: c.Watch, log: c.Log, limiter: admission.NewLimiter(underWay), most: int64(most), leastBodies: leastBodies}
	p.ahead.SetLimit(transport.ReadAheadLimit)
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if p.observe == nil {
		p.observe = nobody{}
	}
	if err := p.Reconfigure(c); err != nil {
		return nil, err
	}
	if p.patience = c.Patience; p.patience <= 0 {
		p.patience = patience
	}
	p.server = &fasthttp.Server{
		Handler:       p.handle,
		ErrorHandler:  p.refuse,
		ExpectHandler: p.expect,
		Logger:        quiet{p.log},

		// CallerConn has the timeouts.
		ReadBufferSize:     headerLimit,
		MaxRequestBodySize: math.MaxInt, // readBody has the limits
		Concurrency:        1 << 20,

		LazyRequestTime: true,

		StreamRequestBody: true,

		// Nothing is added to, taken from or spelled anew in what passes.
		DisableHeaderNamesNormalizing: true,
		DisablePreParseMultipartForm:  true,
		NoDefaultServerHeader:         true,
		NoDefaultDate:                 true,
		NoDefaultContentType:          true,
		SecureErrorLogMessage:         true,
		CloseOnShutdown:               true,
	}
	return p, nil
}

// Reconfigure changes all that does not concern the listener, for calls that begin from now on. What Tokens, Observer,
// Watch and Log are stays as New had it, and so does the key of stand-ins where c has none. It must not be called twice
// at the same time.
func (p *Proxy) Reconfigure(c Config) error {
	up, err := transport.NewUpstream(transport.UpstreamConfig{URL: c.Upstream, Roots: c.Roots, ReadAhead: &p.ahead})
	if err != nil {
		return err
	}
	s := &settings{
		apps: c.Apps, upstream: up, timeout: c.Timeout, maxBody: c.MaxBody,
		table: wechat.NewTable(c.Routes, wechat.Endpoints), exchange: c.Exchange, doubt: c.Doubt,
	}
	if c.Component != "" {
		s.component = []byte(c.Component)
	}
	if c.DefaultAppID != "" {
		s.defaultAppID = []byte(c.DefaultAppID)
	}
	if s.timeout <= 0 {
		s.timeout = 60 * time.Second
	}
	if s.maxBody <= 0 {
		s.maxBody = 32 << 20
	}
	old := p.settings.Load()
	if s.roster, err = newRoster(c.Callers, old.callers()); err != nil {
		return err
	}
	if len(c.StandInKey) == 0 && old != nil {
		s.signer = old.signer
	} else if s.signer, err = standin.NewSigner(c.StandInKey); err != nil {
		return err
	}
	p.bodies.SetLimit(max(p.leastBodies, mostBodies*s.maxBody))
	if p.settings.Store(s); old != nil {
		old.upstream.Close()
	}
	return nil
}

// Serve answers calls on ln until Shutdown. With conf the listener speaks TLS.
func (p *Proxy) Serve(ln net.Listener, conf *tls.Config) error {
	l := transport.NewListener(ln, transport.ListenerConfig{MaxConns: int(p.most), IdleTimeout: p.patience, TLS: conf, TooManyConns: []byte(tooManyConns)})
	p.listener.Store(l)
	if conf != nil {
		p.certificates.Store(conf.ClientCAs != nil)
	}
	stop := make(chan struct{})
	defer close(stop)
	go p.limiter.Run(stop, p.log)
	return p.server.Serve(l)
}

// farewell is how long callers have to hear, with the answer to one more call, that their connection ends.
const farewell = time.Second

// Shutdown stops accepting and waits for calls under way until ctx ends. A connection that was closed at once could
// have a call in it that was sent at this moment, and would be lost: so connections that are in use end with an answer that says
// so, and those that rest are closed a second later.
func (p *Proxy) Shutdown(ctx context.Context) error {
	p.leaving.Store(true)
	l := p.listener.Load()
	if l != nil {
		l.Close() // its error comes again below
	}
	for end := time.Now().Add(farewell); l != nil && l.Open() > 0 && time.Now().Before(end) && ctx.Err() == nil; {
		time.Sleep(5 * time.Millisecond)
	}
	err := p.server.ShutdownWithContext(ctx)
	p.settings.Load().upstream.Close()
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("calls were still under way when the time for stopping was over")
	}
	return err
}

// bodyLimit is how large a request's body may be. Large ones, which are held in memory, are taken of nobody who shows no
// key.
func (p *Proxy) bodyLimit(h *fasthttp.RequestHeader) int {
	s := p.settings.Load()
	if p.stranger(s, h) != nil {
		return min(longestForm, s.maxBody)
	}
	return s.maxBody
}

const (
	// leastBodies is what the large bodies of all calls may take together, in bytes, and mostBodies how many of the largest that
	// the configuration allows: a caller with a key could have all memory otherwise.
	leastBodies = 512 << 20
	mostBodies  = 2
)

// readBody reads the body of a request into buf, which it extends. The errors are for refuse. Who sends the request matters for
// large bodies only.
func (p *Proxy) readBody(cx *fasthttp.RequestCtx, buf []byte, memory *transport.Reservation) ([]byte, error) {
	limit := p.settings.Load().maxBody
	if n := cx.Request.Header.ContentLength(); n > longestForm || n < 0 && cx.Request.IsBodyStream() {
		limit = p.bodyLimit(&cx.Request.Header)
	}
	return transport.ReadBody(cx, buf, limit, memory)
}

// tooManyConns is what one connection too many hears, before it has said anything.
const tooManyConns = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nX-Wxproxy-Token: none\r\nConnection: close\r\nContent-Length: 134\r\n\r\n" +
	`{"errcode":-503,"errmsg":"wxproxy: as many connections are open as there may be","hint":"use connections again; start more replicas"}` + "\n"

// expect answers Expect: 100-continue: a body that will not be taken need not be sent at all.
func (p *Proxy) expect(ctx *fasthttp.RequestCtx) int {
	s := p.settings.Load()
	var pr *problem
	if n := ctx.Request.Header.ContentLength(); n > longestForm {
		pr = p.stranger(s, &ctx.Request.Header)
		if pr == nil && n > s.maxBody {
			pr = errTooLarge
		}
	} else if n > s.maxBody {
		pr = errTooLarge
	}
	if pr == nil {
		return http.StatusContinue
	}
	pr.write(&ctx.Response)
	return pr.status
}

// refuse answers what is not a request, or too large a one.
func (p *Proxy) refuse(ctx *fasthttp.RequestCtx, err error) {
	var timeout net.Error
	pr := errNotHTTP
	switch {
	case errors.Is(err, transport.ErrBodyBudget):
		pr = errBodies
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		pr = errTooLarge
		if stranger := p.stranger(p.settings.Load(), &ctx.Request.Header); stranger != nil {
			pr = stranger
		}
	case errors.As(err, new(*fasthttp.ErrSmallBuffer)):
		pr = &problem{status: http.StatusRequestHeaderFieldsTooLarge, msg: "request line and headers are over 16 KiB", hint: "send less"}
	case errors.As(err, &timeout) && timeout.Timeout():
		pr = &problem{status: http.StatusRequestTimeout, msg: "the request did not come in time", hint: "send it faster"}
	}
	transport.ConnOf(ctx.Conn()).ExtendDeadline(time.Now())
	pr.write(&ctx.Response)
	ctx.Response.Header.Set("X-Wxproxy-Token", "none")
	ctx.Response.Header.SetBytesV("X-Request-Id", appendRequestID(nil, nil))
	ctx.SetConnectionClose()
	p.observe.CallStarted()
	p.observe.CallDone(p.settings.Load().roster.label(nil), "none", pr.status, 0, 0)
	transport.ConnOf(ctx.Conn()).LingerOnClose()
}

// text looks at b as a string, for the time of a look-up: whoever keeps it must clone it.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

type nobody struct{}

func (nobody) CallStarted()                                               {}
func (nobody) CallDone(string, string, int, time.Duration, time.Duration) {}
func (nobody) TokenUsed(string, bool)                                     {}
func (nobody) Retried(string, int, string)                                {}
func (nobody) WeChatError(int)                                            {}
func (nobody) Redacted()                                                  {}

// quiet takes fasthttp's own messages, which can quote requests, and says only that there was one.
type quiet struct{ log *slog.Logger }

func (q quiet) Printf(format string, _ ...any) { q.log.Debug("connection trouble", "kind", format) }

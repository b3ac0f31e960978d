package sandbox

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"wxproxy/sandbox/internal/origin"
	"wxproxy/sandbox/internal/protocol"
	"wxproxy/sandbox/internal/push"
	"wxproxy/sandbox/internal/state"
	"wxproxy/wechat"
)

// WeChat is a fake WeChat with one component. Create it with [New]. It is an
// [http.Handler], and its other methods arrange what happens, push, inject
// faults and report what arrived. It is safe for concurrent use; its parts have
// locks of their own, none of which is held during I/O or while a function of
// the user runs.
type WeChat struct {
	cfg   Config // as completed by New; not written afterwards
	state *state.State
	push  *push.Sender

	faults     *faultList
	history    *history
	violations *violationList

	api     *apiServer
	pages   *protocol.ConsentPages
	control *controlServer
}

// New returns a WeChat without accounts. The error names the field of c that is
// not valid.
func New(c Config) (*WeChat, error) {
	c.complete()
	if err := c.check(); err != nil {
		return nil, err
	}
	token, key := wechat.NewSecret(c.MessageToken), wechat.NewSecret(c.EncodingAESKey)
	crypt, err := wechat.NewCrypt(token, key, c.ComponentAppID)
	if err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	s := &WeChat{
		cfg: c,
		state: state.New(state.Config{
			ComponentAppID: c.ComponentAppID, TokenLife: c.TokenLife, Grace: c.Grace,
			TicketLife: c.TicketLife, RotateRefreshTokens: c.RotateRefreshTokens,
		}),
		push:       push.NewSender(c.ComponentAppID, crypt, c.PushTimeout, c.Now),
		faults:     &faultList{},
		history:    &history{},
		violations: &violationList{},
	}
	if err := s.push.SetURL(c.PushURL); err != nil {
		return nil, err
	}
	for _, secret := range []string{c.ComponentSecret, c.MessageToken, c.EncodingAESKey} {
		s.state.PlatformSecrets.Add(secret)
	}
	guard := &origin.Guard{Hosts: c.ControlHosts}
	s.pages = protocol.NewConsentPages(s.state, protocol.ConsentConfig{
		ComponentAppID: c.ComponentAppID, AuthorizeHost: c.AuthorizeHost, Now: c.Now, Guard: guard, Push: s.push,
	})
	s.api = &apiServer{
		endpoints: protocol.NewAPI(s.state, protocol.Config{
			ComponentAppID: c.ComponentAppID, ComponentSecret: c.ComponentSecret, TokenLife: c.TokenLife,
			// The push does not depend on whether the client waits for its
			// response. A failure shows as a ticket that does not arrive.
			StartTicketPush: func() {
				s.push.Background(func(ctx context.Context) { _ = s.PushTicket(ctx) })
			},
			FindFailed: s.history.failed,
		}),
		faults: s.faults, history: s.history, violations: s.violations,
		now: c.Now, gzip: c.Gzip, observe: c.Observe,
	}
	s.control = &controlServer{wx: s, guard: guard}
	return s, nil
}

// Close waits for pushes that a request has started in the background, and
// starts no more. The handler goes on serving.
func (s *WeChat) Close() { s.push.Close() }

// ComponentAppID returns the appid of the component: the configured one, or
// [DefaultComponentAppID].
func (s *WeChat) ComponentAppID() string { return s.cfg.ComponentAppID }

// ServeHTTP answers as api.weixin.qq.com does, as WeChat's consent pages do on
// their paths, and as the sandbox itself below /sandbox/. It works over
// HTTP/1.1 and HTTP/2, with and without TLS. Do not put it behind an
// [http.ServeMux], which cleans paths.
func (s *WeChat) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// WeChat has one clock, so its responses have the time of its pushes.
	w.Header().Set("Date", s.cfg.Now().UTC().Format(http.TimeFormat))
	switch path := r.URL.EscapedPath(); {
	case path == "/sandbox" || strings.HasPrefix(path, "/sandbox/"):
		s.control.ServeHTTP(w, r)
	case s.pages.Has(path):
		s.pages.ServeHTTP(w, r)
	default:
		s.api.ServeHTTP(w, r)
	}
}

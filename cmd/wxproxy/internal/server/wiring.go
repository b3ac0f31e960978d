package server

import (
	"context"
	"net/url"
	"time"

	"wxproxy/callback"
	"wxproxy/callback/pages"
	"wxproxy/cmd/wxproxy/internal/config"
	"wxproxy/console"
	"wxproxy/internal/clock"
	"wxproxy/internal/hostname"
	"wxproxy/internal/returnticket"
	"wxproxy/proxy"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

// proxyConfig returns the configuration of the proxy. It is called at the start
// and for each reload, like the two functions below.
func (s *Server) proxyConfig(cfg config.Config, c components) proxy.Config {
	return proxy.Config{
		Component:      cfg.Component.AppID,
		Apps:           c.secrets.Apps,
		DefaultAppID:   cfg.Proxy.DefaultAppID,
		Routes:         c.routes,
		Callers:        c.callers,
		Upstream:       cfg.Proxy.Upstream,
		Roots:          c.roots,
		Timeout:        time.Duration(cfg.Proxy.Timeout),
		MaxBody:        int(cfg.Proxy.MaxRequestBody),
		OwnCalls:       cfg.Tokens.OwnCalls,
		Hosts:          cfg.Proxy.Hosts,
		ForwardHeaders: cfg.Proxy.ForwardHeaders,
		Tokens:         s.broker,
		StandIns:       s.keys.standIn,
		Exchange:       s.broker.Exchange,
		Redeem:         s.redeemer(cfg).Redeem,
		Revalidate:     s.broker.Revalidate,
		Observer:       s.metrics,
		Watch:          s.watch,
		Log:            s.log,
	}
}

// redeemer redeems the tickets that the pages of the component have issued.
func (s *Server) redeemer(cfg config.Config) *returnticket.Redeemer {
	return &returnticket.Redeemer{
		Signer: s.keys.tickets, Component: cfg.Component.AppID, Now: clock.Now, Claim: s.store.Claim,
	}
}

// callbackConfig returns the configuration of the callback listener.
func (s *Server) callbackConfig(cfg config.Config, c components) callback.Config {
	var forwards []callback.Forward
	for _, f := range cfg.Forwards {
		forwards = append(forwards, callback.Forward{
			Name: f.Name, Mode: callback.Mode(f.Mode), Keep: time.Duration(f.Keep),
			Secret: f.Secret, Token: f.Token,
			AppIDs: f.AppIDs, Events: f.Events, URL: f.URL,
		})
	}
	return callback.Config{
		Queue:          s.queue(),
		QueueLimits:    s.queueLimits(),
		StoreAhead:     s.storeAhead,
		Delivered:      s.metrics.Delivered,
		ComponentAppID: cfg.Component.AppID,
		Crypts:         c.crypts,
		Apps:           c.apps,
		Accounts:       s.broker,
		MaxAge:         time.Duration(cfg.Callback.MaxAge),
		Now:            clock.Now,
		Claims:         s.store,
		IsFor:          s.broker.IsAddressee,
		IsAnothers:     s.broker.IsAnothers,
		Observe:        s.metrics.Event,
		Log:            s.log,
		Pages: pages.Config{
			CodeExchanger: s.broker,
			StateKey:      s.keys.state,
			Tickets:       s.keys.tickets,
			PublicURL:     cfg.Callback.PublicURL,
			ReturnTo:      cfg.Callback.ReturnTo,
			LoginBase:     loginBase(cfg),
			Observe:       s.metrics.Page,
		},
		// WeChat's release check sends a code in a message.
		ExchangeCode: s.broker.Exchange,
		Forwards:     forwards,
		SendText: func(ctx context.Context, appid, openid, text string) error {
			return sendText(ctx, s.broker, appid, openid, text)
		},
	}
}

// consoleConfig returns the configuration of the admin listener.
func (s *Server) consoleConfig(cfg config.Config) console.Config {
	return console.Config{
		Ready:       s.broker.Ready,
		Metrics:     s.metrics.Handler(),
		Key:         cfg.Admin.Key,
		KeyRejected: s.metrics.KeyRejected,
		Log:         s.log,
		// On a loopback address the console checks the Host header, against
		// web pages whose name resolves to this machine.
		Loopback: config.IsLoopback(cfg.Admin.Listen),
		Accounts: s.broker,
		Stats:    s.broker.Stats(),
		Explain:  s.explain,
		Export:   s.export,
		Events:   s.callback.Queue(),
		About:    s.about(),
	}
}

// sendText sends a text message to a user of an account. If WeChat rejects the
// token, it sends once more with a new one.
func sendText(
	ctx context.Context, b *tokens.Broker, appid, openid, text string,
) error {
	t, err := b.Token(ctx, appid)
	if err != nil {
		return err
	}
	err = b.Client().SendText(ctx, t.Value, openid, text)
	if !wechat.TokenRefused(wechat.Code(err), false) {
		return err
	}
	if t, err = b.Renew(ctx, appid, t.Value); err != nil {
		return err
	}
	return b.Client().SendText(ctx, t.Value, openid, text)
}

// loginBase returns the base URL of the page on which merchants give consent:
// "" for WeChat's own, or upstream if that is a sandbox. It is taken for a
// sandbox if upstream and public_url are both loopback addresses: WeChat would
// never redirect a browser to one.
func loginBase(cfg config.Config) string {
	isLoopback := func(s string) bool {
		u, err := url.Parse(s)
		return err == nil && hostname.IsLoopback(u.Hostname())
	}
	if isLoopback(cfg.Proxy.Upstream) && isLoopback(cfg.Callback.PublicURL) {
		return cfg.Proxy.Upstream
	}
	return ""
}

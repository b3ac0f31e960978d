package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"wxproxy/callback"
	"wxproxy/cmd/wxproxy/internal/config"
	"wxproxy/internal/returnticket"
	"wxproxy/proxy"
	"wxproxy/proxy/standin"
	"wxproxy/tokens"
	"wxproxy/tokens/namespace"
	"wxproxy/tokens/store"
	"wxproxy/tokens/store/bolt"
	"wxproxy/tokens/store/redis"
	"wxproxy/wechat"
)

// components are the parts of a server that need no open file or socket.
// Building them first means that most failures leave nothing to close.
type components struct {
	secrets tokens.Secrets
	client  *wechat.Client // for the requests that wxproxy makes itself
	// crypts are for the current message key, and then for the previous one,
	// which WeChat may use for a while after a change.
	crypts []*wechat.Crypt
	// apps are the own accounts whose pushes are accepted.
	apps    []callback.App
	routes  []wechat.Endpoint
	callers []proxy.Caller
	// roots verify the certificate of upstream. nil means the system's.
	roots *x509.CertPool
	// tls is for the proxy listener. nil means plain HTTP.
	tls *tls.Config
}

// newComponents builds the components for cfg.
func newComponents(cfg config.Config) (c components, err error) {
	c.secrets = tokens.Secrets{
		Component:       cfg.Component.AppID,
		ComponentSecret: cfg.Component.AppSecret,
		Apps:            map[string]wechat.Secret{},
	}
	for _, a := range cfg.Apps {
		c.secrets.Apps[a.AppID] = a.AppSecret
	}
	if c.roots, err = roots(cfg.Proxy.UpstreamCAFile); err != nil {
		return c, fmt.Errorf("proxy.upstream_ca_file: %w", err)
	}
	c.client = wechat.NewClient(cfg.Proxy.Upstream, c.roots)
	if c.crypts, err = crypts(cfg.Component); err != nil {
		return c, err
	}
	if c.apps, err = apps(cfg.Apps); err != nil {
		return c, err
	}
	c.routes = routes(cfg.Routes)
	if c.callers, err = callers(cfg.Callers); err != nil {
		return c, err
	}
	c.tls, err = proxyTLS(cfg.Proxy)
	return c, err
}

// crypts returns a [wechat.Crypt] for each message key of m.
func crypts(m config.Component) (list []*wechat.Crypt, err error) {
	for _, k := range []struct {
		key    string
		secret wechat.Secret
	}{
		{"component.message_key", m.MessageKey},
		{"component.previous_message_key", m.PreviousMessageKey},
	} {
		if k.secret.IsEmpty() {
			continue
		}
		crypt, err := wechat.NewCrypt(m.MessageToken, k.secret, m.AppID)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.key, err)
		}
		list = append(list, crypt)
	}
	return list, nil
}

// apps returns the own accounts that have a message token.
func apps(blocks []config.App) (list []callback.App, err error) {
	for i, a := range blocks {
		if a.MessageToken.IsEmpty() {
			continue
		}
		app := callback.App{AppID: a.AppID, Token: a.MessageToken}
		if !a.MessageKey.IsEmpty() {
			app.Crypt, err = wechat.NewCrypt(a.MessageToken, a.MessageKey, a.AppID)
			if err != nil {
				return nil, fmt.Errorf("app[%d].message_key: %w", i+1, err)
			}
		}
		list = append(list, app)
	}
	return list, nil
}

// routes returns the endpoints for the rules of the operator.
func routes(rules []config.Route) (list []wechat.Endpoint) {
	needs := map[string]wechat.Need{
		"account":   wechat.NeedAccount,
		"component": wechat.NeedComponent,
		"none":      wechat.NeedNothing,
		"refuse":    wechat.NeedRefusal,
	}
	for _, r := range rules {
		list = append(list, wechat.Endpoint{Path: r.Path, Need: needs[r.Token], Parameter: r.Parameter})
	}
	return list
}

// callers returns the callers of the proxy.
func callers(blocks []config.Caller) (list []proxy.Caller, err error) {
	for _, b := range blocks {
		digests, err := b.KeyDigests()
		if err != nil {
			return nil, fmt.Errorf("caller %s: key_sha256: %w", b.Name, err)
		}
		list = append(list, proxy.Caller{
			Name:      b.Name,
			KeySHA256: digests,
			AppIDs:    b.AppIDs,
			Paths:     b.Paths,
			Methods:   b.Methods,
			Rate:      b.Rate,
			Burst:     b.Burst,
		})
	}
	return list, nil
}

// proxyTLS returns the TLS configuration of the proxy listener, or nil for
// plain HTTP.
func proxyTLS(p config.Proxy) (*tls.Config, error) {
	if p.TLSCertFile == "" {
		return nil, nil
	}
	certPEM, err := config.ReadFile(p.TLSCertFile)
	if err != nil {
		return nil, fmt.Errorf("proxy.tls_cert_file: %w", err)
	}
	keyPEM, err := config.ReadFile(p.TLSKeyFile)
	if err != nil {
		return nil, fmt.Errorf("proxy.tls_key_file: %w", err)
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("proxy.tls_cert_file: %w", err)
	}
	c := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	if p.ClientCAFile != "" {
		// Without the system's roots: a public CA would issue a certificate
		// with the name of a caller to others.
		if c.ClientCAs, err = appendRoots(x509.NewCertPool(), p.ClientCAFile); err != nil {
			return nil, fmt.Errorf("proxy.client_ca_file: %w", err)
		}
		c.ClientAuth = tls.VerifyClientCertIfGiven // without one, a key is needed
	}
	return c, nil
}

// roots returns the system's certificates and those in file, or nil, which
// means the system's, if file is "".
func roots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a system without certificates
	}
	return appendRoots(pool, file)
}

// appendRoots adds the certificates of a PEM file to pool and returns it.
func appendRoots(pool *x509.CertPool, file string) (*x509.CertPool, error) {
	pem, err := config.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate found")
	}
	return pool, nil
}

// openStore opens the store that store.url names. Its errors say what to do.
// warn receives problems that do not prevent the start.
func openStore(
	ctx context.Context, cfg config.Config, warn func(problem string),
) (s store.Store, err error) {
	if cfg.Store.URL == "memory:" {
		return store.NewMemory(), nil
	}
	key, err := cfg.Store.SealingKey() // nil: the key is in a file beside the store
	if err != nil {
		return nil, fmt.Errorf("store.key: %w", err)
	}
	previous, err := cfg.Store.PreviousKeys()
	if err != nil {
		return nil, fmt.Errorf("store.previous_key: %w", err)
	}
	// The configuration was validated: what is not Redis is a file.
	if config.IsRedis(cfg.Store.URL) {
		o := redis.Options{Warn: warn, PreviousKeys: previous}
		s, err = redis.OpenSealed(ctx, cfg.Store.URL, key, o)
	} else {
		path, _ := storeFile(cfg)
		if s, err = bolt.OpenFile(ctx, path, key, previous...); err == nil && key == nil {
			warn("its key lies beside it, in " + path + ".key, so a copy of the folder can be " +
				"read: keep the key in a secret manager, and set [store] key to its value")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("store.url: %w", err)
	}
	return s, nil
}

// platform returns whose records are used in the store.
func platform(s tokens.Secrets) namespace.Platform {
	isOwn := func(appid string) bool { _, ok := s.Apps[appid]; return ok }
	return namespace.Platform{Component: s.Component, Own: isOwn}
}

// Check reports what would keep [Open] from succeeding, as far as that can be
// found out without listening: it builds the components and opens the store.
// warn receives problems that do not prevent the start.
func Check(ctx context.Context, cfg config.Config, warn func(problem string)) error {
	if _, err := newComponents(cfg); err != nil {
		return err
	}
	s, err := openStore(ctx, cfg, warn)
	if err != nil {
		return err
	}
	// Opening may succeed although nothing can be written.
	if err := s.Ping(ctx); err != nil {
		s.Close()
		return fmt.Errorf("store.url: %w", err)
	}
	if err := s.Close(); err != nil {
		return fmt.Errorf("store.url: %w", err)
	}
	return nil
}

// signingKeys are random keys that are created once and kept in the store. What
// they sign is valid in all replicas and after a restart.
type signingKeys struct {
	standIn *standin.Signer      // signs stand-in tokens
	state   []byte               // signs the state that returns with a merchant's browser
	tickets *returnticket.Signer // signs what return_to receives
}

// loadKeys reads the signing keys from the store, or creates them.
func loadKeys(ctx context.Context, b *tokens.Broker) (k signingKeys, err error) {
	first, err := b.SigningKey(ctx, "standin", nil)
	if err != nil {
		return k, err
	}
	if k.standIn, err = standin.NewSigner(first); err != nil {
		return k, err
	}
	_, err = b.SigningKey(ctx, "standin", func(current []byte, others ...[]byte) {
		_ = k.standIn.SetKeys(current, others...) // the Broker has checked their lengths
	})
	if err != nil {
		return k, err
	}
	if k.state, err = b.SigningKey(ctx, "state", nil); err != nil {
		return k, err
	}
	ticket, err := b.SigningKey(ctx, "ticket", nil)
	k.tickets = returnticket.NewSigner(ticket)
	return k, err
}

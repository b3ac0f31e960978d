package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"wxproxy/callback"
	"wxproxy/cmd/wxproxy/internal/config"
	"wxproxy/proxy"
	"wxproxy/tokens"
	"wxproxy/tokens/store"
	"wxproxy/tokens/store/bolt"
	"wxproxy/tokens/store/redis"
	"wxproxy/wechat"
)

// components are what a configuration becomes before it is joined: everything that can fail without
// anything being open.
type components struct {
	secrets tokens.Secrets
	client  *wechat.Client
	crypts  []*wechat.Crypt // current key, then the previous one
	routes  []wechat.Endpoint
	callers []proxy.Caller
	roots   *x509.CertPool // nil: the system's
	tls     *tls.Config    // of the proxy listener; nil: plain
}

func newComponents(cfg config.Config) (components, error) {
	p := components{secrets: tokens.Secrets{Component: cfg.Component.AppID, ComponentSecret: cfg.Component.AppSecret, Apps: map[string]wechat.Secret{}}}
	for _, a := range cfg.Apps {
		p.secrets.Apps[a.AppID] = a.AppSecret
	}
	var err error
	if p.roots, err = roots(cfg.Proxy.UpstreamCAFile); err != nil {
		return p, fmt.Errorf("proxy.upstream_ca_file: %w", err)
	}
	p.client = wechat.NewClient(cfg.Proxy.Upstream, p.roots)
	for key, secret := range map[string]wechat.Secret{"message_key": cfg.Component.MessageKey, "previous_message_key": cfg.Component.PreviousMessageKey} {
		if secret.IsEmpty() {
			continue
		}
		c, err := wechat.NewCrypt(cfg.Component.MessageToken, secret, cfg.Component.AppID)
		if err != nil {
			return p, fmt.Errorf("component.%s: %w", key, err)
		}
		if key == "message_key" {
			p.crypts = append([]*wechat.Crypt{c}, p.crypts...)
		} else {
			p.crypts = append(p.crypts, c)
		}
	}
	needs := map[string]wechat.Need{"account": wechat.NeedAccount, "component": wechat.NeedComponent, "none": wechat.NeedNothing, "refuse": wechat.NeedRefusal}
	for _, r := range cfg.Routes {
		p.routes = append(p.routes, wechat.Endpoint{Path: r.Path, Need: needs[r.Token], Parameter: r.Parameter})
	}
	for _, c := range cfg.Callers {
		digest, err := c.KeyDigest()
		if err != nil {
			return p, fmt.Errorf("caller %s: key_sha256: %w", c.Name, err)
		}
		p.callers = append(p.callers, proxy.Caller{
			Name: c.Name, KeySHA256: digest, AppIDs: c.AppIDs, Paths: c.Paths, Methods: c.Methods, Rate: c.Rate, Burst: c.Burst,
		})
	}
	if cfg.Proxy.TLSCertFile != "" {
		cert, err := tls.LoadX509KeyPair(cfg.Proxy.TLSCertFile, cfg.Proxy.TLSKeyFile)
		if err != nil {
			return p, fmt.Errorf("proxy.tls_cert_file: %w", err)
		}
		p.tls = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	}
	if cfg.Proxy.ClientCAFile != "" && p.tls != nil {
		// Not the system's roots: anybody can have a certificate of theirs with a caller's name in it.
		if p.tls.ClientCAs, err = appendRoots(x509.NewCertPool(), cfg.Proxy.ClientCAFile); err != nil {
			return p, fmt.Errorf("proxy.client_ca_file: %w", err)
		}
		p.tls.ClientAuth = tls.VerifyClientCertIfGiven // who has none shows a key
	}
	return p, nil
}

// roots are the system's, and those of file.
func roots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	return appendRoots(pool, file)
}

// appendRoots adds the certificates of a PEM file to pool.
func appendRoots(pool *x509.CertPool, file string) (*x509.CertPool, error) {
	pem, err := config.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("there is no certificate in it")
	}
	return pool, nil
}

// forwardsOf are the blocks as the callback listener takes them.
func forwardsOf(cfg config.Config) (list []callback.Forward) {
	for _, f := range cfg.Forwards {
		list = append(list, callback.Forward{AppIDs: f.AppIDs, Events: f.Events, URL: f.URL})
	}
	return list
}

// openStore opens what store.url names. The errors say what to do; warn is told what is no error.
func openStore(ctx context.Context, cfg config.Config, warn func(problem string)) (store.Store, error) {
	if cfg.Store.URL == "memory:" {
		return store.NewMemory(), nil
	}
	key, err := cfg.Store.SealingKey() // nil: in a file beside the store
	if err != nil {
		return nil, fmt.Errorf("store.key: %w", err)
	}
	var s store.Store
	if config.IsRedis(cfg.Store.URL) {
		s, err = redis.OpenSealed(ctx, cfg.Store.URL, key, redis.Options{Warn: warn})
	} else {
		s, err = bolt.OpenFile(ctx, strings.TrimPrefix(cfg.Store.URL, "file:"), key)
	}
	if err != nil {
		return nil, fmt.Errorf("store.url: %w", err)
	}
	return s, nil
}

// Check reports what would keep a server from starting with cfg, as far as
// that can be known without binding addresses: it builds the components and
// opens the store. warn receives what works but deserves attention.
func Check(ctx context.Context, cfg config.Config, warn func(problem string)) error {
	if _, err := newComponents(cfg); err != nil {
		return err
	}
	store, err := openStore(ctx, cfg, warn)
	if err != nil {
		return err
	}
	if err := store.Ping(ctx); err != nil {
		store.Close()
		return fmt.Errorf("store.url: %w", err)
	}
	if err := store.Close(); err != nil {
		return fmt.Errorf("store.url: %w", err)
	}
	return nil
}

// keys are ours, made once and kept in the store: what is signed with them is good in all replicas and after
// restarts.
type keys struct {
	standIn []byte // signs what SDKs get in place of tokens
	state   []byte // signs what comes back with a merchant's browser
}

func loadKeys(ctx context.Context, b *tokens.Broker) (k keys, err error) {
	if k.standIn, err = b.Key(ctx, "standin"); err != nil {
		return k, err
	}
	k.state, err = b.Key(ctx, "state")
	return k, err
}

// needsRestart lists the keys in which two configurations differ and that are read at the start only.
func needsRestart(a, b config.Config) (keys []string) {
	for key, differs := range map[string]bool{
		"proxy.listen": a.Proxy.Listen != b.Proxy.Listen, "callback.listen": a.Callback.Listen != b.Callback.Listen, "admin.listen": a.Admin.Listen != b.Admin.Listen,
		"proxy.tls_cert_file": a.Proxy.TLSCertFile != b.Proxy.TLSCertFile, "proxy.tls_key_file": a.Proxy.TLSKeyFile != b.Proxy.TLSKeyFile,
		"proxy.client_ca_file": a.Proxy.ClientCAFile != b.Proxy.ClientCAFile,
		"store.url":            a.Store.URL != b.Store.URL, "store.key": !a.Store.Key.Equal(b.Store.Key),
		"tokens.renew_before": a.Tokens.RenewBefore != b.Tokens.RenewBefore, "tokens.cache_size": a.Tokens.CacheSize != b.Tokens.CacheSize,
		"log.format": a.Log.Format != b.Log.Format,
	} {
		if differs {
			keys = append(keys, key)
		}
	}
	return keys
}

// NewLog makes the log; level can be changed while it is in use.
func NewLog(w io.Writer, c config.Log, level *slog.LevelVar) *slog.Logger {
	SetLevel(c, level)
	opts := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

func SetLevel(c config.Log, level *slog.LevelVar) {
	var l slog.Level
	if l.UnmarshalText([]byte(c.Level)) == nil {
		level.Set(l)
	}
}

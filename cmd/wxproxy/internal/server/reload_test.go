package server

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"wxproxy/cmd/wxproxy/internal/config"
	"wxproxy/wechat"
)

func TestNeedsRestart(t *testing.T) {
	base := config.Default()
	if got := needsRestart(base, base); len(got) != 0 {
		t.Errorf("needsRestart of equal configurations: got %q, want none", got)
	}
	changed := base
	changed.Proxy.Listen, changed.Callback.Listen, changed.Admin.Listen = ":1", ":2", ":3"
	changed.Proxy.TLSCertFile, changed.Proxy.TLSKeyFile, changed.Proxy.ClientCAFile = "a", "b", "c"
	changed.Store.URL, changed.Store.Key = "memory:", wechat.NewSecret("key")
	changed.Tokens.RenewBefore, changed.Tokens.CacheSize = config.Duration(time.Minute), 1000
	changed.Log.Format = "json"
	// These take effect with a reload.
	changed.Log.Level = "debug"
	changed.Proxy.Timeout = config.Duration(time.Second)
	changed.Admin.Key = wechat.NewSecret("another key")
	changed.Callers = []config.Caller{{Name: "orders"}}
	got := needsRestart(base, changed)
	slices.Sort(got)
	want := strings.Fields(`admin.listen callback.listen log.format
		proxy.client_ca_file proxy.listen proxy.tls_cert_file proxy.tls_key_file
		store.key store.url tokens.cache_size tokens.renew_before`)
	if !slices.Equal(got, want) {
		t.Errorf("needsRestart: got %q, want %q", got, want)
	}
}

func TestLoginBase(t *testing.T) {
	const sandbox, wx = "http://127.0.0.1:8090", "https://api.weixin.qq.com"
	for _, c := range []struct{ upstream, public, want string }{
		{wx, "https://wx.example.com", ""},
		{wx, "http://localhost:8081", ""},
		{sandbox, "https://wx.example.com", ""},
		{sandbox, "", ""},
		{sandbox, "http://localhost:8081", sandbox},
	} {
		cfg := config.Config{Proxy: config.Proxy{Upstream: c.upstream}, Callback: config.Callback{PublicURL: c.public}}
		if got := loginBase(cfg); got != c.want {
			t.Errorf("loginBase with upstream %q and public_url %q: got %q, want %q", c.upstream, c.public, got, c.want)
		}
	}
}

func TestComponents(t *testing.T) {
	const key = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
	digest := strings.Repeat("0f", 32)
	c, err := newComponents(config.Config{
		Component: config.Component{
			AppID: "wx00000000000000aa", AppSecret: wechat.NewSecret("s"), MessageToken: wechat.NewSecret("t"),
			MessageKey: wechat.NewSecret(key), PreviousMessageKey: wechat.NewSecret(strings.ToUpper(key)),
		},
		Proxy:   config.Proxy{Upstream: "https://api.weixin.qq.com"},
		Apps:    []config.App{{AppID: accountA, AppSecret: wechat.NewSecret("own")}},
		Callers: []config.Caller{{Name: "orders", KeySHA256: config.OneOrMore{digest}, Rate: 5}},
		Routes:  []config.Route{{Path: "/a", Token: "refuse", Parameter: wechat.AccessToken}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.crypts) != 2 || c.secrets.Apps[accountA].Reveal() != "own" || c.roots != nil || c.tls != nil {
		t.Errorf("newComponents: got %d crypts and %v, want 2 and the own account", len(c.crypts), c)
	}
	if len(c.callers) != 1 || c.callers[0].Rate != 5 || c.callers[0].KeySHA256[0][0] != 0x0f {
		t.Errorf("newComponents: got callers %+v, want orders with its key", c.callers)
	}
	routes := []wechat.Endpoint{{Path: "/a", Need: wechat.NeedRefusal, Parameter: wechat.AccessToken}}
	if !reflect.DeepEqual(c.routes, routes) {
		t.Errorf("newComponents: got routes %+v, want %+v", c.routes, routes)
	}
}

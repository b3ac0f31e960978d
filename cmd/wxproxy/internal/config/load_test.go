package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// Every kind of value ends up in the right field.
func TestLoadValues(t *testing.T) {
	vars := testEnv(t)
	cfg, warnings, err := Load("testdata/ok-all.toml", lookUp(vars))
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	cert := filepath.Join(vars["DIR"], "cert.pem")
	if want := (Proxy{
		Listen: "[::1]:18080", Upstream: "https://sh.api.weixin.qq.com:8443/", UpstreamCAFile: cert,
		DefaultAppID: "wx1111111111111111",
		Timeout:      Duration(10 * time.Minute), MaxRequestBody: 1024, TLSCertFile: cert,
		TLSKeyFile:     filepath.Join(vars["DIR"], "key.pem"),
		Hosts:          []string{"wxproxy", "*"},
		ForwardHeaders: []string{"X-Gateway-Key", "x-tenant", "Accept"},
	}); !reflect.DeepEqual(cfg.Proxy, want) {
		t.Errorf("proxy: got %+v, want %+v", cfg.Proxy, want)
	}
	if want := []string{"https://shop.example.com/",
		"http://localhost:3000/done"}; !slices.Equal(cfg.Callback.ReturnTo, want) ||
		cfg.Callback.PublicURL != "https://wx.example.com" {
		t.Errorf("callback: got %+v, want return_to %v", cfg.Callback, want)
	}
	if cfg.Admin.Key.Reveal() != vars["APPSECRET"] {
		t.Errorf("admin key: got %q, want %q", cfg.Admin.Key.Reveal(), vars["APPSECRET"])
	}
	if key, err := cfg.Store.SealingKey(); err != nil || len(key) != 32 || cfg.Store.URL != "memory:" {
		t.Errorf("store: got %+v, a key of %d bytes, %v, want memory: and 32 bytes", cfg.Store, len(key), err)
	}
	if want := (Tokens{
		RenewBefore: Duration(119 * time.Minute), CacheSize: 100_000_000, OwnCalls: 1000,
	}); cfg.Tokens != want {
		t.Errorf("tokens: got %+v, want %+v", cfg.Tokens, want)
	}
	if want := (Log{Level: "debug", Format: "json"}); cfg.Log != want {
		t.Errorf("log: got %+v, want %+v", cfg.Log, want)
	}
	if want := []Route{
		{"/cgi-bin/new/call", "account", "access_token"},
		{"/cgi-bin/new/*", "refuse", "component_access_token"},
		{"/*", "none", "access_token"},
	}; !slices.Equal(cfg.Routes, want) {
		t.Errorf("routes: got %+v, want %+v", cfg.Routes, want)
	}
	if len(cfg.Apps) != 1 || cfg.Apps[0].AppID != "wx0123456789abcdef" ||
		cfg.Apps[0].AppSecret.Reveal() != marker+"0123456789" {
		t.Errorf("apps: got %+v", cfg.Apps)
	}
	cfg, _, err = Load("testdata/ok-component.toml", lookUp(nil))
	m := cfg.Component
	if err != nil || m.AppID != "wx00000000000000aa" || m.AppSecret.Reveal() == "" ||
		m.MessageToken.Reveal() == "" || len(m.MessageKey.Reveal()) != 43 || !m.PreviousMessageKey.Equal(m.MessageKey) {
		t.Errorf("component: got %+v, %v", m, err)
	}
}

// A caller that ignores the error gets nothing to work with.
func TestRejectedConfigIsZero(t *testing.T) {
	cfg, warnings, err := Load("testdata/all-at-once.toml", lookUp(nil))
	var all *Error
	if !errors.As(err, &all) || len(all.faults) < 10 || warnings != nil || !reflect.DeepEqual(cfg, Config{}) {
		t.Errorf("Load(all-at-once.toml): got %+v, %v, %v, want zero values and at least 10 faults", cfg, warnings, err)
	}
}

// No formatting verb shows a secret.
func TestConfigPrintsNoSecret(t *testing.T) {
	cfg, _, err := Load("testdata/ok-all.toml", lookUp(testEnv(t)))
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		if out := fmt.Sprintf(verb, cfg); strings.Contains(out, marker) || strings.Contains(out, "c0VjUmVU") {
			t.Errorf("Sprintf(%q) of a configuration shows a secret: %s", verb, out)
		}
	}
}

func TestLoadUnreadableFile(t *testing.T) {
	dir := t.TempDir()
	huge := filepath.Join(dir, "huge.toml")
	f, err := os.Create(huge)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(100 << 20); err != nil { // sparse: it needs no disk space
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none.toml"): "cannot be read: no such file or directory",
		dir:                             "cannot be read: is a directory",
		huge:                            "cannot be read: it has more than 1MiB",
		"a\x00b":                        "cannot be read: invalid argument",
	} {
		if _, _, err := Load(path, lookUp(nil)); err == nil || err.Error() != path+": "+want {
			t.Errorf("Load(%q): got %v, want %s", path, err, want)
		}
	}
}

// As in --config <(…).
func TestLoadFromPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	wrote := make(chan error, 1)
	go func() {
		_, err := io.WriteString(w, "\ufeff[[app]]\r\nappid = \"wx0123456789abcdef\"\r\nappsecret = \"s\"\r\n")
		wrote <- errors.Join(err, w.Close())
	}()
	cfg, _, err := Load(fmt.Sprintf("/dev/fd/%d", r.Fd()), lookUp(nil))
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	if err != nil || len(cfg.Apps) != 1 {
		t.Errorf("Load from a pipe: got %+v, %v, want one app", cfg, err)
	}
}

func TestIsLoopback(t *testing.T) {
	f := func(addr string, want bool) {
		t.Helper()
		if got := IsLoopback(addr); got != want {
			t.Errorf("IsLoopback(%q): got %v, want %v", addr, got, want)
		}
	}
	f("127.0.0.1:8080", true)
	f("127.255.0.9:0", true)
	f("[::1]:8080", true)
	f("[::ffff:127.0.0.1]:8080", true)
	f("localhost:8080", true)
	f("LocalHost:8080", true)
	f(":8080", false)
	f("0.0.0.0:8080", false)
	f("[::]:8080", false)
	f("[::ffff:0.0.0.0]:8080", false)
	f("10.0.0.1:8080", false)
	f("localhost.example.com:8080", false)
	f("127.0.0.1.example.com:8080", false)
	f("127.0.0.1", false)
	f("", false)
}

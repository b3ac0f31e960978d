package main

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"wxproxy/internal/proctest"
	"wxproxy/sandbox"
)

// onRedis returns the lines of [store] for r, with a key of 32 times c.
func onRedis(r *redisServer, c string) string {
	return fmt.Sprintf("url = %q\nkey = %q", "redis+unix://"+r.socket,
		base64.StdEncoding.EncodeToString([]byte(strings.Repeat(c, 32))))
}

// check opens the store and reports problems and warnings.
func TestCheckRedis(t *testing.T) {
	r := startRedis(t)
	w := newTestEnv(t, sandbox.Config{})
	w.store = onRedis(r, "k")
	path := w.config()
	out, err := proctest.Command(t, "check", "--config", path).CombinedOutput()
	want := fmt.Sprintf("warning: %s: store.url: Redis at %s has no persistence: "+
		"after it restarts, all accounts must be read from WeChat again; set appendonly yes\n"+
		"%[1]s: the configuration is valid, and the store opens\n", path, r.socket)
	if err != nil || string(out) != want {
		t.Errorf("check: got %v\n%s\nwant\n%s", err, out, want)
	}
	w.store = onRedis(r, "o")
	out, err = proctest.Command(t, "check", "--config", w.config()).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "store.url: Redis at "+r.socket+
		": store was sealed with another key than the one given") {
		t.Errorf("check: got %v\n%s\nwant an error about the store", err, out)
	}
	w.store = onRedis(&redisServer{socket: r.socket + "x"}, "k")
	out, err = proctest.Command(t, "check", "--config", w.config()).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "store.url: Redis at "+r.socket+"x: cannot be reached") {
		t.Errorf("check: got %v\n%s\nwant an error about the store", err, out)
	}
}

// Saved tokens survive a kill. While Redis is unreachable, cached tokens are
// used and /readyz says why wxproxy is not ready.
func TestServeOnRedis(t *testing.T) {
	r := startRedis(t)
	w := newTestEnv(t, sandbox.Config{})
	w.store = onRedis(r, "k")
	w.start().authorized(accountA)
	w.call("/"+accountA+userInfo, "hit")
	w.end(syscall.SIGKILL)
	token := w.wx.CurrentToken(accountA)
	w.start()
	w.call("/"+accountA+userInfo, "miss")
	if w.wx.CurrentToken(accountA) != token {
		t.Errorf("token after a restart: got %q, want %q as before", w.wx.CurrentToken(accountA), token)
	}
	proctest.Eventually(t, func() bool {
		status, _, header := w.try("GET", "/"+accountA+userInfo, "")
		return status == 200 && header.Get("X-Wxproxy-Token") == "hit"
	})
	fmt.Fprint(r.conn, "SHUTDOWN NOSAVE\r\n")
	proctest.Eventually(t, func() bool {
		status, body := w.get(w.admin, "/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "cannot be reached")
	})
	for range 10 {
		w.call("/"+accountA+userInfo, "hit")
	}
}

package main

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"wxproxy/sandbox"
)

// onRedis is [store] of a store in r, sealed with a key of 32 times c.
func onRedis(r *redisServer, c string) string {
	return fmt.Sprintf("url = %q\nkey = %q", "redis+unix://"+r.socket, base64.StdEncoding.EncodeToString([]byte(strings.Repeat(c, 32))))
}

// check opens the store, says what the operator should know of it, and what is wrong.
func TestCheckRedis(t *testing.T) {
	r := startRedis(t)
	w := newWorld(t, sandbox.Config{})
	w.store = onRedis(r, "k")
	path := w.config()
	out, err := wxproxy(t, "check", "--config", path).CombinedOutput()
	want := fmt.Sprintf("warning: %s: store.url: Redis at %s has no persistence: "+
		"after it restarts, all accounts must be read from WeChat again; set appendonly yes\n"+
		"%[1]s: the configuration is valid, and the store opens\n", path, r.socket)
	if err != nil || string(out) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, out, want)
	}
	w.store = onRedis(r, "o")
	out, err = wxproxy(t, "check", "--config", w.config()).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "store.url: Redis at "+r.socket+": store was sealed with another key than the one given") {
		t.Errorf("%v\n%s", err, out)
	}
	w.store = onRedis(&redisServer{socket: r.socket + "x"}, "k")
	out, err = wxproxy(t, "check", "--config", w.config()).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "store.url: Redis at "+r.socket+"x: cannot be reached") {
		t.Errorf("%v\n%s", err, out)
	}
}

// What was saved outlives a kill; while Redis is away what is in memory serves on, and /readyz says why it is not ready.
func TestServeOnRedis(t *testing.T) {
	r := startRedis(t)
	w := newWorld(t, sandbox.Config{})
	w.store = onRedis(r, "k")
	w.start().authorized(accountA)
	w.call("/"+accountA+userInfo, "hit")
	w.end(syscall.SIGKILL)
	token := w.wx.CurrentToken(accountA)
	w.start()
	w.call("/"+accountA+userInfo, "miss")
	if w.wx.CurrentToken(accountA) != token {
		t.Error("the restart has renewed the token")
	}
	eventually(t, func() bool {
		status, _, header := w.try("GET", "/"+accountA+userInfo, "")
		return status == 200 && header.Get("X-Wxproxy-Token") == "hit"
	})
	fmt.Fprint(r.conn, "SHUTDOWN NOSAVE\r\n")
	eventually(t, func() bool {
		status, body := w.get(w.admin, "/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "cannot be reached")
	})
	for range 10 {
		w.call("/"+accountA+userInfo, "hit")
	}
}

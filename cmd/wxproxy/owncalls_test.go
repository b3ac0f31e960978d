//go:build unix

package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"wxproxy/internal/proctest"
	"wxproxy/sandbox"
)

// 1,500 accounts without a token, which WeChat lists, are called at one time.
// All requests succeed, and no more than own_calls renewals are in flight at
// WeChat, each of which takes 20 ms: 8, and 64 by default.
func TestColdAccountsShareOwnCalls(t *testing.T) {
	const accounts = 1500
	w := newTestEnv(t, sandbox.Config{})
	var inFlight, most atomic.Int64
	counting := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == refreshPath {
			n := inFlight.Add(1)
			defer inFlight.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
		}
		w.wx.ServeHTTP(rw, r)
	}))
	t.Cleanup(counting.Close)
	w.wxURL = counting.URL
	w.start().authorized()
	appids := make([]string, accounts)
	var setup sync.WaitGroup
	for i := range appids {
		appids[i] = fmt.Sprintf("wx%016d", i)
		if err := w.wx.AddAccount(appids[i], sandbox.OfficialAccount); err != nil {
			t.Fatal(err)
		}
		setup.Go(func() {
			if _, err := w.wx.Authorize(t.Context(), appids[i]); err != nil {
				t.Error(err)
			}
		})
	}
	setup.Wait()
	proctest.Eventually(t, func() bool {
		return w.wx.Count("/cgi-bin/component/api_query_auth") >= accounts
	})
	w.fault(sandbox.Fault{Path: refreshPath, Delay: sandbox.Span(20 * time.Millisecond)})
	for _, tt := range []struct {
		config string
		limit  int64
	}{{"", 64}, {"[tokens]\nown_calls = 8", 8}} {
		// In an empty store, accounts have the refresh tokens of WeChat's list.
		w.end(syscall.SIGTERM)
		if err := os.Remove(filepath.Join(w.dir, "wxproxy.db")); err != nil {
			t.Fatal(err)
		}
		w.blocks = tt.config
		most.Store(0)
		w.start().authorized()
		proctest.Eventually(t, func() bool {
			_, metrics := w.get(w.admin, "/metrics")
			return strings.Contains(metrics, fmt.Sprintf(`state="active"} %d`, accounts))
		})
		var calls sync.WaitGroup
		for _, appid := range appids {
			calls.Go(func() {
				// On a slow machine, a renewal can wait for longer than ten
				// seconds, and is to be tried again.
				proctest.Eventually(t, func() bool {
					status, answer, _ := w.try("GET", "/"+appid+userInfo, "")
					if status != 200 && status != 503 {
						t.Errorf("%s: got %d %s, want 200", appid, status, answer)
					}
					return status != 503
				})
			})
		}
		calls.Wait()
		if n := most.Load(); n > tt.limit || n < 2 {
			t.Errorf("got %d renewals in flight, want 2 to %d", n, tt.limit)
		}
		_, metrics := w.get(w.admin, "/metrics")
		sent := `wxproxy_own_calls_total{endpoint="api_authorizer_token",result="ok"} `
		if _, n, _ := strings.Cut(metrics, sent); !strings.HasPrefix(n, fmt.Sprintln(accounts)) {
			t.Errorf("%s: got %.5s, want %d", sent, n, accounts)
		}
	}
}

// The network between one of two replicas and WeChat is broken: its connections
// are reset. The other one renews a rejected token at once, although the first
// has just failed to, 5 times. When the network is back, both serve.
func TestBrokenNetworkStopsOneReplica(t *testing.T) {
	const account = "wx0000000000000001"
	f := prepareFleet(t, 2, sandbox.Config{Grace: -1})
	f.redis = newSharedRedis(t)
	if err := f.wx.AddAccount(account, sandbox.OfficialAccount); err != nil {
		t.Fatal(err)
	}
	f.link().start().authorized(account)
	cutOff, other := f.replicas[0], f.replicas[1]
	f.everywhere(account)
	cutOff.toWeChat.fail(resetting)
	f.wx.ResetHistory()
	f.wx.Expire(account)
	for range 5 {
		resp, err := f.client.Post("http://"+cutOff.admin+"/api/accounts/"+account+"/refresh", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == 200 {
			t.Error("refresh without a network: got 200, want an error")
		}
	}
	if a := other.call(account); !a.ok() {
		t.Errorf("the other replica: got %v, want success", a)
	}
	if n := f.wx.Count(refreshPath); n != 1 {
		t.Errorf("got %d renewals, want 1", n)
	}
	paused := `wxproxy_breaker_open{reason="unreachable"} 1`
	if _, metrics := cutOff.get("/metrics"); !strings.Contains(metrics, paused) {
		t.Errorf("metrics of the replica without a network: want %s", paused)
	}
	if _, metrics := other.get("/metrics"); strings.Contains(metrics, paused) {
		t.Errorf("metrics of the other replica: got %s", paused)
	}
	cutOff.toWeChat.repair(true)
	proctest.Eventually(t, func() bool { return cutOff.call(account).ok() })
}

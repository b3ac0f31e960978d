//go:build unix

package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"wxproxy/internal/proctest"
	"wxproxy/sandbox"
)

// rounds returns how often a race is tried: WXPROXY_ROUNDS, or short.
func rounds(t *testing.T, short int) int {
	if n, err := strconv.Atoi(os.Getenv("WXPROXY_ROUNDS")); err == nil {
		return n
	}
	return short
}

// 600 requests at three replicas whose token is rejected at the same moment
// cause one renewal, and none of them fails.
func TestReplicasRenewOnce(t *testing.T) {
	f := newFleet(t, 3, sandbox.Config{Grace: -1}).authorized()
	for round := range rounds(t, 12) {
		// Each round has another account: repeated rejections of one are
		// throttled.
		account := fmt.Sprintf("wx%016d", round)
		if err := f.wx.AddAccount(account, sandbox.OfficialAccount); err != nil {
			t.Fatal(err)
		}
		if _, err := f.wx.Authorize(t.Context(), account); err != nil {
			t.Fatal(err)
		}
		f.everywhere(account)
		f.wx.ResetHistory()
		f.wx.Expire(account)
		var calls sync.WaitGroup
		for i := range 600 {
			calls.Go(func() {
				if a := f.replicas[i%3].call(account); !a.ok() {
					t.Errorf("round %d: got %v, want success", round, a)
				}
			})
		}
		calls.Wait()
		if n := f.wx.Count(refreshPath); n != 1 {
			t.Fatalf("round %d: got %d renewals, want 1", round, n)
		}
	}
}

// A replica that is killed during a renewal delays the account by less than 15
// seconds.
func TestReplicaKilledWhileItRenews(t *testing.T) {
	f := newFleet(t, 2, sandbox.Config{Grace: -1, RotateRefreshTokens: true}).authorized(accountA)
	hold := make(chan struct{})
	defer close(hold)
	if _, err := f.wx.AddFault(sandbox.Fault{Path: refreshPath, Times: 1, Hold: hold}); err != nil {
		t.Fatal(err)
	}
	f.wx.ResetHistory()
	f.wx.Expire(accountA)
	go f.replicas[0].call(accountA)
	proctest.Eventually(t, func() bool { return f.wx.Count(refreshPath) == 1 })
	f.replicas[0].kill()
	a := f.replicas[1].call(accountA)
	if !a.ok() {
		t.Errorf("request while the other replica is dead: got %v", a)
	}
	proctest.Promise(t, "request while the other replica is dead", a.took, 15*time.Second)
	f.replicas[0].start()
	f.everywhere(accountA)
}

// A replica that was stopped during a renewal, for longer than its lock was
// valid, overwrites nothing when it continues.
func TestReplicaSleepsWhileItRenews(t *testing.T) {
	f := newFleet(t, 2, sandbox.Config{Grace: -1, RotateRefreshTokens: true}).authorized(accountA)
	hold := make(chan struct{})
	if _, err := f.wx.AddFault(sandbox.Fault{Path: refreshPath, Times: 1, Hold: hold}); err != nil {
		t.Fatal(err)
	}
	f.wx.ResetHistory()
	f.wx.Expire(accountA)
	var late answer
	done := make(chan struct{})
	go func() { late = f.replicas[0].call(accountA); close(done) }()
	proctest.Eventually(t, func() bool { return f.wx.Count(refreshPath) == 1 })
	f.replicas[0].signal(syscall.SIGSTOP)
	close(hold) // it will receive a token that the next renewal invalidates
	a := f.replicas[1].call(accountA)
	if !a.ok() {
		t.Errorf("request to the other replica: got %v", a)
	}
	proctest.Promise(t, "request to the other replica", a.took, 15*time.Second)
	renewals := f.wx.Count(refreshPath)
	f.replicas[0].signal(syscall.SIGCONT)
	<-done
	t.Logf("the stopped replica: %v, %d renewals", late, renewals)
	if !late.ok() {
		t.Errorf("request at the stopped replica: got %v, want success", late)
	}
	for _, r := range f.replicas {
		if a := r.call(accountA); !a.ok() {
			t.Errorf("request afterwards: got %v, want success", a)
		}
	}
	// The store has the valid refresh token: one renewal is enough, and
	// WeChat's list is not needed.
	f.wx.ResetHistory()
	f.wx.Expire(accountA)
	if a := f.replicas[0].call(accountA); !a.ok() {
		t.Errorf("request with an expired token: got %v, want success", a)
	}
	if n := f.wx.Count(infoPath); n != 0 || f.wx.Count(refreshPath) != 1 {
		t.Errorf("got %d renewals and %d requests for the refresh token, want 1 and 0", f.wx.Count(refreshPath), n)
	}
}

// While Redis is unreachable or does not respond, cached tokens are used,
// renewals fail in bounded time, and /readyz says why. Five seconds after its
// return everything works.
func TestRedisUnreachable(t *testing.T) {
	for name, away := range map[string]struct{ leave, comeBack func(*sharedRedis) }{
		"killed": {(*sharedRedis).kill, (*sharedRedis).start},
		"silent": {func(r *sharedRedis) { r.signal(syscall.SIGSTOP) },
			func(r *sharedRedis) { r.signal(syscall.SIGCONT) }},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, 2, sandbox.Config{Grace: -1}).authorized(accountA, accountB)
			for _, r := range f.replicas {
				proctest.Eventually(t, func() bool { return r.call(accountA).token == "hit" })
			}
			away.leave(f.redis)
			for _, r := range f.replicas {
				proctest.Eventually(t, func() bool {
					status, why := r.get("/readyz")
					return status == 503 && strings.Contains(why, "store") && strings.Contains(why, f.redis.socket)
				})
			}
			var slowest time.Duration
			for i := range 200 {
				a := f.replicas[i%2].call(accountA)
				if !a.ok() || a.token != "hit" {
					t.Fatalf("request with a cached token: got %v", a)
				}
				slowest = max(slowest, a.took)
			}
			proctest.Promise(t, "the slowest request with a cached token", slowest, 2*time.Second)
			f.wx.Expire(accountB)
			a := f.replicas[0].call(accountB)
			if a.status != 503 || !strings.Contains(a.text, "wxproxy: ") {
				t.Errorf("renewal without the store: got %v, want 503 from wxproxy", a)
			}
			proctest.Promise(t, "the failure of a renewal without the store", a.took, 15*time.Second)
			away.comeBack(f.redis)
			back := time.Now()
			for _, r := range f.replicas {
				proctest.Eventually(t, func() bool {
					status, _ := r.get("/readyz")
					return status == 200 &&
						r.call(accountB).ok()
				})
			}
			proctest.Promise(t, "recovery after Redis has returned", time.Since(back), 5*time.Second)
			f.everywhere(accountA)
		})
	}
}

// A Redis that has lost all data is filled after the next ticket, and no
// request fails meanwhile.
func TestRedisLosesData(t *testing.T) {
	f := newFleet(t, 2, sandbox.Config{}).authorized(accountA, accountB)
	if got := f.redis.do("FLUSHALL"); got != "+OK" {
		t.Fatalf("FLUSHALL: got %q, want +OK", got)
	}
	f.ticket()
	proctest.Repeat(4*time.Second, func() {
		for _, account := range []string{accountA, accountB} {
			if a := f.call(account); !a.ok() {
				t.Fatalf("request after Redis lost its data: got %v", a)
			}
		}
	})
	for _, r := range f.replicas {
		proctest.Eventually(t, func() bool {
			status, list := r.get("/api/accounts")
			return status == 200 && strings.Contains(list, accountA) && strings.Contains(list, accountB)
		})
		r.stop()
		r.start()
	}
	f.everywhere(accountA)
	f.everywhere(accountB)
}

// A change at one replica takes effect at all of them within five seconds.
func TestChangesReachAllReplicas(t *testing.T) {
	f := newFleet(t, 3, sandbox.Config{}).authorized(accountA, accountB)
	within := func(what string, ok func(r *replica) bool) {
		t.Helper()
		began := time.Now()
		for _, r := range f.replicas {
			proctest.Eventually(t, func() bool { return ok(r) })
		}
		proctest.Promise(t, what+" at all replicas", time.Since(began), 5*time.Second)
	}
	if err := f.wx.Unauthorize(t.Context(), accountA); err != nil {
		t.Fatal(err)
	}
	within("revocation", func(r *replica) bool { return r.call(accountA).status == http.StatusGone })
	if _, err := f.wx.Authorize(t.Context(), accountA); err != nil {
		t.Fatal(err)
	}
	within("authorization", func(r *replica) bool { return r.call(accountA).ok() })
	// A second authorization invalidates the tokens of the first at once.
	f.wx.ResetHistory()
	if _, err := f.wx.Authorize(t.Context(), accountB); err != nil {
		t.Fatal(err)
	}
	within("second authorization", func(r *replica) bool { a := r.call(accountB); return a.ok() && a.token == "hit" })
	// One renewal if a request comes before the exchange of the new code.
	if n := f.wx.Count(refreshPath); n > 1 {
		t.Errorf("renewals of an account with new tokens: got %d, want at most 1", n)
	}
	req, err := http.NewRequest("DELETE", "http://"+f.replicas[0].admin+"/api/accounts/"+accountB, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := f.client.Do(req)
	if err != nil || resp.StatusCode >= 300 {
		t.Fatalf("DELETE an account: got %v, %v", resp, err)
	}
	resp.Body.Close()
	within("forget", func(r *replica) bool { return r.call(accountB).status == http.StatusGone })
	for _, r := range f.replicas {
		if _, answer := r.get("/api/accounts/" + accountB); !strings.Contains(answer, `"state":"forgotten"`) {
			t.Errorf("forgotten account at a replica: got %s, want the state forgotten", answer)
		}
	}
}

// Each of three replicas is restarted twice under load. No request fails for a
// client that tries the next replica when a connection is refused.
func TestRollingRestart(t *testing.T) {
	f := newFleet(t, 3, sandbox.Config{}).authorized(accountA, accountB)
	const rate = 200 // requests a second
	var calls sync.WaitGroup
	var made, failed atomic.Int64
	stop := make(chan struct{})
	var workers sync.WaitGroup
	workers.Go(func() {
		tick := time.NewTicker(time.Second / rate)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			calls.Go(func() {
				made.Add(1)
				if a := f.call([]string{accountA, accountB}[rand.IntN(2)]); !a.ok() {
					failed.Add(1)
					t.Errorf("request during a rolling restart: got %v, want success", a)
				}
			})
		}
	})
	moreCalls := func() { // the replicas serve for a while
		const enough = rate / 3
		before := made.Load()
		proctest.Eventually(t, func() bool { return made.Load() >= before+enough })
	}
	for range rounds(t, 2) {
		for _, r := range f.replicas {
			moreCalls()
			r.stop()
			moreCalls()
			r.start()
		}
	}
	close(stop)
	workers.Wait()
	calls.Wait()
	t.Logf("%d requests, %d failed", made.Load(), failed.Load())
	if n := f.wx.Count(refreshPath); n != 0 {
		t.Errorf("renewals of valid tokens: got %d, want 0", n)
	}
}

//go:build unix

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"wxproxy/sandbox"
)

const (
	soakAccounts = 20
	soakLife     = 20 * time.Second
	// settle is how long a disturbance may have effects after it has ended:
	// locks of killed replicas (6 s) and pauses after failures.
	settle = 10 * time.Second
)

// failureKind is why a request has failed.
type failureKind string

const (
	connectionBroken failureKind = "connection broken"
	noTokenAvailable failureKind = "no token available (503)"
	upstreamError    failureKind = "502 from WeChat"
	accountRevoked   failureKind = "account revoked"
	tokenRejected    failureKind = "token rejected"
	otherFailure     failureKind = "other"
)

// failureKind returns why the request has failed. It must have failed.
func (a answer) failureKind() failureKind {
	switch {
	case a.err != nil:
		return connectionBroken
	case a.status == 503 && strings.Contains(a.text, "wxproxy: "):
		return noTokenAvailable
	case a.status == 502 && !strings.Contains(a.text, "wxproxy: "):
		return upstreamError
	case a.status == 410, a.status == 404, strings.Contains(a.text, "61003"):
		return accountRevoked
	case strings.Contains(a.text, "40001"), strings.Contains(a.text, "42001"):
		return tokenRejected
	}
	return otherFailure
}

// disturbance is a time in which requests may fail in certain ways.
type disturbance struct {
	what     string
	from, to time.Time // to is zero while it lasts
	explains func(f failure) bool
}

// during reports whether the request overlaps the disturbance, or the time
// after it in which it may still have effects.
func (f failure) during(tr *disturbance, effects time.Duration) bool {
	return f.at.Add(f.answer.took).After(tr.from) && (tr.to.IsZero() || f.at.Before(tr.to.Add(effects)))
}

// soak is one run of TestSoak.
type soak struct {
	*fleet
	rand     *rand.Rand
	accounts []string

	mu           sync.Mutex
	disturbances []*disturbance
	failures     []failure
	calls        int

	renewals, forced atomic.Int64
}

// failure is a request that has failed.
type failure struct {
	at      time.Time
	replica *replica
	account string
	answer  answer
}

// TestSoak runs three replicas with tokens that are valid for 20 seconds,
// refresh tokens that rotate, and callers all the time, while one disturbance
// follows another. WXPROXY_SOAK is the duration (make soak). WXPROXY_SEED
// repeats the disturbances of an earlier run.
func TestSoak(t *testing.T) {
	length, err := time.ParseDuration(os.Getenv("WXPROXY_SOAK"))
	if err != nil {
		t.Skip("WXPROXY_SOAK is not set: make soak")
	}
	seed, err := strconv.ParseUint(os.Getenv("WXPROXY_SEED"), 10, 64)
	if err != nil {
		seed = rand.Uint64()
	}
	t.Logf("WXPROXY_SEED=%d", seed)
	s := &soak{rand: rand.New(rand.NewPCG(seed, 0))}
	s.fleet = newFleet(t, 3, sandbox.Config{TokenLife: soakLife, Grace: 2 * time.Second,
		RotateRefreshTokens: true, Observe: func(c sandbox.Call) {
			if c.Path == refreshPath && c.ErrCode == 0 && c.Status == 200 {
				s.renewals.Add(1)
			}
		}})
	for i := range soakAccounts {
		s.accounts = append(s.accounts, fmt.Sprintf("wx%016d", i))
		if err := s.wx.AddAccount(s.accounts[i], sandbox.OfficialAccount); err != nil {
			t.Fatal(err)
		}
	}
	s.authorized(s.accounts...)

	began := time.Now()
	s.renewals.Store(0)
	stop := make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() { s.tickets(stop) })
	for range 6 {
		work.Go(func() { s.callers(stop) })
	}
	var sizes []memoryUse
	work.Go(func() { sizes = s.measure(stop) })

	for time.Since(began) < length {
		s.disturb()
		time.Sleep(time.Duration(500+s.rand.IntN(2500)) * time.Millisecond)
	}
	for _, r := range s.replicas {
		r.signal(syscall.SIGCONT)
	}
	time.Sleep(2 * settle)
	close(stop)
	work.Wait()
	s.judge(time.Since(began), sizes)
}

// tickets pushes a ticket every 5 seconds, because tokens expire early, too.
func (s *soak) tickets(stop <-chan struct{}) {
	for {
		_ = s.wx.PushTicket(s.t.Context()) // a lost one does not matter
		select {
		case <-stop:
			return
		case <-time.After(5 * time.Second):
		}
	}
}

// callers sends requests for random accounts to random replicas, and to the
// next replica if a connection is refused.
func (s *soak) callers(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(15 * time.Millisecond):
		}
		account := s.accounts[rand.IntN(len(s.accounts))]
		start := rand.IntN(len(s.replicas))
		at := time.Now()
		for i := range s.replicas {
			r := s.replicas[(start+i)%len(s.replicas)]
			a := r.call(account)
			if errors.Is(a.err, syscall.ECONNREFUSED) {
				continue
			}
			s.mu.Lock()
			s.calls++
			if !a.ok() {
				s.failures = append(s.failures, failure{at, r, account, a})
			}
			s.mu.Unlock()
			break
		}
	}
}

// during records a disturbance that lasts until f returns, and which failures
// it explains: these kinds, of one account ("" for all), and broken connections
// of one replica.
func (s *soak) during(what string, at *replica, account string, kinds []failureKind, f func()) {
	tr := &disturbance{what: what, from: time.Now()}
	tr.explains = func(f failure) bool {
		k := f.answer.failureKind()
		effects := settle
		if k == connectionBroken || k == upstreamError {
			effects = 0
		}
		return slices.Contains(kinds, k) && f.during(tr, effects) &&
			(account == "" || account == f.account) && (k != connectionBroken || at == f.replica)
	}
	s.mu.Lock()
	s.disturbances = append(s.disturbances, tr)
	s.mu.Unlock()
	f()
	s.mu.Lock()
	tr.to = time.Now()
	s.mu.Unlock()
}

// disturb causes a random disturbance and waits until it ends.
func (s *soak) disturb() {
	between := func(low, high int) time.Duration {
		return time.Duration(low+s.rand.IntN(high-low)) * time.Millisecond
	}
	pause := func(low, high int) { time.Sleep(between(low, high)) }
	victim := s.replicas[1+s.rand.IntN(len(s.replicas)-1)] // not the first, whose memory is measured
	account := s.accounts[s.rand.IntN(len(s.accounts))]
	fault := func(f sandbox.Fault, length time.Duration) {
		id, err := s.wx.AddFault(f)
		if err != nil {
			s.t.Error(err)
			return
		}
		time.Sleep(length)
		s.wx.RemoveFault(id)
	}
	switch s.rand.IntN(12) {
	case 0:
		// A killed replica may hold a lock for which others wait, or a renewed
		// token that is not stored yet.
		s.during("kill -9", victim, "", []failureKind{connectionBroken, noTokenAvailable, tokenRejected},
			func() { victim.kill(); pause(100, 2000); victim.start() })
	case 1:
		s.during("SIGSTOP", victim, "", []failureKind{noTokenAvailable}, func() {
			victim.signal(syscall.SIGSTOP)
			pause(500, 10000)
			victim.signal(syscall.SIGCONT)
		})
	case 2:
		s.during("restart", nil, "", nil, func() { victim.stop(); pause(0, 1000); victim.start() })
	case 3:
		s.during("Redis restarts", nil, "", []failureKind{noTokenAvailable, tokenRejected},
			func() { s.redis.kill(); pause(100, 4000); s.redis.start() })
	case 4:
		s.during("Redis does not respond", nil, "", []failureKind{noTokenAvailable, tokenRejected}, func() {
			s.redis.signal(syscall.SIGSTOP)
			pause(100, 4000)
			s.redis.signal(syscall.SIGCONT)
		})
	case 5:
		s.during("renewals get 502", nil, "", []failureKind{noTokenAvailable},
			func() { fault(sandbox.Fault{Path: "/cgi-bin/component/", Status: 502}, between(500, 4000)) })
	case 6:
		s.during("requests get 502", nil, "", []failureKind{upstreamError},
			func() { fault(sandbox.Fault{Path: "/cgi-bin/message/", Status: 502}, between(200, 2000)) })
	case 7:
		s.during("renewals are slow", nil, "", nil, func() {
			fault(sandbox.Fault{Path: refreshPath, Delay: sandbox.Span(between(500, 4000))}, between(500, 4000))
		})
	case 8:
		s.during("connections of renewals break", nil, "", []failureKind{noTokenAvailable, tokenRejected}, func() {
			fault(sandbox.Fault{Path: refreshPath, Break: sandbox.BreakBefore, Times: 1 + s.rand.IntN(3)},
				between(500, 3000))
		})
	case 9:
		s.forced.Add(1)
		s.during("revoked and authorized again", nil, account,
			[]failureKind{accountRevoked, noTokenAvailable, tokenRejected}, func() {
				if err := s.wx.Unauthorize(s.t.Context(), account); err != nil {
					s.t.Log("pushing a revocation: ", err)
				}
				pause(100, 3000)
				if _, err := s.wx.Authorize(s.t.Context(), account); err != nil {
					s.t.Log("pushing an authorization: ", err)
				}
			})
	case 10:
		s.forced.Add(1)
		s.during("a token expires early", nil, "", nil, func() { s.wx.Expire(account) })
	case 11:
		s.during("kill -9 twice", victim, "",
			[]failureKind{connectionBroken, noTokenAvailable, tokenRejected},
			func() { victim.kill(); victim.start(); victim.kill(); victim.start() })
	}
}

// memoryUse is what a process needs at a time.
type memoryUse struct {
	at               time.Time
	heap, goroutines float64
}

// measure records the memory use of the replica that is never restarted.
func (s *soak) measure(stop <-chan struct{}) (sizes []memoryUse) {
	for {
		select {
		case <-stop:
			return sizes
		case <-time.After(500 * time.Millisecond):
		}
		now := memoryUse{at: time.Now()}
		_, text := s.replicas[0].get("/metrics")
		for line := range strings.Lines(text) {
			fmt.Sscanf(line, "go_memstats_heap_alloc_bytes %g", &now.heap)
			fmt.Sscanf(line, "go_goroutines %g", &now.goroutines)
		}
		if now.heap > 0 {
			sizes = append(sizes, now)
		}
	}
}

// judge checks the result of the run.
func (s *soak) judge(took time.Duration, sizes []memoryUse) {
	t := s.t
	unexplained := 0
	byTrouble := map[string]int{}
	for _, f := range s.failures {
		why := s.explain(f)
		byTrouble[why]++
		if why == "" {
			if unexplained++; unexplained <= 20 {
				t.Errorf("failure without a disturbance at %s, %s: %v", f.at.Format("15:04:05.000"),
					f.account, f.answer)
			}
		}
	}
	delete(byTrouble, "")
	t.Logf("%d requests, %d disturbances, %d failures because of them %v, %d others", s.calls,
		len(s.disturbances), len(s.failures)-unexplained, byTrouble, unexplained)
	if t.Failed() {
		for _, tr := range s.disturbances {
			t.Logf("%s to %s: %s", tr.from.Format("15:04:05.000"), tr.to.Format("15:04:05.000"), tr.what)
		}
	}

	// A token is renewed after nine tenths of its lifetime, or up to an eighth
	// of the last tenth earlier.
	due := float64(soakAccounts)*took.Seconds()/(soakLife.Seconds()*(0.9-0.1/8)) + float64(s.forced.Load())
	t.Logf("%d renewals, expected %.0f", s.renewals.Load(), due)
	if n := float64(s.renewals.Load()); n > 1.2*due {
		t.Errorf("renewals: got %.0f, want at most 1.2 times %.0f", n, due)
	}

	// The minimum of many values is the memory after a garbage collection. At
	// the start connections and buffers are created. A minute after that is
	// compared with the last minute.
	warm, window := min(2*time.Minute, took/4), min(time.Minute, took/4)
	least := func(from, to time.Duration) memoryUse {
		out := memoryUse{heap: 1e12, goroutines: 1e12}
		for _, now := range sizes {
			if at := now.at.Sub(sizes[0].at); at >= from && at < to {
				out.heap, out.goroutines = min(out.heap, now.heap), min(out.goroutines, now.goroutines)
			}
		}
		return out
	}
	first, last := least(warm, warm+window), least(took-window, took)
	t.Logf("heap %.1f MiB at the start and %.1f MiB at the end, goroutines %.0f and %.0f", first.heap/(1<<20),
		last.heap/(1<<20), first.goroutines, last.goroutines)
	if last.heap > 1.1*first.heap+(1<<20) || last.goroutines > 1.1*first.goroutines+5 {
		t.Error("memory or goroutines: got more at the end than at the start")
	}

	// Each account works at every replica with the stored refresh token,
	// without a request for it to WeChat.
	s.ticket()
	for _, account := range s.accounts {
		s.everywhere(account)
	}
	s.wx.ResetHistory()
	for _, account := range s.accounts {
		s.wx.Expire(account)
		if a := s.call(account); !a.ok() {
			t.Errorf("request for %s at the end: got %v, want success", account, a)
		}
	}
	if n := s.wx.Count(infoPath); n > 0 {
		t.Errorf("requests for refresh tokens: got %d, want 0", n)
	}
	if v := s.wx.Violations(); len(v) > 0 {
		t.Errorf("violations of WeChat's protocol: got %q, want none", v)
	}
}

// explain returns the disturbance that explains a failure, or "".
func (s *soak) explain(f failure) string {
	for _, tr := range slices.Backward(s.disturbances) {
		if tr.explains(f) {
			return tr.what
		}
	}
	return ""
}

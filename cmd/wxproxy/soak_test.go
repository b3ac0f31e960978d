//go:build unix

package main

import (
	"cmp"
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

	"wxproxy/internal/proctest"
	"wxproxy/sandbox"
)

const (
	soakLife = 20 * time.Second
	// settle is how long a disturbance may have effects after it has ended:
	// locks of killed replicas (6 s) and pauses after failures (10 s).
	settle = 12 * time.Second
	// recovery is how long after the last disturbance each account works at
	// each replica. The longest pause of wxproxy is a minute.
	recovery = 75 * time.Second
	// clockOffset is a variable of the program.
	clockOffset = "wxproxy/internal/clock.offset="
	// shortSoak is a run in which a disturbance must not last long: each kind
	// has to come once.
	shortSoak = 5 * time.Minute
)

// failureKind is why a request has failed.
type failureKind string

const (
	connectionBroken  failureKind = "connection broken"
	noTokenAvailable  failureKind = "no token available (503)"
	weChatUnreachable failureKind = "WeChat unreachable (502, 504)"
	upstreamError     failureKind = "502 from WeChat"
	accountRevoked    failureKind = "account revoked"
	tokenRejected     failureKind = "token rejected"
	otherFailure      failureKind = "other"
)

// failureKind returns why the request has failed. It must have failed.
func (a answer) failureKind() failureKind {
	own := strings.Contains(a.text, "wxproxy: ")
	switch {
	case a.err != nil:
		return connectionBroken
	case a.status == 503 && own:
		return noTokenAvailable
	case (a.status == 502 || a.status == 504) && own:
		return weChatUnreachable
	case a.status == 502:
		return upstreamError
	case a.status == 410, a.status == 404, strings.Contains(a.text, "61003"):
		return accountRevoked
	case strings.Contains(a.text, "40001"), strings.Contains(a.text, "42001"):
		return tokenRejected
	}
	return otherFailure
}

// lasts reports whether requests may fail in this way for settle after the
// disturbance has ended. Others fail only while it lasts.
func (k failureKind) lasts() bool {
	return k == noTokenAvailable || k == accountRevoked || k == tokenRejected
}

// disturbance is a time in which requests may fail in certain ways.
type disturbance struct {
	kind     string
	system   *system
	failures []failureKind // that it explains
	account  string        // whose requests may fail; "": all
	at       *replica      // at which WeChat is unreachable, connections break; nil: none
	forces   int           // renewals that it causes, at most

	from, to time.Time // to is zero while it lasts
	explains int       // failures of requests
	longest  time.Duration
}

// delay returns how long after the end of the disturbance the request was sent
// that failed, 0 if it overlaps the disturbance. ok is false if the disturbance
// does not explain this failure at any time.
func (d *disturbance) delay(f failure) (after time.Duration, ok bool) {
	k := f.answer.failureKind()
	local := k == connectionBroken || k == weChatUnreachable
	if d.system != f.system || !slices.Contains(d.failures, k) ||
		d.from.After(f.at.Add(f.answer.took)) ||
		d.account != "" && d.account != f.account || local && d.at != f.replica {
		return 0, false
	}
	if d.to.IsZero() || f.at.Before(d.to) {
		return 0, true
	}
	return f.at.Sub(d.to), k.lasts()
}

// system is one wxproxy of the run, as its users see it: a fleet on Redis, or
// one process on a file. Each has a WeChat of its own.
type system struct {
	*fleet
	name     string
	accounts []string
	callers  int

	renewals atomic.Int64
	forced   int // renewals that disturbances cause, at most
	calls    atomic.Int64
}

// soak is one run of TestSoak.
type soak struct {
	t               *testing.T
	rand            *rand.Rand
	short           bool     // see shortSoak
	offsets         []string // of wrong clocks
	onRedis, onFile *system

	mu           sync.Mutex
	disturbances []*disturbance
	failures     []failure
}

// failure is a request that has failed.
type failure struct {
	system  *system
	at      time.Time
	replica *replica
	account string
	answer  answer
}

// TestSoak runs three replicas on one Redis and a process on a file, with
// tokens that are valid for 20 seconds, refresh tokens that rotate, and callers
// all the time, while one disturbance follows another: each kind once, in
// random order, then each again, and so on (see faults). No command of an
// operator is given. At the end
//
//   - each failed request has a disturbance that explains it,
//   - there was one renewal for each expiry, a fifth more at most, besides
//     those that disturbances force,
//   - each account works at each replica within 75 seconds,
//   - WeChat accepts each stored refresh token,
//   - nothing has grown.
//
// WXPROXY_SOAK is the duration (make soak). A run is longer if a slow machine
// needs more time for each kind. WXPROXY_SEED repeats the disturbances of an
// earlier run. WXPROXY_FAULT is a part of the names of kinds: only these are
// caused.
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
	s := &soak{t: t, rand: rand.New(rand.NewPCG(seed, 0)), short: length < shortSoak}
	s.offsets = []string{"-6h", "6h", "744h"}
	if s.short { // to link a program takes long
		s.offsets = s.offsets[s.rand.IntN(len(s.offsets)):][:1]
	}
	for _, offset := range s.offsets {
		proctest.Linked(t, clockOffset+offset)
	}
	s.onRedis = s.newSystem("redis", 3, 20, 6)
	s.onFile = s.newSystem("file", 1, 8, 1)

	began := time.Now()
	stop := make(chan struct{})
	var work sync.WaitGroup
	for _, sys := range []*system{s.onRedis, s.onFile} {
		sys.renewals.Store(0)
		work.Go(func() { sys.tickets(stop) })
		for range sys.callers {
			work.Go(func() { s.call(sys, stop) })
		}
	}
	var sizes []memoryUse
	work.Go(func() { sizes = s.measure(stop) })

	s.disturb(began.Add(length - 2*settle))
	ended := time.Now()
	for _, sys := range []*system{s.onRedis, s.onFile} {
		sys.ticket()
		for _, account := range sys.accounts {
			sys.everywhere(account)
		}
	}
	proctest.Promise(t, "recovery of all accounts", time.Since(ended), recovery)
	s.sleep(2 * settle)
	close(stop)
	work.Wait()
	s.judge(time.Since(began), sizes)
}

// newSystem starts n replicas, on Redis if there are several, with accounts
// that have authorized the component.
func (s *soak) newSystem(name string, n, accounts, callers int) *system {
	sys := &system{name: name, callers: callers}
	c := sandbox.Config{TokenLife: soakLife, Grace: 2 * time.Second, RotateRefreshTokens: true,
		Observe: func(c sandbox.Call) {
			if c.Path == refreshPath && c.ErrCode == 0 && c.Status == 200 {
				sys.renewals.Add(1)
			}
		}}
	sys.fleet = prepareFleet(s.t, n, c)
	if n > 1 {
		sys.redis = newSharedRedis(s.t)
	}
	sys.link().start()
	for i := range accounts {
		account := fmt.Sprintf("wx%016d", i)
		if err := sys.wx.AddAccount(account, sandbox.OfficialAccount); err != nil {
			s.t.Fatal(err)
		}
		sys.accounts = append(sys.accounts, account)
	}
	sys.authorized(sys.accounts...)
	return sys
}

// tickets pushes a ticket every 5 seconds, because tokens expire early, too.
func (sys *system) tickets(stop <-chan struct{}) {
	for {
		_ = sys.wx.PushTicket(sys.t.Context()) // a lost one does not matter
		select {
		case <-stop:
			return
		case <-time.After(5 * time.Second):
		}
	}
}

// call sends requests for random accounts to random replicas, and to the next
// replica if a connection is refused, until stop is closed.
func (s *soak) call(sys *system, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(15 * time.Millisecond):
		}
		account := sys.accounts[rand.IntN(len(sys.accounts))]
		start := rand.IntN(len(sys.replicas))
		at := time.Now()
		for i := range sys.replicas {
			r := sys.replicas[(start+i)%len(sys.replicas)]
			a := r.call(account)
			if errors.Is(a.err, syscall.ECONNREFUSED) {
				continue
			}
			sys.calls.Add(1)
			if !a.ok() {
				s.mu.Lock()
				s.failures = append(s.failures, failure{sys, at, r, account, a})
				s.mu.Unlock()
			}
			break
		}
	}
}

// disturb causes disturbances until end, each kind at least once.
func (s *soak) disturb(end time.Time) {
	faults := s.faults()
	for round := 0; ; round++ {
		for _, i := range s.rand.Perm(len(faults)) {
			if round > 0 && time.Now().After(end) {
				return
			}
			before := len(s.disturbances)
			if faults[i](); len(s.disturbances) > before {
				s.sleep(s.between(200, 2000))
			}
		}
	}
}

// during records a disturbance that lasts until f returns. It does nothing if
// WXPROXY_FAULT names other kinds.
func (s *soak) during(d *disturbance, f func()) {
	if !strings.Contains(d.kind, os.Getenv("WXPROXY_FAULT")) {
		return
	}
	d.from = time.Now()
	s.mu.Lock()
	s.disturbances = append(s.disturbances, d)
	s.mu.Unlock()
	f()
	d.to = time.Now()
	d.system.forced += d.forces
}

// between returns a random duration in milliseconds, a short one in a short
// run.
func (s *soak) between(low, high int) time.Duration {
	if s.short {
		high = min(high, max(2*low, 2500), low+2000)
	}
	return time.Duration(low+s.rand.IntN(high-low)) * time.Millisecond
}

func (s *soak) sleep(d time.Duration) { time.Sleep(d) }

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
		_, text := s.onRedis.replicas[0].get("/metrics")
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
	unexplained := 0
	for _, f := range s.failures {
		if !s.explain(f) {
			if unexplained++; unexplained <= 20 {
				s.t.Errorf("failure without a disturbance at %s, %s, %s, %s: %v",
					f.at.Format("15:04:05.000"), f.system.name, f.replica.proxy, f.account, f.answer)
			}
		}
	}
	for _, d := range s.disturbances {
		proctest.Promise(s.t, "last failure after the end of "+d.kind, d.longest, settle)
	}
	s.t.Logf("%d disturbances, %d failures because of them, %d others\n%s", len(s.disturbances),
		len(s.failures)-unexplained, unexplained, s.table())
	if s.t.Failed() {
		for _, d := range s.disturbances {
			s.t.Logf("%s to %s: %s %s", d.from.Format("15:04:05.000"),
				d.to.Format("15:04:05.000"), d.kind, d.account)
		}
	}
	for _, sys := range []*system{s.onRedis, s.onFile} {
		sys.judge(took)
	}
	s.judgeMemory(took, sizes)
}

// explain reports whether a disturbance explains a failure, and counts it
// there.
func (s *soak) explain(f failure) bool {
	var best *disturbance
	var after time.Duration
	for _, d := range s.disturbances {
		if delay, ok := d.delay(f); ok && (best == nil || delay <= after) {
			best, after = d, delay
		}
	}
	if best == nil {
		return false
	}
	best.explains++
	best.longest = max(best.longest, after)
	return true
}

// table returns what happened for each kind of disturbance.
func (s *soak) table() string {
	kinds := map[string]*disturbance{}
	times := map[string]int{}
	for _, d := range s.disturbances {
		k := d.system.name + ": " + d.kind
		if times[k]++; kinds[k] == nil {
			kinds[k] = &disturbance{}
		}
		kinds[k].explains += d.explains
		kinds[k].longest = max(kinds[k].longest, d.longest)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-60s %5s %8s %s\n", "disturbance", "times", "failures",
		"last failure after its end")
	for _, k := range sortedKeys(kinds) {
		fmt.Fprintf(&b, "%-60s %5d %8d %v\n", k, times[k], kinds[k].explains,
			kinds[k].longest.Round(100*time.Millisecond))
	}
	return b.String()
}

// sortedKeys returns the keys of m in order.
func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// judge checks the number of renewals, and that WeChat accepts each stored
// refresh token: each account works with it, without a look into WeChat's list.
func (sys *system) judge(took time.Duration) {
	t := sys.t
	// A token is renewed after nine tenths of its lifetime, or up to an eighth
	// of the last tenth earlier.
	n := sys.renewals.Load()
	due := float64(len(sys.accounts)) * took.Seconds() / (soakLife.Seconds() * (0.9 - 0.1/8))
	t.Logf("%s: %d requests, %d renewals, %.0f expiries and %d forced", sys.name,
		sys.calls.Load(), n, due, sys.forced)
	if limit := 1.2*due + float64(sys.forced); float64(n) > limit {
		t.Errorf("%s: renewals: got %d, want at most %.0f", sys.name, n, limit)
	}
	sys.ticket()
	for _, account := range sys.accounts {
		sys.everywhere(account)
	}
	sys.wx.ResetHistory()
	for _, account := range sys.accounts {
		sys.wx.Expire(account)
		if a := sys.fleet.call(account); !a.ok() {
			t.Errorf("%s: request for %s at the end: got %v, want success", sys.name, account, a)
		}
	}
	if n := sys.wx.Count(infoPath); n > 0 {
		t.Errorf("%s: requests for refresh tokens: got %d, want 0", sys.name, n)
	}
	if v := sys.wx.Violations(); len(v) > 0 {
		t.Errorf("%s: violations of WeChat's protocol: got %q, want none", sys.name, v)
	}
}

// judgeMemory checks that the memory and the goroutines of a replica do not
// grow. The minimum of many values is the memory after a garbage collection. At
// the start connections and buffers are created. A minute after that is
// compared with the last minute.
func (s *soak) judgeMemory(took time.Duration, sizes []memoryUse) {
	warm, window := min(2*time.Minute, took/4), min(time.Minute, took/4)
	least := func(from, to time.Duration) memoryUse {
		out := memoryUse{heap: 1e12, goroutines: 1e12}
		for _, now := range sizes {
			if at := now.at.Sub(sizes[0].at); at >= from && at < to {
				out.heap = min(out.heap, now.heap)
				out.goroutines = min(out.goroutines, now.goroutines)
			}
		}
		return out
	}
	first, last := least(warm, warm+window), least(took-window, took)
	s.t.Logf("heap %.1f MiB at the start and %.1f MiB at the end, goroutines %.0f and %.0f",
		first.heap/(1<<20), last.heap/(1<<20), first.goroutines, last.goroutines)
	if last.heap > 1.1*first.heap+(1<<20) || last.goroutines > 1.1*first.goroutines+5 {
		s.t.Error("memory or goroutines: got more at the end than at the start")
	}
}

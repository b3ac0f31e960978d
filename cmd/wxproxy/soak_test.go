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

// The soak: three replicas, tokens of 20 seconds, refresh tokens that rotate, callers all the time, and one thing after
// another going wrong. WXPROXY_SOAK says for how long (make soak), WXPROXY_SEED repeats what went wrong in a run.

const (
	soakAccounts = 20
	soakLife     = 20 * time.Second
	// settle is how long some marks of a fault may be seen: the locks of the dead (6 s), the pauses after failures.
	settle = 10 * time.Second
)

// kind is what sort of a failure an answer is.
type kind string

const (
	broken  kind = "the connection broke"
	noToken kind = "no token (503)"
	badGate kind = "WeChat's 502"
	gone    kind = "withdrawn"
	refused kind = "the token was refused"
	strange kind = "something else"
)

func (a answer) kind() kind {
	switch {
	case a.err != nil:
		return broken
	case a.status == 503 && strings.Contains(a.text, "wxproxy: "):
		return noToken
	case a.status == 502 && !strings.Contains(a.text, "wxproxy: "):
		return badGate
	case a.status == 410, a.status == 404, strings.Contains(a.text, "61003"):
		return gone
	case strings.Contains(a.text, "40001"), strings.Contains(a.text, "42001"):
		return refused
	}
	return strange
}

// trouble is a time in which some calls may fail, each kind of failure in a certain way.
type trouble struct {
	what     string
	from, to time.Time // to: zero while it lasts
	explains func(f failure) bool
}

// during reports whether the call overlaps the trouble, or the time after it in which its marks are seen.
func (f failure) during(tr *trouble, marks time.Duration) bool {
	return f.at.Add(f.answer.took).After(tr.from) && (tr.to.IsZero() || f.at.Before(tr.to.Add(marks)))
}

// soak is one run.
type soak struct {
	*fleet
	rand     *rand.Rand
	accounts []string

	mu       sync.Mutex
	troubles []*trouble
	failures []failure
	calls    int

	renewals, forced atomic.Int64
}

type failure struct {
	at      time.Time
	replica *replica
	account string
	answer  answer
}

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
	s.fleet = newFleet(t, 3, sandbox.Config{TokenLife: soakLife, Grace: 2 * time.Second, RotateRefreshTokens: true, Observe: func(c sandbox.Call) {
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
	var sizes []held
	work.Go(func() { sizes = s.measure(stop) })

	for time.Since(began) < length {
		s.goWrong()
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

// tickets come more often than at WeChat, as tokens live shorter.
func (s *soak) tickets(stop <-chan struct{}) {
	for {
		_ = s.wx.PushTicket(s.t.Context()) // one that is lost is made up for by the next
		select {
		case <-stop:
			return
		case <-time.After(5 * time.Second):
		}
	}
}

// callers call for one account after another, at any replica, and go on to the next replica where a connection is refused.
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

// during notes that something goes wrong until the function returns, and which failures that explains: of one replica (nil:
// any), of one account ("": any), of these kinds.
func (s *soak) during(what string, at *replica, account string, kinds []kind, f func()) {
	tr := &trouble{what: what, from: time.Now()}
	tr.explains = func(f failure) bool {
		k := f.answer.kind()
		marks := settle
		if k == broken || k == badGate {
			marks = 0
		}
		return slices.Contains(kinds, k) && f.during(tr, marks) && (account == "" || account == f.account) && (k != broken || at == f.replica)
	}
	s.mu.Lock()
	s.troubles = append(s.troubles, tr)
	s.mu.Unlock()
	f()
	s.mu.Lock()
	tr.to = time.Now()
	s.mu.Unlock()
}

// goWrong has one thing go wrong, and waits until it is over, but not for its marks.
func (s *soak) goWrong() {
	between := func(low, high int) time.Duration {
		return time.Duration(low+s.rand.IntN(high-low)) * time.Millisecond
	}
	pause := func(low, high int) { time.Sleep(between(low, high)) }
	victim := s.replicas[1+s.rand.IntN(len(s.replicas)-1)] // the first lives through it all: its memory is looked at
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
		// Who has a lock may be killed, and others wait for it; or when WeChat has renewed a token, and nobody has it.
		s.during("kill -9", victim, "", []kind{broken, noToken, refused}, func() { victim.kill(); pause(100, 2000); victim.start() })
	case 1:
		s.during("SIGSTOP", victim, "", []kind{noToken}, func() {
			victim.signal(syscall.SIGSTOP)
			pause(500, 10000)
			victim.signal(syscall.SIGCONT)
		})
	case 2:
		s.during("restart", nil, "", nil, func() { victim.stop(); pause(0, 1000); victim.start() })
	case 3:
		s.during("Redis restarts", nil, "", []kind{noToken, refused}, func() { s.redis.kill(); pause(100, 4000); s.redis.start() })
	case 4:
		s.during("Redis is silent", nil, "", []kind{noToken, refused}, func() {
			s.redis.signal(syscall.SIGSTOP)
			pause(100, 4000)
			s.redis.signal(syscall.SIGCONT)
		})
	case 5:
		s.during("WeChat answers renewals with 502", nil, "", []kind{noToken}, func() { fault(sandbox.Fault{Path: "/cgi-bin/component/", Status: 502}, between(500, 4000)) })
	case 6:
		s.during("WeChat answers calls with 502", nil, "", []kind{badGate}, func() { fault(sandbox.Fault{Path: "/cgi-bin/message/", Status: 502}, between(200, 2000)) })
	case 7:
		s.during("WeChat is slow with renewals", nil, "", nil, func() {
			fault(sandbox.Fault{Path: refreshPath, Delay: sandbox.Span(between(500, 4000))}, between(500, 4000))
		})
	case 8:
		s.during("WeChat breaks off in renewals", nil, "", []kind{noToken, refused}, func() {
			fault(sandbox.Fault{Path: refreshPath, Break: sandbox.BreakBefore, Times: 1 + s.rand.IntN(3)}, between(500, 3000))
		})
	case 9:
		s.forced.Add(1)
		s.during("withdrawn and authorized again", nil, account, []kind{gone, noToken, refused}, func() {
			if err := s.wx.Unauthorize(s.t.Context(), account); err != nil {
				s.t.Log("the push of a withdrawal: ", err)
			}
			pause(100, 3000)
			if _, err := s.wx.Authorize(s.t.Context(), account); err != nil {
				s.t.Log("the push of an authorization: ", err)
			}
		})
	case 10:
		s.forced.Add(1)
		s.during("a token expires early", nil, "", nil, func() { s.wx.Expire(account) })
	case 11:
		s.during("kill -9, and at once again", victim, "", []kind{broken, noToken, refused}, func() { victim.kill(); victim.start(); victim.kill(); victim.start() })
	}
}

// held is what a process holds.
type held struct {
	at               time.Time
	heap, goroutines float64
}

// measure looks at the replica that lives through it all.
func (s *soak) measure(stop <-chan struct{}) (sizes []held) {
	for {
		select {
		case <-stop:
			return sizes
		case <-time.After(500 * time.Millisecond):
		}
		now := held{at: time.Now()}
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

// judge says what must hold at the end.
func (s *soak) judge(took time.Duration, sizes []held) {
	t := s.t
	unexplained := 0
	byTrouble := map[string]int{}
	for _, f := range s.failures {
		why := s.explain(f)
		byTrouble[why]++
		if why == "" {
			if unexplained++; unexplained <= 20 {
				t.Errorf("unexplained at %s, %s: %v", f.at.Format("15:04:05.000"), f.account, f.answer)
			}
		}
	}
	delete(byTrouble, "")
	t.Logf("%d calls, %d things went wrong, %d calls that failed by them %v, %d unexplained", s.calls, len(s.troubles), len(s.failures)-unexplained, byTrouble, unexplained)
	if t.Failed() {
		for _, tr := range s.troubles {
			t.Logf("%s to %s: %s", tr.from.Format("15:04:05.000"), tr.to.Format("15:04:05.000"), tr.what)
		}
	}

	// A token is renewed after nine tenths of its life, and an eighth of the rest earlier at most.
	due := float64(soakAccounts)*took.Seconds()/(soakLife.Seconds()*(0.9-0.1/8)) + float64(s.forced.Load())
	t.Logf("%d renewals, the lifetimes call for %.0f", s.renewals.Load(), due)
	if n := float64(s.renewals.Load()); n > 1.2*due {
		t.Errorf("%.0f renewals are more than 1.2 times %.0f", n, due)
	}

	// The least of many is what is held after a collection. At first connections and buffers are made; a minute from then on is
	// compared with the last minute.
	warm, window := min(2*time.Minute, took/4), min(time.Minute, took/4)
	least := func(from, to time.Duration) held {
		out := held{heap: 1e12, goroutines: 1e12}
		for _, now := range sizes {
			if at := now.at.Sub(sizes[0].at); at >= from && at < to {
				out.heap, out.goroutines = min(out.heap, now.heap), min(out.goroutines, now.goroutines)
			}
		}
		return out
	}
	first, last := least(warm, warm+window), least(took-window, took)
	t.Logf("heap %.1f MiB at first, %.1f MiB at last; goroutines %.0f and %.0f", first.heap/(1<<20), last.heap/(1<<20), first.goroutines, last.goroutines)
	if last.heap > 1.1*first.heap+(1<<20) || last.goroutines > 1.1*first.goroutines+5 {
		t.Error("it grows")
	}

	// Each account works everywhere, and by the refresh token that is stored: nobody has to look it up at WeChat.
	s.ticket()
	for _, account := range s.accounts {
		s.everywhere(account)
	}
	s.wx.ResetHistory()
	for _, account := range s.accounts {
		s.wx.Expire(account)
		if a := s.call(account); !a.ok() {
			t.Errorf("%s at the end: %v", account, a)
		}
	}
	if n := s.wx.Count(infoPath); n > 0 {
		t.Errorf("%d refresh tokens had to be looked up", n)
	}
	if v := s.wx.Violations(); len(v) > 0 {
		t.Errorf("WeChat saw what it must not see: %q", v)
	}
}

// explain says what a call failed by, "" if by nothing.
func (s *soak) explain(f failure) string {
	for _, tr := range slices.Backward(s.troubles) {
		if tr.explains(f) {
			return tr.what
		}
	}
	return ""
}

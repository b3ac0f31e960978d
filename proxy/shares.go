package proxy

import (
	"container/list"
	"hash/maphash"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Each call under way holds a connection to WeChat, which is an open file, and there are only so many. When WeChat is
// slow, for one account or for all, calls pile up: without a limit the process would have no files left for anybody, and
// the accounts that WeChat is slow for would have them all.

// shares counts the calls that are with WeChat.
type shares struct {
	room  int64 // calls at the same time
	total atomic.Int64
	of    [4096]atomic.Int32 // by hash of the account: two may share a slot, and then a limit
	seed  maphash.Seed
	told  atomic.Int64 // the second in which a refusal was logged last

	waiting atomic.Int32 // the length of queue, to be looked at without the lock
	mu      sync.Mutex
	queue   list.List // of *waiter: calls for which there was no place, the oldest first
}

// waiter is a call that waits for a place.
type waiter struct {
	slot *atomic.Int32
	in   chan struct{} // closed when it has one
}

// While more than half of the room is taken, an account may have an eighth of it; before, as much as it likes.
const (
	crowdedAt  = 2
	oneAccount = 8
)

// placeWait is how long a call waits for a place: a burst is over by then, and with more than a burst nobody is helped by
// calls that wait.
const placeWait = time.Second

var (
	errNoRoom = &problem{status: http.StatusServiceUnavailable, msg: "as many calls are under way as there is room for", retryAfter: time.Second,
		hint: "WeChat answers slowly, or more is asked than one wxproxy can do: try again, start more replicas, raise the limit of open files"}
	errNoShare = &problem{status: http.StatusServiceUnavailable, msg: "too many calls of this account are under way", retryAfter: time.Second,
		hint: "WeChat answers them slowly, and others need room, too: try again"}
)

func newShares(room int) *shares { return &shares{room: int64(room), seed: maphash.MakeSeed()} }

// enter takes a place for a call for the account, if there is one; leave gives it back.
func (s *shares) enter(appid []byte) (slot *atomic.Int32, p *problem) {
	slot = &s.of[maphash.Bytes(s.seed, appid)%uint64(len(s.of))]
	return slot, s.try(slot)
}

// try takes a place if there is one. Calls that come at the same moment can exceed an account's share by as many as they
// are, and the room by none.
func (s *shares) try(slot *atomic.Int32) *problem {
	for {
		total := s.total.Load()
		switch {
		case total >= s.room:
			return errNoRoom
		case total >= s.room/crowdedAt && int64(slot.Load()) >= max(s.room/oneAccount, 1):
			return errNoShare
		case s.total.CompareAndSwap(total, total+1):
			slot.Add(1)
			return nil
		}
	}
}

// wait takes a place in slot as soon as there is one, within placeWait; otherwise it gives no slot, and says why.
func (s *shares) wait(slot *atomic.Int32) (*atomic.Int32, *problem) {
	s.mu.Lock()
	s.waiting.Add(1) // before the second look: who leaves after it sees that somebody waits
	p := s.try(slot)
	if p == nil {
		s.waiting.Add(-1)
		s.mu.Unlock()
		return slot, nil
	}
	w := &waiter{slot: slot, in: make(chan struct{})}
	place := s.queue.PushBack(w)
	s.mu.Unlock()
	timer := time.NewTimer(placeWait)
	defer timer.Stop()
	select {
	case <-w.in:
		return slot, nil
	case <-timer.C:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-w.in: // in the last moment
		return slot, nil
	default:
	}
	s.queue.Remove(place)
	s.waiting.Add(-1)
	return nil, p
}

// leave gives a place back, and to the first who may have it.
func (s *shares) leave(slot *atomic.Int32) {
	slot.Add(-1)
	s.total.Add(-1)
	if s.waiting.Load() == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// In front may be those of an account that has its share. They are not all looked at: there can be thousands.
	const looks = 64
	for e, n := s.queue.Front(), 0; e != nil && n < looks; n++ {
		w, next := e.Value.(*waiter), e.Next()
		switch s.try(w.slot) {
		case nil:
			s.queue.Remove(e)
			s.waiting.Add(-1)
			close(w.in)
		case errNoRoom:
			return
		}
		e = next
	}
}

// quiet reports whether a refusal need not be logged: one a second is enough to know of, and thousands would make
// matters worse.
func (s *shares) quiet(p *problem, now time.Time) bool {
	if p != errNoRoom && p != errNoShare {
		return false
	}
	second := now.Unix()
	last := s.told.Load()
	return last == second || !s.told.CompareAndSwap(last, second)
}

const (
	// mostUnderWay bounds the calls that are with WeChat at the same time, however many files may be open.
	mostUnderWay = 16384
	// otherFiles are those that are neither a caller's connection nor one to WeChat: store, listeners, operators, pushes.
	otherFiles = 256
)

// places shares out what files this process may open: a quarter for calls under way, the rest for callers, who keep
// connections that rest.
func places() (underWay, callers int) {
	var limit syscall.Rlimit
	files := uint64(1024)
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		files = limit.Cur // the runtime has raised it to what it may be
	}
	n := int(min(files, 1<<20))
	underWay = max(min(mostUnderWay, n/4), 16)
	return underWay, max(n-underWay-otherFiles, 64)
}

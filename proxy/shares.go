package proxy

import (
	"hash/maphash"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"
)

// Each call under way holds a connection to WeChat, which is an open file, and there are only so many. When WeChat is
// slow, for one account or for all, calls pile up: without a limit the process would have no files left for anybody, and
// the accounts that WeChat is slow for would have them all.

// shares counts the calls that are with WeChat.
type shares struct {
	most  int64        // places, as the files allow
	room  atomic.Int64 // places now: fewer where the processor is what is scarce, see pressure
	total atomic.Int64
	of    [4096]atomic.Int32 // by hash of the account: two may share a slot, and then a limit
	seed  maphash.Seed
	told  atomic.Int64 // the second in which a refusal was logged last
	queue queue
}

// While more than half of the room is taken, an account may have an eighth of it; before, as much as it likes.
const (
	crowdedAt  = 2
	oneAccount = 8
)

var (
	errNoRoom = &problem{status: http.StatusServiceUnavailable, msg: "as many calls are under way as there is room for", retryAfter: time.Second,
		hint: "WeChat answers slowly, or more is asked than one wxproxy can do: try again, start more replicas, raise the limit of open files"}
	errNoShare = &problem{status: http.StatusServiceUnavailable, msg: "too many calls of this account are under way", retryAfter: time.Second,
		hint: "WeChat answers them slowly, and others need room, too: try again"}
)

func newShares(most int) *shares {
	s := &shares{most: int64(most), seed: maphash.MakeSeed()}
	s.room.Store(s.most)
	return s
}

// enter takes a place for a call for the account, if there is one; leave gives it back.
func (s *shares) enter(appid []byte) (slot *atomic.Int32, p *problem) {
	slot = &s.of[maphash.Bytes(s.seed, appid)%uint64(len(s.of))]
	return slot, s.try(slot)
}

// try takes a place if there is one. Calls that come at the same moment can exceed an account's share by as many as they
// are, and the room by none.
func (s *shares) try(slot *atomic.Int32) *problem {
	room := s.room.Load()
	for {
		total := s.total.Load()
		switch {
		case total >= room:
			return errNoRoom
		case total >= room/crowdedAt && int64(slot.Load()) >= max(room/oneAccount, 1):
			return errNoShare
		case s.total.CompareAndSwap(total, total+1):
			slot.Add(1)
			return nil
		}
	}
}

// leave gives a place back, and to whoever waits and may have it.
func (s *shares) leave(slot *atomic.Int32) {
	slot.Add(-1)
	s.total.Add(-1)
	if s.queue.length.Load() > 0 {
		s.admit()
	}
}

// resize makes room for so many calls, as many as there are files for at most. Calls that are under way stay.
func (s *shares) resize(room int64) {
	s.room.Store(min(room, s.most))
	s.admit()
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

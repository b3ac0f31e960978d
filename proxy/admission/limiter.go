package admission

import (
	"errors"
	"hash/maphash"
	"sync/atomic"
)

// Each call under way holds a connection to WeChat, which is an open file, and there are only so many. When WeChat is
// slow, for one account or for all, calls pile up: without a limit the process would have no files left for anybody, and
// the accounts that WeChat is slow for would have them all.

// Limiter counts the calls that are with WeChat.
type Limiter struct {
	most  int64        // places, as the files allow
	room  atomic.Int64 // places now: fewer where the processor is what is scarce, see pressure
	total atomic.Int64
	of    [4096]atomic.Int32 // by hash of the account: two may share a slot, and then a limit
	seed  maphash.Seed
	queue queue
}

// While more than half of the room is taken, an account may have an eighth of it; before, as much as it likes.
const (
	crowdedAt  = 2
	oneAccount = 8
)

// Why there is no place.
var (
	ErrLimit    = errors.New("as many calls are under way as there is room for")
	ErrKeyLimit = errors.New("too many calls of this account are under way")
)

// Slot is a place; the zero value is none.
type Slot struct{ account *atomic.Int32 }

// NewLimiter has room for so many.
func NewLimiter(most int) *Limiter {
	s := &Limiter{most: int64(most), seed: maphash.MakeSeed()}
	s.room.Store(s.most)
	return s
}

// TryAcquire takes a place for a call for key, if there is one; Release gives it back.
func (s *Limiter) TryAcquire(key []byte) (Slot, bool) {
	slot := s.slot(key)
	if s.try(slot.account) != nil {
		return Slot{}, false
	}
	return slot, true
}

func (s *Limiter) slot(key []byte) Slot {
	return Slot{&s.of[maphash.Bytes(s.seed, key)%uint64(len(s.of))]}
}

// try takes a place if there is one. Calls that come at the same moment can exceed an account's share by as many as they
// are, and the room by none.
func (s *Limiter) try(slot *atomic.Int32) error {
	room := s.room.Load()
	for {
		total := s.total.Load()
		switch {
		case total >= room:
			return ErrLimit
		case total >= room/crowdedAt && int64(slot.Load()) >= max(room/oneAccount, 1):
			return ErrKeyLimit
		case s.total.CompareAndSwap(total, total+1):
			slot.Add(1)
			return nil
		}
	}
}

// Release gives a place back, and to whoever waits and may have it.
func (s *Limiter) Release(slot Slot) {
	if slot.account == nil {
		return
	}
	slot.account.Add(-1)
	s.total.Add(-1)
	if s.queue.length.Load() > 0 {
		s.admit()
	}
}

// resize makes room for so many calls, as many as there are files for at most. Calls that are under way stay.
func (s *Limiter) resize(room int64) {
	s.room.Store(min(room, s.most))
	s.admit()
}

// InFlight is how many calls have a place.
func (s *Limiter) InFlight() int { return int(s.total.Load()) }

package queue

import (
	"time"

	"wxproxy/internal/clock"
	"wxproxy/tokens/store"
)

// service is what this process knows of a service that has, or had, entries.
// The mutex of its Queue guards it.
type service struct {
	name     string
	inFlight int // tries that hold a slot
	slow     int // tries that hold one of slowSlots
	// settling is how many tries hold no slot any more, although the store has
	// not accepted their outcome.
	settling int
	isDue    bool // there may be something to take
	isBatch  bool // health.triesAll, when the store was asked last
	// batchLeft is how many tries there are at most until all lanes have had
	// one that were due when triesAll was set.
	batchLeft int
	nextAt    time.Time // when the next pause that this process knows of ends; or zero

	size    store.QueueSize // when the store was asked last
	since   change          // since then
	pending change          // the part of since that an answer of the store may include
	health  health
	// isOrphan says that no rule named it at the last sweep, although entries
	// waited for it.
	isOrphan bool

	deadSince              time.Time // when the minute of deadLogged began
	deadLogged, deadHidden int       // dead events that were logged, and not logged
}

// maxDeadLines is how many dead events of a service are logged in a logPause.
const maxDeadLines = 10

// logsDead reports whether a dead event is to be logged, and how many were not
// logged since the last one that was: events that arrived together die
// together. q.mu must be held.
func (s *service) logsDead(now time.Time) (hidden int, ok bool) {
	if age := now.Sub(s.deadSince); age >= logPause || age < 0 {
		s.deadSince, s.deadLogged = now, 0
	}
	if s.deadLogged == maxDeadLines {
		s.deadHidden++
		return 0, false
	}
	s.deadLogged++
	hidden, s.deadHidden = s.deadHidden, 0
	return hidden, true
}

// change is what was added to a queue, less what was removed.
type change struct {
	entries int
	bytes   int64
}

// service returns the service with a name. q.mu must be held.
func (q *Queue) service(name string) *service {
	s := q.services[name]
	if s == nil {
		s = &service{name: name}
		q.services[name] = s
	}
	return s
}

// hasRoom reports whether the limits allow one more entry of size bytes. While
// the store has not said how many there are, they do.
func (s *service) hasRoom(l Limits, size int) bool {
	return s.size.Waiting+s.size.Dead+s.since.entries < l.Entries &&
		s.size.Bytes+s.since.bytes+int64(size) <= l.Bytes
}

// count notes entries that were added, or removed if n is negative, and their
// bytes.
func (s *service) count(n, bytes int) {
	s.since.entries += n
	s.since.bytes += int64(bytes)
}

// hasEntries reports whether entries may be waiting.
func (s *service) hasEntries() bool {
	return s.isDue || s.size.Waiting > 0 || s.since.entries > 0
}

// tryAll lets each lane that is due have a try, if the service is down.
func (s *service) tryAll() {
	s.isDue, s.health.triesAll = true, true
	s.batchLeft = s.size.Waiting + max(s.since.entries, 0) + slots
}

// wants returns how many entries the service can be given at the time now.
func (s *service) wants(now time.Time) int {
	if s.settling >= slots {
		return 0 // the store accepts no outcomes: do not deliver the same again
	}
	h := &s.health
	switch {
	case !h.isDown:
		return slots - s.inFlight
	case now.Before(h.nextTry()):
		return 0
	case h.triesAll:
		return slots - s.inFlight
	case s.inFlight+s.slow > 0:
		return 0
	}
	return 1
}

// beginSizing is called before the store is asked for sizes.
func (q *Queue) beginSizing() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, s := range q.services {
		s.pending = s.since
	}
}

// setSizes notes what the store has said, and forgets services without
// anything.
func (q *Queue) setSizes(sizes map[string]store.QueueSize, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sizedAt = now
	for name := range sizes {
		q.service(name)
	}
	for name, s := range q.services {
		s.size = sizes[name]
		s.since.entries -= s.pending.entries
		s.since.bytes -= s.pending.bytes
		s.pending = change{}
		if s.size == (store.QueueSize{}) && s.since == (change{}) && !s.isDue &&
			s.inFlight+s.slow+s.settling == 0 {
			delete(q.services, name)
		}
	}
}

// Totals is the size of the queue as a whole.
type Totals struct {
	Waiting, Dead int
	Oldest        time.Time // Created of the oldest waiting event; zero if there is none
}

// maxTotalsAge is how old sizes may be and still count as known.
const maxTotalsAge = 15 * time.Second

// Totals returns the size as it was a short while ago. known is false while the
// store does not say.
func (q *Queue) Totals() (t Totals, known bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.sizedAt.IsZero() || clock.Now().Sub(q.sizedAt) > maxTotalsAge {
		return Totals{}, false
	}
	for _, s := range q.services {
		t.Waiting += s.size.Waiting
		t.Dead += s.size.Dead
		if o := s.size.Oldest; !o.IsZero() && (t.Oldest.IsZero() || o.Before(t.Oldest)) {
			t.Oldest = o
		}
	}
	return t, true
}

package queue

import (
	"context"
	"time"

	"wxproxy/internal/clock"
	"wxproxy/tokens/store"
)

// tickPause is how often the store is asked for entries without a reason in
// this process: other processes add entries, and their leases end.
const tickPause = time.Second

// dispatch takes entries that are due and starts their tries, until the queue
// is closed.
func (q *Queue) dispatch() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	tickAt := clock.Now()
	for {
		select {
		case <-q.closing:
			return
		case <-q.woken:
		case <-timer.C:
		}
		if q.isClosing() {
			return // select takes any case that is ready
		}
		now := clock.Now()
		if pause := q.health.pause(now); pause > 0 {
			timer.Reset(pause)
			continue
		}
		isTick := !now.Before(tickAt)
		if isTick {
			tickAt = now.Add(tickPause)
		}
		q.wakeLanes(now)
		q.take(q.wanted(now, isTick))
		timer.Reset(q.idleFor(clock.Now(), tickAt))
	}
}

// wanted returns how many entries of each service can be tried. Services
// without a reason to ask are left out, unless isTick is set.
func (q *Queue) wanted(now time.Time, isTick bool) map[string]int {
	q.mu.Lock()
	defer q.mu.Unlock()
	want := map[string]int{}
	for name, s := range q.services {
		if !s.nextAt.IsZero() && !now.Before(s.nextAt) {
			s.isDue, s.nextAt = true, time.Time{}
		}
		n := s.wants(now)
		if n == 0 || !s.isDue && !(isTick && s.hasEntries()) {
			continue
		}
		if _, ok := q.c.Service(name); !ok {
			s.isDue = false
			continue // another process may have it
		}
		// A new event sets isDue and triesAll again, also before take has the
		// answer of the store.
		want[name], s.isDue = n, false
		s.isBatch, s.health.triesAll = s.health.triesAll, false
	}
	return want
}

// take takes entries and starts their tries.
func (q *Queue) take(want map[string]int) {
	if len(want) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(q.ctx, storeTimeout)
	defer cancel()
	entries, err := q.c.Store.Take(ctx, want, lease)
	q.health.note(opTake, err)
	q.mu.Lock()
	defer q.mu.Unlock()
	if err != nil {
		for name := range want {
			s := q.service(name)
			s.isDue, s.health.triesAll = true, s.isBatch || s.health.triesAll
		}
	}
	for _, e := range entries {
		s := q.service(e.Service)
		s.inFlight++
		s.batchLeft--
		if want[e.Service]--; want[e.Service] == 0 && s.isBatch && s.batchLeft > 0 {
			s.isDue, s.health.triesAll = true, true // more may be due
		}
		q.running.Go(func() { q.try(s, e) })
	}
}

// wakeLanes makes lanes due that wait although their service has answered.
func (q *Queue) wakeLanes(now time.Time) {
	q.mu.Lock()
	var names []string
	for name, s := range q.services {
		if s.health.takeWake(now) {
			names = append(names, name)
		}
	}
	q.mu.Unlock()
	for _, name := range names {
		ctx, cancel := context.WithTimeout(q.ctx, storeTimeout)
		err := q.c.Store.Wake(ctx, name)
		cancel()
		q.health.note(opTake, err)
		q.mu.Lock()
		s := q.service(name)
		s.isDue = true
		if err != nil {
			s.health.mustWake, s.health.wakePause = true, 0
		}
		q.mu.Unlock()
	}
}

// idleFor returns how long the dispatcher has nothing to do unless it is woken.
func (q *Queue) idleFor(now, tickAt time.Time) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	until := tickAt
	for _, s := range q.services {
		h := &s.health
		canTry := h.triesAll && s.inFlight < slots || s.inFlight+s.slow == 0
		if h.isDown && s.isDue && canTry && h.nextTry().Before(until) {
			until = h.nextTry()
		}
		if !h.isDown && !s.nextAt.IsZero() && s.nextAt.Before(until) {
			until = s.nextAt
		}
	}
	// The pause is for a clock that is set, and for a store that rounds up.
	return min(max(until.Sub(now), time.Millisecond), tickPause)
}

// pauseAfter returns the pause of a lane after the attempt with this number.
func pauseAfter(attempt int) time.Duration {
	const doublings = 7 // from MinQueuePause to more than MaxQueuePause
	return min(store.MinQueuePause<<min(attempt-1, doublings), store.MaxQueuePause)
}

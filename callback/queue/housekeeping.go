package queue

import (
	"context"
	"sync"
	"time"

	"wxproxy/internal/clock"
	"wxproxy/tokens/store"
)

const (
	// sizePause is how often the store is asked for sizes, and sweepPause how
	// often for entries that nothing tries.
	sizePause  = time.Second
	sweepPause = time.Minute
	// maxDead is how many dead entries of a service are kept.
	maxDead = 10_000
	// pageSize is how many entries are listed at a time, and maxPages how often
	// in a row.
	pageSize = 1000
	maxPages = 100
)

// housekeeper reads the sizes and removes what is too old or too much.
type housekeeper struct {
	q *Queue
	c Config
}

// run works until the queue is closed. It sweeps beside reading the sizes: a
// sweep of many entries takes minutes, and with old sizes the limits would not
// hold.
func (k housekeeper) run() {
	ctx, cancel := context.WithCancel(k.q.ctx)
	var others sync.WaitGroup
	others.Go(func() { // a long sweep must not delay Close
		<-k.q.closing
		cancel()
	})
	others.Go(func() {
		k.repeat(sweepPause, func() { k.sweep(ctx, clock.Now()) })
	})
	k.readSizes(ctx)
	k.repeat(sizePause, func() { k.readSizes(ctx) })
	others.Wait()
}

// repeat calls do after each pause, until the queue is closed.
func (k housekeeper) repeat(pause time.Duration, do func()) {
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for {
		select {
		case <-k.q.closing:
			return
		case <-ticker.C:
			do()
		}
	}
}

// readSizes asks the store for sizes, and drops dead entries over maxDead.
func (k housekeeper) readSizes(ctx context.Context) {
	k.q.beginSizing()
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	sizes, err := k.c.Store.Sizes(ctx)
	if err != nil {
		return
	}
	k.q.setSizes(sizes, clock.Now())
	for name, size := range sizes {
		if size.Dead > maxDead {
			k.dropOldest(ctx, name)
		}
	}
}

// dropOldest drops the oldest dead entries of a service that are over maxDead.
func (k housekeeper) dropOldest(ctx context.Context, name string) {
	f := store.QueueFilter{State: store.DeadEntries, Service: name}
	ctx, cancel := context.WithTimeout(ctx, sweepPause)
	defer cancel()
	total, entries, err := k.c.Store.List(ctx, f, 0, pageSize)
	if err != nil {
		return // a second later there is another chance
	}
	n := 0
	for _, e := range entries[:min(len(entries), max(0, total-maxDead))] {
		if k.c.Store.Drop(ctx, e.QueueKey) == nil {
			n++
		}
	}
	if n > 0 {
		k.c.Log.Error("dead events dropped, the oldest of a service that has too many",
			"service", name, "events", n, "limit", maxDead)
	}
}

// sweep makes entries dead that are kept for too long without a try: those of
// services that no rule names any more, and of services that are down, which
// get one try at a time.
func (k housekeeper) sweep(ctx context.Context, now time.Time) {
	now = now.Add(k.c.StoreAhead())
	k.reportOrphans()
	k.q.mu.Lock()
	oldest, isDown := map[string]time.Time{}, map[string]bool{}
	for name, s := range k.q.services {
		if s.size.Waiting > 0 {
			oldest[name], isDown[name] = s.size.Oldest, s.health.isDown
		}
	}
	k.q.mu.Unlock()
	for name, created := range oldest {
		keep, ok := k.c.Service(name)
		reason := "service was unavailable"
		if !ok {
			keep, reason = DefaultKeep, textNotConfigured
		} else if !isDown[name] {
			continue
		}
		// No entry was added before its event was pushed.
		if now.Sub(created) >= keep {
			k.expire(ctx, name, now.Add(-keep), reason)
		}
	}
}

// reportOrphans logs once that events wait for a service that no rule names: it
// may have another name now, or only in this process.
func (k housekeeper) reportOrphans() {
	waiting := map[string]int{}
	k.q.mu.Lock()
	for name, s := range k.q.services {
		_, isConfigured := k.c.Service(name)
		isOrphan := !isConfigured && s.size.Waiting > 0
		if isOrphan && !s.isOrphan {
			waiting[name] = s.size.Waiting
		}
		s.isOrphan = isOrphan
	}
	k.q.mu.Unlock()
	for name, n := range waiting {
		k.c.Log.Warn("events wait for a service that is not configured",
			"service", name, "events", n)
	}
}

// expire makes the waiting entries of a service dead that were added before a
// time.
func (k housekeeper) expire(ctx context.Context, name string, before time.Time, reason string) {
	f := store.QueueFilter{State: store.WaitingEntries, Service: name}
	n, offset := 0, 0
	for range maxPages {
		_, entries, err := k.c.Store.List(ctx, f, offset, pageSize)
		old := 0
		for _, e := range entries {
			if e.Since.After(before) || k.c.Store.Expire(ctx, e.QueueKey, reason) != nil {
				continue
			}
			old++
			k.c.Observe(resultDead)
		}
		n += old
		if old == 0 || err != nil || len(entries) < pageSize {
			break
		}
		offset += len(entries) - old
	}
	if n > 0 {
		k.c.Log.Error("events are dead, no service accepted them",
			"service", name, "events", n, "error", reason)
	}
}

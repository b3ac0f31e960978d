package tokens

import (
	"container/heap"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"wxproxy/wechat"
)

// earlyRefresher renews tokens before they end, of accounts that were used since the last renewal. An
// account that nobody calls for costs one renewal more, and then nothing.
type earlyRefresher struct {
	b     *Broker
	limit int

	mu        sync.Mutex
	queue     refreshQueue
	scheduled map[string]*scheduledRefresh
	timer     *time.Timer
	stopped   bool

	slots chan struct{} // renewals at the same time
}

// scheduledRefresh is an entry to be looked at when it is due.
type scheduledRefresh struct {
	appid string
	entry *entry
	at    time.Time
	index int
}

// maxEarlyRefreshes bounds the renewals ahead that run at the same time: 16 at 100 ms each are 160 a second,
// enough for a million accounts in use.
const maxEarlyRefreshes = 16

func newEarlyRefresher(b *Broker, limit int) *earlyRefresher {
	a := &earlyRefresher{b: b, limit: limit, scheduled: make(map[string]*scheduledRefresh), slots: make(chan struct{}, maxEarlyRefreshes)}
	a.timer = time.AfterFunc(time.Hour, a.tick)
	return a
}

// schedule looks at e again after wait. A later schedule of the same account takes the earlier one's place. false: there is no room.
func (a *earlyRefresher) schedule(appid string, e *entry, wait time.Duration) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped {
		return false
	}
	at := a.b.now().Add(wait)
	if w := a.scheduled[appid]; w != nil {
		w.entry, w.at = e, at
		heap.Fix(&a.queue, w.index)
	} else {
		if len(a.queue) >= a.limit {
			return false // renewed when the next call finds it due
		}
		w = &scheduledRefresh{appid: appid, entry: e, at: at}
		a.scheduled[appid] = w
		heap.Push(&a.queue, w)
	}
	a.arm()
	return true
}

// appids lists who is watched: all that are in memory and not due, but those for which there was no room.
func (a *earlyRefresher) appids() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Keys(a.scheduled))
}

func (a *earlyRefresher) arm() {
	if len(a.queue) > 0 {
		a.timer.Reset(max(a.queue[0].at.Sub(a.b.now()), 0))
	}
}

// tick renews what is due, as far as there are free slots.
func (a *earlyRefresher) tick() {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.b.now()
	for !a.stopped && len(a.queue) > 0 && !a.queue[0].at.After(now) {
		w := a.queue[0]
		if !w.entry.used.Load() {
			heap.Pop(&a.queue)
			delete(a.scheduled, w.appid)
			continue
		}
		select {
		case a.slots <- struct{}{}:
		default:
			return // a renewal that ends calls again
		}
		heap.Pop(&a.queue)
		delete(a.scheduled, w.appid)
		go a.renew(w.appid, w.entry)
	}
	a.arm()
}

func (a *earlyRefresher) renew(appid string, e *entry) {
	defer func() {
		<-a.slots
		a.tick()
	}()
	_, err := a.b.joinFlight(context.WithoutCancel(a.b.life), appid, wechat.Secret{}, reasonDue)
	if err == nil || errors.Is(err, ErrClosed) || errors.Is(err, ErrRevoked) || errors.Is(err, ErrUnknownAccount) {
		return
	}
	// While the old token is good there is time for more tries.
	if now := a.b.now(); now.Before(e.sendableUntil) {
		a.schedule(appid, e, RetryAfter(err, now))
	}
}

func (a *earlyRefresher) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
	a.timer.Stop()
}

// refreshQueue is a heap by time.
type refreshQueue []*scheduledRefresh

func (q refreshQueue) Len() int           { return len(q) }
func (q refreshQueue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q refreshQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}
func (q *refreshQueue) Push(x any) {
	w := x.(*scheduledRefresh)
	w.index = len(*q)
	*q = append(*q, w)
}
func (q *refreshQueue) Pop() any {
	old := *q
	w := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return w
}

package storetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wxproxy/tokens/store"
)

// manyLanes: 1,000 lanes of 2 entries. Each lane is taken once, in parts of
// 300, and then its second entry.
func manyLanes(s queueSuite) {
	const lanes, part = 1000, 300
	for i := range lanes {
		appid := fmt.Sprint("account", i)
		s.add(entry("orders", appid, "1"), entry("orders", appid, "2"))
	}
	for _, id := range []string{"1", "2"} {
		seen := map[string]bool{}
		var all []store.TakenEntry
		for left := lanes; left > 0; left -= part {
			taken := s.take("orders", part, lease)
			if len(taken) != min(left, part) {
				s.Fatalf("take: got %d entries, want %d", len(taken), min(left, part))
			}
			all = append(all, taken...)
		}
		s.takeNone("orders")
		for _, t := range all {
			if t.ID != id || seen[t.AppID] {
				s.Fatalf("taken: got %s/%s, want entry %s of each lane once", t.AppID, t.ID, id)
			}
			seen[t.AppID] = true
			s.settle(t, store.QueueDelivered, 0)
		}
	}
	s.wantEmpty()
}

// addersAndTakers runs [AddersAndTakers] with one store.
func addersAndTakers(s queueSuite) { AddersAndTakers(s.T, s.store) }

// AddersAndTakers lets 8 goroutines for each store add events of 10 accounts
// for 2 services, while 4 goroutines for each store deliver them, of which
// every seventh try fails. It fails the test unless each entry is delivered
// once, in the order of its lane, and no lane is taken twice at one time. All
// stores must use one database.
func AddersAndTakers(t *testing.T, stores ...store.Store) {
	t.Helper()
	const adders, accounts, perAccount, takers = 8, 10, 24, 4
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	d := deliveries{
		T: t, missing: len(stores) * adders * accounts * perAccount * 2 / adders,
		last: map[string]int{}, busy: map[string]bool{}, next: map[string]int{},
		done: make(chan struct{}),
	}
	total := d.missing / (accounts * 2) // of each lane
	var all sync.WaitGroup
	for _, st := range stores {
		s := newQueueSuite(ctx, t, st)
		for range adders {
			all.Go(func() {
				for i := range accounts * perAccount / adders {
					d.addNext(s, fmt.Sprint("account", i%accounts), total)
				}
			})
		}
		for range takers {
			all.Go(func() { d.take(s) })
		}
	}
	all.Wait()
	for lane, n := range d.last {
		if n != total {
			t.Errorf("lane %s: got %d deliveries, want %d", lane, n, total)
		}
	}
	newQueueSuite(ctx, t, stores[0]).wantEmpty()
}

// deliveries is what AddersAndTakers has delivered.
type deliveries struct {
	*testing.T
	adding sync.Map // a mutex for each account
	tries  atomic.Int64
	done   chan struct{} // closed when none is missing

	mu      sync.Mutex
	missing int
	last    map[string]int  // number of the last delivered entry of a lane
	busy    map[string]bool // lanes that are taken
	next    map[string]int  // number of the last added event of an account
}

// addNext adds the next event of an account for both services. Events of one
// account are added one after the other, so their order is known.
func (d *deliveries) addNext(s queueSuite, appid string, total int) {
	l, _ := d.adding.LoadOrStore(appid, new(sync.Mutex))
	l.(*sync.Mutex).Lock()
	defer l.(*sync.Mutex).Unlock()
	d.mu.Lock()
	d.next[appid]++
	n := d.next[appid]
	d.mu.Unlock()
	if n > total {
		d.Errorf("event %d of %s, want %d at most", n, appid, total)
	}
	id := strconv.Itoa(n)
	added, err := s.Add(s.ctx, time.Hour, entry("orders", appid, id), entry("audit", appid, id))
	if err != nil || added != 2 {
		d.Errorf("add: got %d, error %v, want 2", added, err)
	}
}

// take delivers until no entry is missing.
func (d *deliveries) take(s queueSuite) {
	for {
		select {
		case <-d.done:
			return
		case <-s.ctx.Done():
			d.Error("entries are missing")
			return
		default:
		}
		taken, err := s.Take(s.ctx, map[string]int{"orders": 3, "audit": 2}, lease)
		if err != nil {
			d.Errorf("take: %v", err)
			return
		}
		for _, t := range taken {
			d.begin(t)
		}
		for _, t := range taken {
			o := store.QueueOutcome{Result: store.QueueDelivered}
			if d.tries.Add(1)%7 == 0 {
				o = store.QueueOutcome{Result: store.QueueFailed, Pause: time.Millisecond}
			}
			d.end(t, o.Result)
			if err := s.Settle(s.ctx, t, o); err != nil {
				d.Errorf("settle: %v", err)
			}
		}
	}
}

// begin notes that a lane is taken, and by which entry.
func (d *deliveries) begin(t store.TakenEntry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	lane := t.Service + "/" + t.AppID
	if d.busy[lane] {
		d.Errorf("lane %s was taken twice", lane)
	}
	d.busy[lane] = true
	if n, err := strconv.Atoi(t.ID); err != nil || n != d.last[lane]+1 {
		d.Errorf("lane %s: got entry %s after %d", lane, t.ID, d.last[lane])
	}
}

// end notes the result of a try. It must be called before Settle: afterwards
// the lane can be taken again.
func (d *deliveries) end(t store.TakenEntry, result store.QueueResult) {
	d.mu.Lock()
	defer d.mu.Unlock()
	lane := t.Service + "/" + t.AppID
	d.busy[lane] = false
	if result != store.QueueDelivered {
		return
	}
	d.last[lane]++
	if d.missing--; d.missing == 0 {
		close(d.done)
	}
}

// concurrentAdds: 20 goroutines add the same 30 events. Each is added once.
func concurrentAdds(s queueSuite) {
	var added atomic.Int64
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			for k := range 30 {
				n, err := s.Add(s.ctx, time.Hour, entry("orders", "a", strconv.Itoa((i+k)%30)))
				s.noError("add", err)
				added.Add(int64(n))
			}
		})
	}
	all.Wait()
	total, _, err := s.List(s.ctx, store.QueueFilter{}, 0, 1)
	if err != nil || total != 30 || added.Load() != 30 {
		s.Errorf("got %d entries, error %v, and %d were added, want 30", total, err, added.Load())
	}
}

// operations calls every method of the queue.
func (s queueSuite) operations(ctx context.Context) map[string]error {
	e := entry("orders", "a", "1")
	_, add := s.Add(ctx, time.Hour, e)
	_, take := s.Take(ctx, map[string]int{"orders": 1}, lease)
	_, sizes := s.Sizes(ctx)
	_, _, list := s.List(ctx, store.QueueFilter{}, 0, 1)
	_, find := s.Find(ctx, "1")
	taken := store.TakenEntry{QueueEntry: e, Lease: "lease"}
	return map[string]error{
		"add": add, "take": take, "sizes": sizes, "list": list, "find": find,
		"settle":  s.Settle(ctx, taken, store.QueueOutcome{Result: store.QueueDelivered}),
		"wake":    s.Wake(ctx, "orders"),
		"revive":  s.Revive(ctx, e.QueueKey),
		"expire":  s.Expire(ctx, e.QueueKey, "late"),
		"drop":    s.Drop(ctx, e.QueueKey),
		"scan":    s.Scan(ctx, func(store.QueueEntry) bool { return true }),
		"restore": s.Restore(ctx, e),
		"replace": s.Replace(ctx, e.QueueKey, e.Payload, []byte("new")),
	}
}

// canceledQueueContext: each method returns the error of its context.
func canceledQueueContext(s queueSuite) {
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	for name, err := range s.operations(ctx) {
		if !errors.Is(err, context.Canceled) {
			s.Errorf("%s: got error %v, want context.Canceled", name, err)
		}
	}
	s.wantEmpty()
	s.addIDs("orders", "a", "1")
}

// closedQueueRejects: each method returns ErrClosed, also those that need
// nothing of the database.
func closedQueueRejects(s queueSuite) {
	s.addIDs("orders", "a", "1")
	s.noError("close", s.store.Close())
	for name, err := range s.operations(s.ctx) {
		if !errors.Is(err, store.ErrClosed) {
			s.Errorf("%s: got error %v, want ErrClosed", name, err)
		}
	}
}

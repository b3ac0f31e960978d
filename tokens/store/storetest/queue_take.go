package storetest

import (
	"fmt"
	"slices"
	"time"

	"wxproxy/tokens/store"
)

// lanesAreIndependent: of the lanes of two accounts for two services, one is
// taken, one has failed, and one has a dead first entry. The other entries are
// due.
func lanesAreIndependent(s queueSuite) {
	for _, service := range []string{"orders", "audit"} {
		for _, appid := range []string{"a", "b"} {
			s.addIDs(service, appid, "1", "2")
		}
	}
	first := s.take("orders", 1, lease)
	if len(first) != 1 {
		s.Fatalf("take: got %d entries, want 1", len(first))
	}
	second := s.take("orders", 10, lease)
	if len(second) != 1 || second[0].AppID == first[0].AppID || second[0].ID != "1" {
		s.Fatalf("take: got %v after %v, want the other lane", ids(second), ids(first))
	}
	s.settle(second[0], store.QueueFailed, store.MaxQueuePause)
	s.takeNone("orders")
	both := s.take("audit", 10, lease)
	if len(both) != 2 || both[0].ID != "1" || both[1].ID != "1" {
		s.Fatalf("take for another service: got %v, want two lanes", ids(both))
	}
	s.settle(both[0], store.QueueDead, 0)
	next := s.takeOne("audit", "2")
	if next.AppID != both[0].AppID {
		s.Errorf("take: got the lane of %s, want %s", next.AppID, both[0].AppID)
	}
}

// takeIsLimited: more lanes than wanted × several services × services that are
// not named, or named with 0 or less.
func takeIsLimited(s queueSuite) {
	for i := range 8 {
		for _, service := range []string{"a", "b", "c", "d", "e"} {
			s.addIDs(service, fmt.Sprint("account", i), "1")
		}
	}
	for _, want := range []map[string]int{nil, {}, {"none": 5}, {"d": 0, "e": -1}} {
		taken, err := s.Take(s.ctx, want, lease)
		if err != nil || len(taken) != 0 {
			s.Errorf("take %v: got %v, error %v, want none", want, ids(taken), err)
		}
	}
	want := map[string]int{"a": 3, "b": 5, "d": 0, "e": -1, "none": 4}
	for _, wanted := range []map[string]int{{"a": 3, "b": 5}, {"a": 3, "b": 3}, {"a": 2}, {}} {
		taken, err := s.Take(s.ctx, want, lease)
		got := map[string]int{}
		for _, t := range taken {
			got[t.Service]++
		}
		if err != nil || fmt.Sprint(got) != fmt.Sprint(wanted) {
			s.Errorf("take: got %v, error %v, want %v", got, err, wanted)
		}
	}
	if want["a"] != 3 {
		s.Error("take has changed the map of its caller")
	}
}

// longestOverdueFirst takes one of three lanes again and again. A lane that was
// settled is due later than the others. Wake, and an entry that is added, leave
// the lane where it was.
func longestOverdueFirst(s queueSuite) {
	for _, appid := range []string{"c", "a", "b"} {
		s.addIDs("orders", appid, "1", "2", "3")
		s.nextMillisecond()
	}
	s.addIDs("orders", "c", "4")
	s.noError("wake", s.Wake(s.ctx, "orders"))
	s.noError("revive", s.Revive(s.ctx, entry("orders", "c", "2").QueueKey))
	for round := range 3 {
		for _, appid := range []string{"c", "a", "b"} {
			taken := s.take("orders", 1, lease)
			if len(taken) != 1 || taken[0].AppID != appid || taken[0].ID != fmt.Sprint(round+1) {
				s.Fatalf("take: got %v, want %s/%d", ids(taken), appid, round+1)
			}
			s.settle(taken[0], store.QueueDelivered, 0)
			s.nextMillisecond()
		}
	}
}

// nextMillisecond returns when the clock of the queue, which has milliseconds,
// has moved on.
func (s queueSuite) nextMillisecond() {
	for start := time.Now(); time.Since(start) < 3*time.Millisecond; {
		s.pause()
	}
}

// laneIsTakenOnce: whatever is added, revived or woken, a lane that is taken is
// not taken again.
func laneIsTakenOnce(s queueSuite) {
	s.addIDs("orders", "a", "1", "2")
	t := s.takeOne("orders", "1")
	s.takeNone("orders")
	s.addIDs("orders", "a", "3")
	s.noError("wake", s.Wake(s.ctx, "orders"))
	for _, id := range []string{"1", "2"} {
		s.noError("revive", s.Revive(s.ctx, entry("orders", "a", id).QueueKey))
	}
	s.noError("drop", s.Drop(s.ctx, entry("orders", "a", "2").QueueKey))
	s.noError("restore", s.Restore(s.ctx, entry("orders", "a", "4")))
	s.takeNone("orders")
	if got := s.found(t.QueueKey); got.Attempts != 0 || got.Dead {
		s.Errorf("revived while it is taken: got %+v, want it unchanged", got)
	}
	s.settle(t, store.QueueDelivered, 0)
	s.deliver("orders", "3", "4")
}

// leaseEnds: the lane of a process that does not settle is taken again after
// the lease, not before, with another reservation. A lease that is longer than
// allowed holds, too.
func leaseEnds(s queueSuite) {
	s.addIDs("orders", "a", "1")
	s.addIDs("audit", "a", "1")
	if taken := s.take("audit", 1, 100*time.Hour); len(taken) != 1 {
		s.Fatalf("take: got %d entries, want 1", len(taken))
	}
	start := time.Now()
	first := s.take("orders", 1, 100*time.Millisecond)
	if len(first) != 1 {
		s.Fatalf("take: got %d entries, want 1", len(first))
	}
	second := s.takeWhenDue("orders", "1")
	if passed := time.Since(start); passed < 95*time.Millisecond {
		s.Errorf("taken again after %v, want the lease to hold", passed)
	}
	if second.Lease == first[0].Lease || second.Attempts != 0 {
		s.Errorf("taken again: got lease %q and %d attempts, want another lease than %q",
			second.Lease, second.Attempts, first[0].Lease)
	}
	s.takeNone("audit")
}

// formerOwner lets a lease pass, and another process take the lane.
func (s queueSuite) formerOwner(service, id string) (former, owner store.TakenEntry) {
	s.Helper()
	taken := s.take(service, 1, time.Millisecond)
	if len(taken) != 1 || taken[0].ID != id {
		s.Fatalf("take: got %v, want %s", ids(taken), id)
	}
	return taken[0], s.takeWhenDue(service, id)
}

// formerOwnerSettles: failed and dead change nothing, delivered removes the
// entry. The new reservation holds in each case.
func formerOwnerSettles(s queueSuite) {
	s.addIDs("orders", "a", "1", "2")
	former, owner := s.formerOwner("orders", "1")
	for _, result := range []store.QueueResult{store.QueueFailed, store.QueueDead} {
		s.settle(former, result, 0)
		if got := s.found(former.QueueKey); got.Attempts != 0 || got.Dead || got.Error != "" {
			s.Errorf("after result %d of a former owner: got %+v, want it unchanged", result, got)
		}
		s.takeNone("orders")
	}
	s.settle(former, store.QueueDelivered, 0)
	if _, err := s.Find(s.ctx, "1"); err != store.ErrNotFound {
		s.Errorf("find: got error %v, want ErrNotFound", err)
	}
	s.takeNone("orders")
	s.settle(owner, store.QueueFailed, time.Minute) // of no entry
	t := s.takeOne("orders", "2")
	s.settle(owner, store.QueueDelivered, 0)
	s.takeNone("orders")
	s.settle(t, store.QueueDelivered, 0)
	s.settle(t, store.QueueDelivered, 0)
	s.wantEmpty()

	// The last entry of a lane: its reservation outlives it, so that an event
	// which arrives then does not overtake the one that is being delivered.
	s.addIDs("audit", "a", "1")
	former, owner = s.formerOwner("audit", "1")
	s.settle(former, store.QueueDelivered, 0)
	s.addIDs("audit", "a", "2")
	s.takeNone("audit")
	s.settle(owner, store.QueueDelivered, 0)
	s.deliver("audit", "2")
	s.wantEmpty()
}

// ownerSettlesLate: after the lease, but before the lane is taken again, the
// settlement counts. It counts once.
func ownerSettlesLate(s queueSuite) {
	s.addIDs("orders", "a", "1")
	taken := s.take("orders", 1, time.Millisecond)
	s.nextMillisecond()
	s.settle(taken[0], store.QueueFailed, store.MaxQueuePause)
	s.takeNone("orders")
	s.settle(taken[0], store.QueueDead, 0)
	if got := s.found(taken[0].QueueKey); got.Attempts != 1 || got.Dead {
		s.Errorf("settled twice: got %+v, want one attempt", got)
	}
}

// droppedLaneStaysReserved: an entry is dropped while it is delivered. The lane
// is free when the try was settled, or when its lease has passed.
func droppedLaneStaysReserved(s queueSuite) {
	for _, settles := range []bool{true, false} {
		service := fmt.Sprint("settles", settles)
		length := lease
		if !settles {
			length = 100 * time.Millisecond
		}
		s.addIDs(service, "a", "1")
		start := time.Now()
		taken := s.take(service, 1, length)
		s.noError("drop", s.Drop(s.ctx, taken[0].QueueKey))
		s.addIDs(service, "a", "2")
		if settles {
			s.takeNone(service)
			s.settle(taken[0], store.QueueFailed, store.MaxQueuePause)
		}
		t := s.takeWhenDue(service, "2")
		if passed := time.Since(start); !settles && passed < 95*time.Millisecond {
			s.Errorf("taken after %v, want the lease to hold", passed)
		}
		s.settle(t, store.QueueDelivered, 0)
	}
	s.wantEmpty()
}

// queueOutcomes: a failed entry stays the first of its lane, a dead one lets
// the next one pass, a delivered one is removed.
func queueOutcomes(s queueSuite) {
	s.addIDs("orders", "a", "1", "2", "3")
	for attempts := range 3 {
		t := s.takeWhenDue("orders", "1")
		if t.Attempts != attempts || attempts > 0 && t.Error != "error of 1" {
			s.Errorf("try %d: got %d attempts, error %q", attempts, t.Attempts, t.Error)
		}
		s.settle(t, store.QueueFailed, 0)
	}
	s.settle(s.takeWhenDue("orders", "1"), store.QueueDead, store.MaxQueuePause)
	dead := s.found(entry("orders", "a", "1").QueueKey)
	if !dead.Dead || dead.Attempts != 4 || dead.Error != "error of 1" || !dead.Next.IsZero() {
		s.Errorf("dead entry: got %+v", dead)
	}
	s.deliver("orders", "2", "3")
	s.takeNone("orders")
	sizes, err := s.Sizes(s.ctx)
	size := sizes["orders"]
	if err != nil || size.Waiting != 0 || size.Dead != 1 || !size.Oldest.IsZero() {
		s.Errorf("sizes: got %+v, error %v, want a dead entry", sizes, err)
	}
}

// pausesAreKept: a lane is not due before the pause of its failed try has
// passed. A pause that is longer than allowed holds, too.
func pausesAreKept(s queueSuite) {
	s.addIDs("orders", "a", "1", "2")
	s.addIDs("audit", "a", "1")
	s.settle(s.takeOne("audit", "1"), store.QueueFailed, 100*time.Hour)
	t := s.takeOne("orders", "1")
	start := time.Now()
	s.settle(t, store.QueueFailed, 200*time.Millisecond)
	next := s.found(t.QueueKey).Next
	if ahead := next.Sub(start); ahead < 190*time.Millisecond || ahead > time.Minute {
		s.Errorf("next try: got %v after the failed one, want 200ms", ahead)
	}
	s.takeWhenDue("orders", "1")
	if passed := time.Since(start); passed < 195*time.Millisecond {
		s.Errorf("tried again after %v, want 200ms at least", passed)
	}
	s.takeNone("audit")
}

// addShortensPause: an entry that is added makes its lane due, half a second
// after a failed try at the earliest. A key that is known does not.
func addShortensPause(s queueSuite) {
	s.addIDs("orders", "a", "1")
	s.addIDs("orders", "b", "1")
	taken := s.take("orders", 2, lease)
	start := time.Now()
	for _, t := range taken {
		s.settle(t, store.QueueFailed, store.MaxQueuePause)
	}
	s.addSome(time.Hour, 0, entry("orders", "b", "1"))
	s.addIDs("orders", "a", "2")
	t := s.takeWhenDue("orders", "1")
	passed := time.Since(start)
	if passed < store.MinQueuePause-5*time.Millisecond || passed > store.MaxQueuePause/2 {
		s.Errorf("tried again after %v, want %v", passed, store.MinQueuePause)
	}
	if t.AppID != "a" {
		s.Errorf("taken: got the lane of %s, want a", t.AppID)
	}
	s.settle(t, store.QueueDelivered, 0)
	s.deliver("orders", "2")

	// A pause that has lasted for longer ends at once.
	for time.Since(start) < store.MinQueuePause+50*time.Millisecond {
		s.pause()
	}
	s.addIDs("orders", "b", "2")
	s.takeWhenDue("orders", "1")
	if passed := time.Since(start); passed > store.MaxQueuePause/2 {
		s.Errorf("tried again after %v, want it at once", passed)
	}
}

// wakeEndsPauses: all lanes of one service are due then, and no other.
func wakeEndsPauses(s queueSuite) {
	for _, service := range []string{"orders", "audit"} {
		for _, appid := range []string{"a", "b"} {
			s.addIDs(service, appid, "1")
		}
		for _, t := range s.take(service, 2, lease) {
			s.settle(t, store.QueueFailed, store.MaxQueuePause)
		}
	}
	// A service without entries is no error.
	s.noError("wake", s.Wake(s.ctx, "none"))
	s.takeNone("orders")
	s.noError("wake", s.Wake(s.ctx, "orders"))
	got := ids(s.take("orders", 10, lease))
	slices.Sort(got)
	if !slices.Equal(got, []string{"a/1", "b/1"}) {
		s.Errorf("take after wake: got %v, want both lanes", got)
	}
	s.takeNone("audit")
}

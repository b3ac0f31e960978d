package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"wxproxy/tokens/store"
)

// RunQueue runs one subtest for each rule of [store.Queue], in parallel. open
// must return a new store for each call, with an empty queue that [store.As]
// finds; RunQueue closes it. Nothing else may use the queue meanwhile.
func RunQueue(t *testing.T, open func(t *testing.T) store.Store) {
	for _, c := range []struct {
		name string
		test func(s queueSuite)
	}{
		{"added entries are taken in order", addedAreTakenInOrder},
		{"add is idempotent", addIsIdempotent},
		{"added keys are known after delivery", keysAreKnownAfterDelivery},
		{"invalid keys are rejected", invalidKeysAreRejected},
		{"unusual keys", unusualQueueKeys},
		{"payloads of all sizes", queuePayloads},
		{"entries are copied", queueEntriesAreCopied},

		{"lanes do not wait for each other", lanesAreIndependent},
		{"take is limited for each service", takeIsLimited},
		{"longest overdue lane first", longestOverdueFirst},
		{"a lane is taken once", laneIsTakenOnce},
		{"a lease ends", leaseEnds},
		{"a former owner settles", formerOwnerSettles},
		{"an owner settles late", ownerSettlesLate},
		{"a lane stays reserved when its entry is dropped", droppedLaneStaysReserved},
		{"failed, dead and delivered", queueOutcomes},
		{"pauses are kept", pausesAreKept},
		{"an added entry shortens a pause", addShortensPause},
		{"wake ends pauses of a service", wakeEndsPauses},
		{"errors are cut", queueErrorsAreCut},

		{"sizes", queueSizes},
		{"list", queueList},
		{"find", queueFind},
		{"revive a dead entry", reviveDead},
		{"revive a waiting entry", reviveWaiting},
		{"expire", queueExpire},
		{"drop", queueDrop},
		{"scan and restore", scanAndRestore},
		{"replace", queueReplace},

		{"many lanes", manyLanes},
		{"concurrent adders and takers", addersAndTakers},
		{"concurrent adds of one key", concurrentAdds},
		{"canceled context", canceledQueueContext},
		{"closed store", closedQueueRejects},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			// See Run.
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			s := open(t)
			defer s.Close()
			c.test(newQueueSuite(ctx, t, s))
		})
	}
}

// queueSuite is the queue of one subtest, with its helpers.
type queueSuite struct {
	*testing.T
	store.Queue
	store store.Store
	ctx   context.Context
}

// newQueueSuite returns the queue of s, as wxproxy finds it.
func newQueueSuite(ctx context.Context, t *testing.T, s store.Store) queueSuite {
	t.Helper()
	q, ok := store.As[store.Queuer](s)
	if !ok {
		t.Fatal("the store has no queue")
	}
	return queueSuite{T: t, Queue: q.Queue(), store: s, ctx: ctx}
}

// pushed is when the events of the tests were pushed. It differs from the time
// at which they are added, as that of an event does which waited for its store.
var pushed = time.UnixMilli(1_700_000_000_123)

// lease is longer than any test takes between Take and Settle.
const lease = store.MaxQueuePause

// entry returns the entry that Add is given for an event. Each has a payload of
// its own. Of the
// entries of a test, one with a greater id was pushed later.
func entry(service, appid, id string) store.QueueEntry {
	k := store.QueueKey{Service: service, AppID: appid, ID: id}
	later := 0
	for _, c := range []byte(id) {
		later = later*10 + int(c%16)
	}
	return store.QueueEntry{
		QueueKey: k, Payload: []byte("payload of " + k.String()),
		Created: pushed.Add(time.Duration(later%1_000_000) * time.Second),
	}
}

// add adds entries and fails unless all of them are new.
func (s queueSuite) add(entries ...store.QueueEntry) {
	s.Helper()
	s.addSome(time.Hour, len(entries), entries...)
}

// addSome fails unless want of the entries are added.
func (s queueSuite) addSome(known time.Duration, want int, entries ...store.QueueEntry) {
	s.Helper()
	added, err := s.Add(s.ctx, known, entries...)
	if err != nil || added != want {
		s.Fatalf("add: got %d, error %v, want %d", added, err, want)
	}
}

// addIDs adds events of one account for one service.
func (s queueSuite) addIDs(service, appid string, ids ...string) {
	s.Helper()
	for _, id := range ids {
		s.add(entry(service, appid, id))
	}
}

// take returns what is due, at most n entries of the service.
func (s queueSuite) take(service string, n int, lease time.Duration) []store.TakenEntry {
	s.Helper()
	taken, err := s.Take(s.ctx, map[string]int{service: n}, lease)
	if err != nil {
		s.Fatalf("take: %v", err)
	}
	return taken
}

// takeOne fails unless exactly one entry of the service is due: id.
func (s queueSuite) takeOne(service, id string) store.TakenEntry {
	s.Helper()
	taken := s.take(service, 10, lease)
	if len(taken) != 1 || taken[0].ID != id {
		s.Fatalf("take for %s: got %v, want %s", service, ids(taken), id)
	}
	return taken[0]
}

// takeNone fails if an entry of the service is due.
func (s queueSuite) takeNone(service string) {
	s.Helper()
	if taken := s.take(service, 10, lease); len(taken) != 0 {
		s.Fatalf("take for %s: got %v, want none", service, ids(taken))
	}
}

// takeWhenDue waits until an entry of the service is due, and fails unless it
// is id.
func (s queueSuite) takeWhenDue(service, id string) store.TakenEntry {
	s.Helper()
	for {
		taken := s.take(service, 10, lease)
		if len(taken) == 1 && taken[0].ID == id {
			return taken[0]
		}
		if len(taken) != 0 {
			s.Fatalf("take for %s: got %v, want %s", service, ids(taken), id)
		}
		s.pause()
	}
}

// pause waits a moment before the queue is asked again.
func (s queueSuite) pause() {
	select {
	case <-time.After(5 * time.Millisecond):
	case <-s.ctx.Done():
		s.Fatal("waited in vain")
	}
}

// ids returns the entries as text, in the order in which they were taken.
func ids(taken []store.TakenEntry) []string {
	var ids []string
	for _, t := range taken {
		ids = append(ids, t.AppID+"/"+t.ID)
	}
	return ids
}

// settle reports the result of a try.
func (s queueSuite) settle(t store.TakenEntry, result store.QueueResult, pause time.Duration) {
	s.Helper()
	o := store.QueueOutcome{Result: result, Pause: pause}
	if result != store.QueueDelivered {
		o.Error = "error of " + t.ID
	}
	if err := s.Settle(s.ctx, t, o); err != nil {
		s.Fatalf("settle: %v", err)
	}
}

// deliver takes and settles the entries ids, which must be due in this order.
func (s queueSuite) deliver(service string, ids ...string) {
	s.Helper()
	for _, id := range ids {
		s.settle(s.takeOne(service, id), store.QueueDelivered, 0)
	}
}

// found returns the entry of key. It fails if there is none.
func (s queueSuite) found(key store.QueueKey) store.QueueEntry {
	s.Helper()
	entries, err := s.Find(s.ctx, key.ID)
	for _, e := range entries {
		if e.QueueKey == key {
			return e
		}
	}
	s.Fatalf("find %s: got %v, error %v", key, entries, err)
	return store.QueueEntry{}
}

// wantEmpty fails if the queue has entries.
func (s queueSuite) wantEmpty() {
	s.Helper()
	sizes, err := s.Sizes(s.ctx)
	if err != nil || len(sizes) != 0 {
		s.Errorf("sizes: got %v, error %v, want none", sizes, err)
	}
	total, entries, err := s.List(s.ctx, store.QueueFilter{}, 0, 10)
	if err != nil || total != 0 || len(entries) != 0 {
		s.Errorf("list: got %d %v, error %v, want none", total, entries, err)
	}
}

// addedAreTakenInOrder: one by one × several in one Add × of several services.
// Each taken entry is what was added.
func addedAreTakenInOrder(s queueSuite) {
	before := time.Now()
	s.addIDs("orders", "a", "3")
	s.add(entry("orders", "a", "1"), entry("audit", "a", "1"), entry("orders", "a", "2"))
	after := time.Now()
	s.deliver("audit", "1")
	for _, id := range []string{"3", "1", "2"} {
		got, want := s.takeOne("orders", id), entry("orders", "a", id)
		if got.QueueKey != want.QueueKey || !bytes.Equal(got.Payload, want.Payload) ||
			!got.Created.Equal(want.Created) || got.Dead || got.Attempts != 0 || got.Error != "" ||
			got.Lease == "" {
			s.Errorf("taken: got %+v, want %+v", got, want)
		}
		// Both clocks are those of this machine. Times are cut to milliseconds.
		if got.Since.Before(before.Add(-time.Second)) || got.Since.After(after.Add(time.Second)) {
			s.Errorf("since: got %v, want %v to %v", got.Since, before, after)
		}
		s.settle(got, store.QueueDelivered, 0)
	}
	s.takeNone("orders")
	s.wantEmpty()
	s.addSome(time.Hour, 0) // no entries
}

// addIsIdempotent: a key that the queue has is not added again, alone × with
// others × twice in one Add × while it is taken × dead × known or not.
func addIsIdempotent(s queueSuite) {
	for i, known := range []time.Duration{time.Hour, 0, -time.Hour} {
		service := fmt.Sprint("service", i)
		first, second := entry(service, "a", "1"), entry(service, "a", "2")
		s.addSome(known, 2, first, first, second)
		other := entry(service, "a", "1")
		other.Payload = []byte("other")
		s.addSome(known, 0, other)
		s.addSome(known, 1, second, entry(service, "a", "3"))
		t := s.takeOne(service, "1")
		if string(t.Payload) == "other" {
			s.Error("the second entry of a key has replaced the first one")
		}
		s.addSome(known, 0, other)
		s.settle(t, store.QueueDead, 0)
		s.addSome(known, 0, other)
		s.deliver(service, "2", "3")
		// Whether it is known or not, an entry that was dropped is gone.
		s.noError("drop", s.Drop(s.ctx, t.QueueKey))
	}
	s.wantEmpty()
}

// keysAreKnownAfterDelivery: delivered × dropped, known for an hour × not
// known × known for a moment. The key of another service is another key.
func keysAreKnownAfterDelivery(s queueSuite) {
	end := map[string]func(id string){
		"delivered": func(id string) { s.deliver("orders", id) },
		"dropped": func(id string) {
			s.noError("drop", s.Drop(s.ctx, entry("orders", "a", id).QueueKey))
		},
	}
	for name, end := range end {
		known, unknown, shortly := entry("orders", "a", "1"+name), entry("orders", "a", "2"+name),
			entry("orders", "a", "3"+name)
		s.addSome(time.Hour, 1, known)
		end(known.ID)
		s.addSome(time.Hour, 0, known)
		s.addSome(0, 0, known)
		s.add(entry("audit", "a", known.ID))
		s.addSome(0, 1, unknown)
		end(unknown.ID)
		s.addSome(0, 1, unknown)
		end(unknown.ID)

		s.addSome(50*time.Millisecond, 1, shortly)
		end(shortly.ID)
		for {
			added, err := s.Add(s.ctx, time.Hour, shortly)
			if err != nil {
				s.Fatalf("add: %v", err)
			}
			if added == 1 {
				break
			}
			s.pause()
		}
		end(shortly.ID)
	}
}

// noError reports an error of what. The test continues.
func (s queueSuite) noError(what string, err error) {
	s.Helper()
	if err != nil {
		s.Errorf("%s: got error %v, want none", what, err)
	}
}

// invalidKeysAreRejected: one invalid part × alone, after a valid entry ×
// several accounts × Add, Restore. Nothing is added then.
func invalidKeysAreRejected(s queueSuite) {
	long := strings.Repeat("k", 1025)
	for _, k := range []store.QueueKey{
		{}, {Service: "s", AppID: "a"}, {Service: "s", ID: "1"}, {AppID: "a", ID: "1"},
		{Service: "s/t", AppID: "a", ID: "1"}, {Service: "s", AppID: "a/", ID: "1"},
		{Service: "s", AppID: "a", ID: "/1"},
		{Service: long, AppID: "a", ID: "1"}, {Service: "s", AppID: "a", ID: long},
	} {
		bad := store.QueueEntry{QueueKey: k, Payload: []byte("x")}
		for _, entries := range [][]store.QueueEntry{{bad}, {entry("s", k.AppID+"a", "9"), bad}} {
			added, err := s.Add(s.ctx, time.Hour, entries...)
			if !errors.Is(err, store.ErrQueueKey) || added != 0 {
				s.Errorf("add of %+v: got %d, error %v, want ErrQueueKey", k, added, err)
			}
			if err := s.Restore(s.ctx, entries...); !errors.Is(err, store.ErrQueueKey) {
				s.Errorf("restore of %+v: got error %v, want ErrQueueKey", k, err)
			}
		}
	}
	added, err := s.Add(s.ctx, time.Hour, entry("s", "a", "1"), entry("s", "b", "1"))
	if !errors.Is(err, store.ErrQueueKey) || added != 0 {
		s.Errorf("two accounts: got %d, error %v, want ErrQueueKey", added, err)
	}
	s.wantEmpty()
	s.addIDs("s", "a", "1", "9") // not known
}

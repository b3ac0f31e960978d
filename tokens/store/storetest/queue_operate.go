package storetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"wxproxy/tokens/store"
)

// queueSizes: waiting and dead entries of two services. Bytes is the sum of the
// payloads. A queue that encrypts adds less than 128 bytes to each.
func queueSizes(s queueSuite) {
	s.wantEmpty()
	bytes := map[string]int64{}
	for _, service := range []string{"orders", "audit"} {
		for _, id := range []string{"4", "2", "3"} {
			e := entry(service, "a", id)
			s.add(e)
			bytes[service] += int64(len(e.Payload))
		}
	}
	check := func(service string, waiting, dead int, oldest time.Time) {
		s.Helper()
		sizes, err := s.Sizes(s.ctx)
		got, n := sizes[service], int64(waiting+dead)
		if err != nil || got.Waiting != waiting || got.Dead != dead || !got.Oldest.Equal(oldest) {
			s.Errorf("size of %s: got %+v, error %v, want %d waiting, %d dead, oldest %v",
				service, got, err, waiting, dead, oldest)
		}
		want := bytes[service] * n / 3
		if got.Bytes < want || got.Bytes > want+128*n {
			s.Errorf("size of %s: got %d bytes, want %d", service, got.Bytes, want)
		}
	}
	check("orders", 3, 0, entry("orders", "a", "2").Created)
	s.settle(s.takeOne("orders", "4"), store.QueueDead, 0)
	s.settle(s.takeOne("orders", "2"), store.QueueFailed, 0)
	check("orders", 2, 1, entry("orders", "a", "2").Created)
	s.noError("drop", s.Drop(s.ctx, entry("orders", "a", "2").QueueKey))
	check("orders", 1, 1, entry("orders", "a", "3").Created)
	s.noError("revive", s.Revive(s.ctx, entry("orders", "a", "4").QueueKey))
	check("orders", 2, 0, entry("orders", "a", "3").Created)
	s.deliver("orders", "4", "3")
	sizes, err := s.Sizes(s.ctx)
	if _, exists := sizes["orders"]; err != nil || exists || len(sizes) != 1 {
		s.Errorf("sizes: got %v, error %v, want those of audit alone", sizes, err)
	}
	check("audit", 3, 0, entry("audit", "a", "2").Created)
}

// queueList: filters by state × service × account, with offsets and limits,
// also beyond the end. Waiting entries come first, and then the oldest. They
// have no payload, and only the first of each lane has a next try.
func queueList(s queueSuite) {
	var all []store.QueueEntry
	for i := range 24 {
		service, appid := []string{"orders", "audit"}[i%2], []string{"a", "b", "c"}[i%3]
		e := entry(service, appid, fmt.Sprint(100+i*7%24)) // not in the order of their ids
		s.add(e)
		all = append(all, e)
	}
	// Of each service the first entry of one lane is dead, and its second entry
	// is the first waiting one.
	firsts := map[store.QueueKey]bool{}
	for _, service := range []string{"orders", "audit"} {
		taken := s.take(service, 10, lease)
		s.settle(taken[0], store.QueueDead, 0)
		for i := range all {
			all[i].Dead = all[i].Dead || all[i].QueueKey == taken[0].QueueKey
		}
	}
	lanes := map[string]bool{}
	for _, e := range all {
		if lane := e.Service + "/" + e.AppID; !e.Dead && !lanes[lane] {
			lanes[lane], firsts[e.QueueKey] = true, true
		}
	}
	slices.SortFunc(all, func(a, b store.QueueEntry) int {
		if a.Dead != b.Dead {
			return map[bool]int{true: 1, false: -1}[a.Dead]
		}
		return a.Created.Compare(b.Created)
	})
	for state := store.AnyQueueState; state <= store.DeadEntries; state++ {
		for _, service := range []string{"", "orders", "audit", "none"} {
			for _, appid := range []string{"", "a", "c", "none"} {
				f := store.QueueFilter{State: state, Service: service, AppID: appid}
				var want []store.QueueEntry
				for _, e := range all {
					inState := state == 0 || e.Dead == (state == store.DeadEntries)
					if inState && (service == "" || e.Service == service) &&
						(appid == "" || e.AppID == appid) {
						want = append(want, e)
					}
				}
				s.wantPages(f, want, firsts)
			}
		}
	}
}

// wantPages lists what matches f, in pages of several sizes.
func (s queueSuite) wantPages(
	f store.QueueFilter, want []store.QueueEntry, firsts map[store.QueueKey]bool,
) {
	s.Helper()
	for _, limit := range []int{0, 1, 5, 100} {
		for offset := 0; offset <= len(want)+1; offset += max(limit, 7) {
			total, got, err := s.List(s.ctx, f, offset, limit)
			page := want[min(offset, len(want)):min(offset+limit, len(want))]
			if err != nil || total != len(want) || len(got) != len(page) {
				s.Fatalf("list %+v from %d, %d at most: got %d of %d, error %v, want %d of %d",
					f, offset, limit, len(got), total, err, len(page), len(want))
			}
			for i, e := range got {
				w := page[i]
				if e.QueueKey != w.QueueKey || e.Payload != nil || e.Dead != w.Dead ||
					!e.Created.Equal(w.Created) || e.Next.IsZero() == firsts[e.QueueKey] {
					s.Fatalf("list %+v, entry %d: got %+v, want %+v", f, offset+i, e, w)
				}
			}
		}
	}
}

// queueFind: the entries of an event are sorted by service. An id that is the
// beginning of another one is another event.
func queueFind(s queueSuite) {
	for _, id := range []string{"1", "12", "", "2"} {
		if _, err := s.Find(s.ctx, id); !errors.Is(err, store.ErrNotFound) {
			s.Errorf("find %q: got error %v, want ErrNotFound", id, err)
		}
	}
	s.add(entry("c", "a", "1"), entry("a", "a", "1"), entry("b", "a", "1"), entry("d", "a", "12"))
	s.settle(s.takeOne("b", "1"), store.QueueDead, 0)
	got, err := s.Find(s.ctx, "1")
	if err != nil || len(got) != 3 {
		s.Fatalf("find: got %v, error %v, want 3 entries", got, err)
	}
	for i, service := range []string{"a", "b", "c"} {
		want := entry(service, "a", "1")
		if got[i].QueueKey != want.QueueKey || string(got[i].Payload) != string(want.Payload) ||
			got[i].Dead != (service == "b") || got[i].Next.IsZero() != (service == "b") {
			s.Errorf("found: got %+v, want %+v", got[i], want)
		}
	}
	s.noError("drop", s.Drop(s.ctx, got[0].QueueKey))
	if got, err := s.Find(s.ctx, "1"); err != nil || len(got) != 2 {
		s.Errorf("find after drop: got %v, error %v, want 2 entries", got, err)
	}
}

// reviveDead: the entry is due, in its old place, whether its lane has others,
// is paused, is taken, or is empty.
func reviveDead(s queueSuite) {
	s.addIDs("orders", "a", "1", "2", "3", "4")
	s.settle(s.takeOne("orders", "1"), store.QueueDead, 0)
	s.deliver("orders", "2")
	s.settle(s.takeOne("orders", "3"), store.QueueFailed, store.MaxQueuePause)
	first := entry("orders", "a", "1").QueueKey
	before := s.found(first)
	s.nextMillisecond()
	s.noError("revive", s.Revive(s.ctx, first))
	t := s.takeOne("orders", "1")
	if t.Dead || t.Attempts != 1 || t.Error != "error of 1" || !t.Since.After(before.Since) {
		s.Errorf("revived: got %+v, dead it was %+v", t, before)
	}
	s.settle(t, store.QueueDead, 0)
	t = s.takeOne("orders", "3") // its pause has ended
	s.noError("revive", s.Revive(s.ctx, first))
	s.takeNone("orders")
	s.settle(t, store.QueueDelivered, 0)
	s.settle(s.takeOne("orders", "1"), store.QueueDead, 0)
	s.deliver("orders", "4")
	s.takeNone("orders")
	s.noError("revive", s.Revive(s.ctx, first))
	s.deliver("orders", "1")
	s.wantEmpty()
	if err := s.Revive(s.ctx, first); !errors.Is(err, store.ErrNotFound) {
		s.Errorf("revive: got error %v, want ErrNotFound", err)
	}
}

// reviveWaiting: the first entry of a paused lane × a later one. Both make the
// lane due, and change no order. Since stays.
func reviveWaiting(s queueSuite) {
	for _, id := range []string{"1", "2"} {
		service := "service" + id
		s.addIDs(service, "a", "1", "2")
		s.settle(s.takeOne(service, "1"), store.QueueFailed, store.MaxQueuePause)
		key := entry(service, "a", id).QueueKey
		before := s.found(key)
		s.nextMillisecond()
		s.takeNone(service)
		s.noError("revive", s.Revive(s.ctx, key))
		if got := s.found(key); !got.Since.Equal(before.Since) {
			s.Errorf("since: got %v, want %v", got.Since, before.Since)
		}
		s.deliver(service, "1", "2")
	}
}

// queueExpire: a waiting entry × the first one × of a paused lane, whose pause
// stays × one that is being delivered × one whose lease has passed × a dead one
// × one that does not exist.
func queueExpire(s queueSuite) {
	key := func(id string) store.QueueKey { return entry("orders", "a", id).QueueKey }
	expire := func(id string) {
		s.Helper()
		s.noError("expire", s.Expire(s.ctx, key(id), "too old "+strings.Repeat("账", 100)))
	}
	wantDead := func(id string, dead bool, attempts int) {
		s.Helper()
		got := s.found(key(id))
		if got.Dead != dead || got.Attempts != attempts || dead && (!got.Next.IsZero() ||
			!strings.HasPrefix(got.Error, "too old ") || len(got.Error) > 200) {
			s.Errorf("entry %s: got %+v, want dead %v, %d attempts", id, got, dead, attempts)
		}
	}
	s.addIDs("orders", "a", "1", "2", "3", "4")
	expire("1")
	wantDead("1", true, 0)
	s.settle(s.takeOne("orders", "2"), store.QueueFailed, store.MaxQueuePause)
	expire("2")
	wantDead("2", true, 1)
	s.takeNone("orders")
	s.noError("wake", s.Wake(s.ctx, "orders"))
	t := s.takeOne("orders", "3")
	expire("3")
	expire("4")
	wantDead("3", false, 0)
	wantDead("4", true, 0)
	s.noError("revive", s.Revive(s.ctx, key("1")))
	s.settle(t, store.QueueDelivered, 0)
	s.deliver("orders", "1")
	s.takeNone("orders")

	s.addIDs("orders", "a", "5")
	late := s.take("orders", 1, time.Millisecond)[0]
	s.nextMillisecond()
	expire("5")
	wantDead("5", true, 0)
	s.settle(late, store.QueueFailed, 0)
	wantDead("5", true, 0)
	s.takeNone("orders")
	s.settle(late, store.QueueDelivered, 0)
	for _, id := range []string{"3", "5"} {
		err := s.Expire(s.ctx, key(id), "too old")
		if !errors.Is(err, store.ErrNotFound) {
			s.Errorf("expire %s: got error %v, want ErrNotFound", id, err)
		}
	}
	s.noError("expire", s.Expire(s.ctx, key("4"), "other"))
	wantDead("4", true, 0)
	s.deliver("orders")
}

// queueDrop: the first entry of a lane × a later one × a dead one × one that
// does not exist.
func queueDrop(s queueSuite) {
	s.addIDs("orders", "a", "1", "2", "3", "4", "5")
	s.settle(s.takeOne("orders", "1"), store.QueueDead, 0)
	for _, id := range []string{"1", "2", "4"} {
		key := entry("orders", "a", id).QueueKey
		s.noError("drop", s.Drop(s.ctx, key))
		for what, err := range map[string]error{
			"drop": s.Drop(s.ctx, key), "revive": s.Revive(s.ctx, key),
		} {
			if !errors.Is(err, store.ErrNotFound) {
				s.Errorf("%s of %s: got error %v, want ErrNotFound", what, id, err)
			}
		}
		if _, err := s.Find(s.ctx, id); !errors.Is(err, store.ErrNotFound) {
			s.Errorf("find %s: got error %v, want ErrNotFound", id, err)
		}
	}
	s.deliver("orders", "3", "5")
	s.wantEmpty()
}

// scanned returns all entries.
func (s queueSuite) scanned() []store.QueueEntry {
	s.Helper()
	var entries []store.QueueEntry
	s.noError("scan", s.Scan(s.ctx, func(e store.QueueEntry) bool {
		entries = append(entries, e)
		return true
	}))
	return entries
}

// scanAndRestore scans a queue with waiting, taken, failed and dead entries,
// empties it, and restores it twice: everything is as it was, but all lanes are
// due.
func scanAndRestore(s queueSuite) {
	for i := range 60 {
		service, appid := []string{"orders", "audit"}[i%2], []string{"a", "b", "c"}[i%3]
		s.add(entry(service, appid, fmt.Sprint(100+i*7%60)))
	}
	results := []store.QueueResult{store.QueueDead, store.QueueFailed, store.QueueDead}
	for i, t := range s.take("orders", 3, lease) {
		s.settle(t, results[i], time.Minute)
	}
	s.take("audit", 2, lease)
	before := s.scanned()
	n := 0
	s.noError("scan", s.Scan(s.ctx, func(store.QueueEntry) bool { n++; return n < 7 }))
	if len(before) != 60 || n != 7 {
		s.Fatalf("scan: got %d entries, and %d until yield returned false", len(before), n)
	}
	for _, e := range before {
		s.noError("drop", s.Drop(s.ctx, e.QueueKey))
	}
	for range 2 { // the second time, the queue has them
		s.noError("restore", s.Restore(s.ctx, before...))
		after := s.scanned()
		if got, want := sortedKeys(after), sortedKeys(before); !slices.Equal(got, want) {
			s.Fatalf("restored: got %v, want %v", got, want)
		}
		s.wantSameLanes(after, before)
	}
	for _, e := range before {
		if e.Dead {
			s.noError("revive", s.Revive(s.ctx, e.QueueKey))
		}
	}
	sizes, err := s.Sizes(s.ctx)
	if err != nil || sizes["orders"].Waiting != 30 || sizes["audit"].Waiting != 30 {
		s.Errorf("sizes: got %v, error %v, want 30 waiting for each service", sizes, err)
	}
	// No lane of this service is reserved any more.
	s.deliversInOrder(before, "orders", "b")
	for _, e := range before {
		if e.Service == "audit" {
			s.addSome(time.Hour, 0, e)
		}
	}
}

// deliversInOrder delivers all entries for a service, and fails unless those of
// an account come in the order of entries.
func (s queueSuite) deliversInOrder(entries []store.QueueEntry, service, appid string) {
	s.Helper()
	var want, got []string
	for _, e := range entries {
		if e.Service == service && e.AppID == appid {
			want = append(want, e.ID)
		}
	}
	for range want {
		for _, t := range s.take(service, 3, lease) {
			if t.AppID == appid {
				got = append(got, t.ID)
			}
			s.settle(t, store.QueueDelivered, 0)
		}
	}
	if !slices.Equal(got, want) {
		s.Errorf("order of a restored lane: got %v, want %v", got, want)
	}
}

// wantSameLanes fails unless the entries of each lane are the same, in the same
// order, but for the time of the next try.
func (s queueSuite) wantSameLanes(got, want []store.QueueEntry) {
	s.Helper()
	lanes := func(entries []store.QueueEntry) map[string][]string {
		lanes := map[string][]string{}
		for _, e := range entries {
			lane := e.Service + "/" + e.AppID
			lanes[lane] = append(lanes[lane], fmt.Sprintf("%s %s %v %v %v %d %q", e.ID, e.Payload,
				e.Created.UnixMilli(), e.Since.UnixMilli(), e.Dead, e.Attempts, e.Error))
		}
		return lanes
	}
	g, w := lanes(got), lanes(want)
	for lane := range w {
		if !slices.Equal(g[lane], w[lane]) {
			s.Errorf("lane %s: got %q, want %q", lane, g[lane], w[lane])
		}
	}
}

// queueReplace: an old payload that is right × wrong × a key that does not
// exist × an entry that is taken, and dead.
func queueReplace(s queueSuite) {
	e := entry("orders", "a", "1")
	s.add(e)
	replace := func(key store.QueueKey, old, payload string) {
		s.Helper()
		s.noError("replace", s.Replace(s.ctx, key, []byte(old), []byte(payload)))
	}
	want := func(payload string) {
		s.Helper()
		got := s.found(e.QueueKey)
		if string(got.Payload) != payload || !got.Created.Equal(e.Created) {
			s.Errorf("got %q, want %q", got.Payload, payload)
		}
	}
	replace(e.QueueKey, "wrong", "new")
	want(string(e.Payload))
	replace(entry("orders", "a", "2").QueueKey, string(e.Payload), "new")
	replace(e.QueueKey, string(e.Payload), "longer than before, by far")
	want("longer than before, by far")
	t := s.takeOne("orders", "1")
	replace(e.QueueKey, "longer than before, by far", "2")
	want("2")
	s.settle(t, store.QueueDead, 0)
	replace(e.QueueKey, "2", "three")
	want("three")
	sizes, err := s.Sizes(s.ctx)
	if got := sizes["orders"].Bytes; err != nil || got < 5 || got > 5+128 {
		s.Errorf("sizes: got %v, error %v, want 5 bytes", sizes, err)
	}
}

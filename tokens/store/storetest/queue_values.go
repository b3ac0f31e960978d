package storetest

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"wxproxy/tokens/store"
)

// unusualQueueKeys uses parts that a database could take for syntax, for a
// pattern, for a path, or for invalid text, and parts that are prefixes of each
// other. Each combination is a lane of its own.
func unusualQueueKeys(s queueSuite) {
	parts := []string{
		" ", "\x00", "\x00\x00", "\n", "a\r\nSET b c", "%s%n", "*", "?[a-z]*", "{a}b", "..", "a:b",
		"a|b", "queue", "账号", "\xff\xfe", "\xff", "'; --", "a", "aa", strings.Repeat("k", 1024),
	}
	want := map[string]int{}
	for i, part := range parts {
		other := parts[(i+1)%len(parts)]
		s.add(entry(part, other, part), entry(part, other, other))
		want[part] = 10
	}
	taken, err := s.Take(s.ctx, want, lease)
	if err != nil || len(taken) != len(parts) {
		s.Fatalf("take: got %d entries, error %v, want %d", len(taken), err, len(parts))
	}
	for _, t := range taken {
		wanted := entry(t.Service, t.AppID, t.Service) // the first one has this id
		if t.QueueKey != wanted.QueueKey || !bytes.Equal(t.Payload, wanted.Payload) {
			s.Errorf("taken: got %+v, want %+v", t.QueueEntry, wanted)
		}
		s.settle(t, store.QueueDelivered, 0)
	}
	for i, part := range parts {
		other := parts[(i+1)%len(parts)]
		key := entry(part, other, other).QueueKey
		s.found(key)
		total, listed, err := s.List(s.ctx, store.QueueFilter{Service: part}, 0, 10)
		if err != nil || total != 1 || len(listed) != 1 || listed[0].QueueKey != key {
			s.Errorf("list of %.20q: got %d, %v, error %v, want 1", part, total, listed, err)
		}
		s.noError("revive", s.Revive(s.ctx, key))
		s.noError("drop", s.Drop(s.ctx, key))
	}
	s.wantEmpty()
}

// queuePayloads: no byte to 2 MiB, with all bytes. All are in one lane.
func queuePayloads(s queueSuite) {
	var payloads [][]byte
	for i, n := range []int{0, 1, 255, 4095, 4096, 65536, 1 << 20, 2 << 20} {
		payload := make([]byte, n)
		for i := range payload {
			payload[i] = byte(i * 7 >> (i % 5))
		}
		payloads = append(payloads, payload)
		e := entry("orders", "a", string(rune('1'+i)))
		e.Payload = payload
		s.add(e)
	}
	for i, payload := range payloads {
		id := string(rune('1' + i))
		t := s.takeOne("orders", id)
		if !bytes.Equal(t.Payload, payload) || !bytes.Equal(s.found(t.QueueKey).Payload, payload) {
			s.Errorf("payload of %d bytes: got %d other ones", len(payload), len(t.Payload))
		}
		s.settle(t, store.QueueDelivered, 0)
	}
	s.wantEmpty()
}

// queueEntriesAreCopied changes each slice that was given to the queue or
// returned by it. The stored payload must not change.
func queueEntriesAreCopied(s queueSuite) {
	e := entry("orders", "a", "1")
	s.add(e)
	want := bytes.Clone(e.Payload)
	check := func(what string, payload []byte) {
		s.Helper()
		if got := s.found(e.QueueKey).Payload; !bytes.Equal(got, want) {
			s.Fatalf("%s: got %q, want %q", what, got, want)
		}
		clear(payload)
		if got := s.found(e.QueueKey).Payload; !bytes.Equal(got, want) {
			s.Fatalf("%s was not copied: got %q, want %q", what, got, want)
		}
	}
	check("add", e.Payload)
	check("find", s.found(e.QueueKey).Payload)
	scribble := func(e store.QueueEntry) bool { clear(e.Payload); return true }
	s.noError("scan", s.Scan(s.ctx, scribble))
	check("scan", nil)
	replaced := []byte("replaced")
	s.noError("replace", s.Replace(s.ctx, e.QueueKey, want, replaced))
	want = []byte("replaced")
	check("replace", replaced)
	check("take", s.takeOne("orders", "1").Payload)
	s.noError("drop", s.Drop(s.ctx, e.QueueKey))
	e.Payload = bytes.Clone(want)
	s.noError("restore", s.Restore(s.ctx, e))
	check("restore", e.Payload)
}

// queueErrorsAreCut: ASCII, characters of three bytes, invalid UTF-8, each
// short × 200 bytes × longer. What is stored is at most 200 bytes of valid
// UTF-8, and the beginning of what was given.
func queueErrorsAreCut(s queueSuite) {
	s.addIDs("orders", "a", "1")
	for _, text := range []string{
		"", "x", strings.Repeat("x", 200), strings.Repeat("x", 201),
		strings.Repeat("账", 66) + "ab", strings.Repeat("账", 67),
		strings.Repeat("账", 1000),
		"\xff", strings.Repeat("\xff", 1000),
	} {
		o := store.QueueOutcome{Result: store.QueueFailed, Error: text}
		t := s.takeWhenDue("orders", "1")
		s.noError("settle", s.Settle(s.ctx, t, o))
		if got, want := s.found(t.QueueKey).Error, o.Cut().Error; got != want || len(got) > 200 {
			s.Errorf("error %.20q: got %q, want %q", text, got, want)
		}
	}
	valid := strings.Repeat("账", 66)
	if got := (store.QueueOutcome{Error: valid + "账"}).Cut().Error; got != valid {
		s.Errorf("cut: got %q, want whole characters", got)
	}
	got := store.QueueOutcome{Error: strings.Repeat("\xff", 300), Pause: time.Hour}.Cut()
	if strings.ToValidUTF8(got.Error, "") != got.Error || got.Pause != store.MaxQueuePause {
		s.Errorf("cut: got %q, %v, want valid UTF-8 and the longest pause", got.Error, got.Pause)
	}
}

// sortedKeys returns the keys of entries as text, sorted.
func sortedKeys(entries []store.QueueEntry) []string {
	var keys []string
	for _, e := range entries {
		keys = append(keys, e.String())
	}
	slices.Sort(keys)
	return keys
}

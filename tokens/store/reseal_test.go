package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"wxproxy/tokens/store"
)

// keyed seals inner with keys, the first of which is the current one.
func keyed(t *testing.T, inner store.Store, keys ...[]byte) store.Store {
	t.Helper()
	s, err := store.Seal(t.Context(), inner, keys[0], keys[1:]...)
	if err != nil {
		t.Fatalf("Seal: %v", err)
	}
	return s
}

// reseal seals all records with the key of the store.
func reseal(t *testing.T, s store.Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(writerFunc, 1)
	r, ok := store.As[store.Resealer](s)
	if !ok {
		t.Fatal("the store is no Resealer")
	}
	ended := make(chan struct{})
	go func() {
		r.Reseal(ctx, slog.New(slog.NewTextHandler(done, nil)))
		close(ended)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Minute): // of the bubble's time
		t.Error("timeout: re-sealing")
	}
	cancel()
	<-ended
}

// writerFunc receives a value when the log says that all records are sealed.
type writerFunc chan struct{}

func (w writerFunc) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("all records are sealed")) {
		w <- struct{}{}
	}
	return len(p), nil
}

// left returns how many records are not sealed with key, and how many are
// damaged.
func left(t *testing.T, inner store.Store, key []byte, previous ...[]byte) (n, damaged int) {
	t.Helper()
	check := func(string, []byte) error { return nil }
	report := func(d store.Damage) { t.Log(d) }
	v, err := store.Verify(t.Context(), inner, key, previous, check, report)
	if err != nil {
		t.Fatalf("Verify: %v", err)
	}
	return v.Previous, v.Damaged
}

// The key of a store is changed, as docs/operating.md says: records of both
// forms and keys are read, all of them are sealed with the new key, and the old
// one is not needed any more. Until then a start without it is refused.
func TestKeyChange(t *testing.T) { synctest.Test(t, testKeyChange) }

func testKeyChange(t *testing.T) {
	oldKey, newKey := sealKey, wrongKey
	for _, first := range []string{"version 1", "version 2"} {
		inner := store.NewMemory()
		if first == "version 1" {
			storePut(t, inner, "a", unbase64(t, sealedOne))
			storePut(t, inner, "seal/check", unbase64(t, sealedCheck))
		} else {
			storePut(t, keyed(t, inner, oldKey), "a", "one")
		}
		for i := range 100 {
			storePut(t, keyed(t, inner, oldKey), fmt.Sprint("k", i), "old")
		}
		before := storeDump(t, inner)
		s := keyed(t, inner, newKey, oldKey)
		if storeDump(t, inner) != before {
			t.Error("Seal changed a store with previous_key")
		}
		storePut(t, s, "k0", "new")
		if n, damaged := left(t, inner, newKey, oldKey); n != 100 || damaged != 0 {
			t.Errorf("%s: got %d records left and %d damaged, want 100 and 0", first, n, damaged)
		}
		_, err := store.Seal(t.Context(), inner, newKey)
		if !errors.Is(err, store.ErrWrongKey) || !mentions(err, `"a"`, "previous_key") {
			t.Errorf("%s: Seal without the key before: got error %v, want ErrWrongKey", first, err)
		}
		if _, err := store.Seal(t.Context(), inner, oldKey); !errors.Is(err, store.ErrWrongKey) {
			t.Errorf("%s: Seal with the old key: got error %v, want ErrWrongKey", first, err)
		}
		reseal(t, s)
		if n, damaged := left(t, inner, newKey); n != 0 || damaged != 0 {
			t.Errorf("%s: got %d records left and %d damaged, want none", first, n, damaged)
		}
		text := storeDump(t, keyed(t, inner, newKey))
		if strings.Count(text, `"old"`) != 99 || !strings.Contains(text, `"a": "one"`) {
			t.Errorf("%s: afterwards: got %s", first, text)
		}
	}
}

// Replicas change the key one by one: each gets the new key as previous_key
// first, then both change places, then the old one is removed. All that run
// concurrently read what the others write, and none finds a damaged record.
func TestReplicasChangeKeyOneByOne(t *testing.T) { synctest.Test(t, testReplicasChangeKey) }

func testReplicasChangeKey(t *testing.T) {
	oldKey, newKey := sealKey, wrongKey
	inner := store.NewMemory()
	steps := [][][]byte{{oldKey}, {oldKey, newKey}, {newKey, oldKey}, {newKey}}
	replicas := []store.Store{keyed(t, inner, oldKey), keyed(t, inner, oldKey)}
	writeAndRead := func(step string) {
		t.Helper()
		for i, s := range replicas {
			storePut(t, s, fmt.Sprint("by", i), step)
			for j, other := range replicas {
				if got, err := other.Load(t.Context(), fmt.Sprint("by", i)); string(got) != step {
					t.Errorf("%s: replica %d reads of %d: got %q, error %v", step, j, i, got, err)
				}
			}
		}
	}
	for i, keys := range steps[1:] {
		for r := range replicas {
			replicas[r] = keyed(t, inner, keys...)
			writeAndRead(fmt.Sprintf("step %d, replica %d", i+1, r))
		}
		// One is restarted with the configuration of the step before.
		if i == 1 {
			replicas[0] = keyed(t, inner, steps[1]...)
			writeAndRead("outdated configuration")
			reseal(t, replicas[1])
		}
	}
	if n, damaged := left(t, inner, newKey); n != 0 || damaged != 0 {
		t.Errorf("got %d records left and %d damaged, want none", n, damaged)
	}
}

// A process that has only the old key does not touch what others have sealed
// with the new one, and says so. Garbage in the place of a key id is damage.
func TestForeignRecordIsNotMoved(t *testing.T) {
	inner := store.NewMemory()
	old := keyed(t, inner, sealKey)
	storePut(t, old, "a", "one")
	storePut(t, keyed(t, inner, wrongKey, sealKey), "a", "two")
	_, load := old.Load(t.Context(), "a")
	update := old.Update(t.Context(), "a", replaceWith("three"))
	for name, err := range map[string]error{"load": load, "update": update} {
		if !errors.Is(err, store.ErrForeignKey) || errors.Is(err, store.ErrDamaged) {
			t.Errorf("%s: got error %v, want ErrForeignKey", name, err)
		}
	}
	s := keyed(t, inner, wrongKey, sealKey)
	if got, err := s.Load(t.Context(), "a"); string(got) != "two" {
		t.Errorf("afterwards: got %q, error %v, want two", got, err)
	}
	raw, err := inner.Load(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	for at := range 9 { // version and key id
		flipped := bytes.Clone(raw)
		flipped[at] ^= 4
		storePut(t, inner, "a", string(flipped))
		if _, err := s.Load(t.Context(), "a"); !errors.Is(err, store.ErrDamaged) {
			t.Errorf("byte %d flipped: got error %v, want ErrDamaged", at, err)
		}
	}
}

// A replica notices up to ten seconds late that another one has changed the
// key, and writes records with the key before until then, also behind the last
// record that was looked at. Delay 0–10 s × a replica with both keys, or with
// the one before alone. When all records are said to be sealed with the new key,
// none is left, and none appears.
func TestRecordsWrittenWhileTheKeyChanges(t *testing.T) {
	for _, previous := range [][][]byte{{wrongKey}, nil} {
		for delay := range 11 {
			synctest.Test(t, func(t *testing.T) {
				inner := store.NewMemory()
				late := keyed(t, inner, append([][]byte{sealKey}, previous...)...)
				for i := range 10 {
					storePut(t, late, fmt.Sprint("k", i), "old")
				}
				s := keyed(t, inner, wrongKey, sealKey)
				storePut(t, s, "k5", "new")
				put := func(key string) { _ = late.Update(t.Context(), key, replaceWith("late")) }
				at := time.Duration(delay)*time.Second - time.Millisecond
				time.AfterFunc(at, func() { put("a") })
				reseal(t, s)
				put("b")
				n, damaged := left(t, inner, wrongKey, sealKey)
				if n != 0 || damaged != 0 {
					t.Errorf("%d other keys, written after %d s: got %d records left and %d "+
						"damaged, want none", len(previous), delay, n, damaged)
				}
			})
		}
	}
}

// A check record that was damaged does not keep a running process from writing.
func TestDamagedCheckDoesNotStopWrites(t *testing.T) {
	for at := range 20 {
		synctest.Test(t, func(t *testing.T) {
			inner := store.NewMemory()
			s := seal(t, inner)
			storePut(t, s, "a", "one")
			raw, err := inner.Load(t.Context(), "seal/check")
			if err != nil {
				t.Fatal(err)
			}
			raw[at] ^= 4
			storePut(t, inner, "seal/check", string(raw))
			for range 3 {
				time.Sleep(time.Minute)
				storePut(t, s, "a", "two")
			}
		})
	}
}

// The key is changed before or while an export runs, and all records are sealed
// with the new one before it ends. What was imported does not start without the
// key before until all of it is sealed with the new one, too.
func TestExportWhileTheKeyChanges(t *testing.T) {
	for _, before := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			inner, copied := store.NewMemory(), store.NewMemory()
			first := bytes.Repeat([]byte{9}, store.KeySize)
			storePut(t, keyed(t, inner, first), "k0", "first")
			old := keyed(t, inner, sealKey, first)
			for i := range 10 {
				storePut(t, old, fmt.Sprint("k", i), "old")
			}
			reseal(t, old)
			s := keyed(t, inner, wrongKey, sealKey)
			if before {
				storePut(t, s, "k9", "new")
			}
			exporter, _ := store.As[store.Exporter](s)
			_, err := exporter.Export(t.Context(), func(key string, sealed []byte) error {
				storePut(t, copied, key, string(sealed))
				if key == "k4" { // a memory may be used meanwhile
					storePut(t, s, "k9", "new")
					reseal(t, s)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			_, err = store.Seal(t.Context(), copied, wrongKey)
			if !errors.Is(err, store.ErrWrongKey) {
				t.Errorf("changed before %v: start without the old key: got error %v, "+
					"want ErrWrongKey", before, err)
			}
			reseal(t, keyed(t, copied, wrongKey, sealKey))
			if n, damaged := left(t, copied, wrongKey, sealKey); n != 0 || damaged != 0 {
				t.Errorf("changed before %v: got %d records left and %d damaged, want none",
					before, n, damaged)
			}
		})
	}
}

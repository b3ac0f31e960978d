package store_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/storetest"
)

// sealKey seals the stores of these tests; wrongKey does not open them.
var (
	sealKey  = bytes.Repeat([]byte{1}, store.KeySize)
	wrongKey = bytes.Repeat([]byte{2}, store.KeySize)
)

// seal returns inner sealed with sealKey.
func seal(t testing.TB, inner store.Store) store.Store {
	t.Helper()
	s, err := store.Seal(t.Context(), inner, sealKey)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func storePut(t testing.TB, s store.Store, key, record string) {
	t.Helper()
	err := s.Update(t.Context(), key, replaceWith(record))
	if err != nil {
		t.Fatal(err)
	}
}

func replaceWith(record string) store.UpdateFunc {
	return func(context.Context, []byte) ([]byte, error) { return []byte(record), nil }
}

func deleteRecord(context.Context, []byte) ([]byte, error) { return nil, nil }

// mentions reports whether err is an error whose text contains all parts.
func mentions(err error, parts ...string) bool {
	for _, part := range parts {
		if err == nil || !strings.Contains(err.Error(), part) {
			return false
		}
	}
	return err != nil
}

// storeDump returns the content of s as text, one record per line.
func storeDump(t testing.TB, s store.Store) string {
	t.Helper()
	var b strings.Builder
	err := s.List(t.Context(), "", "", func(key string, record []byte) bool {
		fmt.Fprintf(&b, "%q: %q\n", key, record)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestSealedStoreContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return seal(t, store.NewMemory()) })
}

func TestSealedRecordsAreEncrypted(t *testing.T) {
	inner := store.NewMemory()
	s := seal(t, inner)
	storePut(t, s, "account/wx0", "a refresh token")
	first := storeDump(t, inner)
	if strings.Contains(first, "refresh") || !strings.Contains(first, "account/wx0") {
		t.Errorf("inner store: got %s, want the key readable and the record not", first)
	}
	if got, want := storeDump(t, s), `"account/wx0": "a refresh token"`+"\n"; got != want {
		t.Errorf("sealed store: got %s, want %s", got, want)
	}
	storePut(t, s, "account/wx0", "a refresh token")
	if storeDump(t, inner) == first {
		t.Error("sealing a record twice gave the same bytes")
	}
}

func TestSealAgainWithTheSameKey(t *testing.T) {
	inner := store.NewMemory()
	storePut(t, seal(t, inner), "a", "one")
	if got, err := seal(t, inner).Load(t.Context(), "a"); err != nil || string(got) != "one" {
		t.Errorf("got %q, error %v, want one", got, err)
	}
}

// TestConcurrentSealsAgreeOnOneKey: of replicas that start on an empty store
// with two different keys, those with one of the keys succeed.
func TestConcurrentSealsAgreeOnOneKey(t *testing.T) {
	inner := store.NewMemory()
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			key := sealKey
			if i%2 == 1 {
				key = wrongKey
			}
			s, err := store.Seal(t.Context(), inner, key)
			switch {
			case err == nil:
				storePut(t, s, fmt.Sprint("k", i), "one")
			case !errors.Is(err, store.ErrWrongKey):
				t.Error(err)
			}
		})
	}
	all.Wait()
	keys := 0
	for _, key := range [][]byte{sealKey, wrongKey} {
		if s, err := store.Seal(t.Context(), inner, key); err == nil {
			keys++
			if n := strings.Count(storeDump(t, s), "\n"); n != 10 {
				t.Errorf("got %d records, want 10", n)
			}
		}
	}
	if keys != 1 {
		t.Errorf("%d keys open the store, want 1", keys)
	}
}

func TestSealChecksTheKey(t *testing.T) {
	one := func(inner store.Store) { storePut(t, seal(t, inner), "a", "one") }
	for name, c := range map[string]struct {
		prepare func(inner store.Store)
		key     []byte
		want    error // nil: Seal succeeds
	}{
		"empty":       {func(store.Store) {}, wrongKey, nil},
		"same key":    {one, sealKey, nil},
		"another key": {one, wrongKey, store.ErrWrongKey},
		"another key, no records": {
			func(inner store.Store) { seal(t, inner) }, wrongKey, store.ErrWrongKey},
		"check record lost": {func(inner store.Store) {
			one(inner)
			remove(t, inner, "seal/check")
		}, sealKey, nil},
		"check record lost, another key": {func(inner store.Store) {
			one(inner)
			remove(t, inner, "seal/check")
		}, wrongKey, store.ErrWrongKey},
		"never sealed": {func(inner store.Store) {
			storePut(t, inner, "a", `{"v":1}`)
		}, sealKey, store.ErrCorrupt},
		"invalid check record": {func(inner store.Store) {
			storePut(t, inner, "seal/check", "\x00")
		}, sealKey, store.ErrCorrupt},
		"check record of a newer version": {func(inner store.Store) {
			storePut(t, inner, "seal/check", "\x03"+strings.Repeat("x", 99))
		}, sealKey, store.ErrCorrupt},
		"other record as check record": {func(inner store.Store) {
			one(inner)
			sealed, err := inner.Load(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			storePut(t, inner, "seal/check", string(sealed))
		}, sealKey, nil},
		"other record as check record, another key": {func(inner store.Store) {
			one(inner)
			sealed, err := inner.Load(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			storePut(t, inner, "seal/check", string(sealed))
		}, wrongKey, store.ErrWrongKey},
		"damaged check record": {func(inner store.Store) {
			one(inner)
			storePut(t, inner, "seal/check", "garbage")
		}, sealKey, nil},
		"damaged check record, another key": {func(inner store.Store) {
			one(inner)
			storePut(t, inner, "seal/check", "garbage")
		}, wrongKey, store.ErrWrongKey},
	} {
		t.Run(name, func(t *testing.T) {
			inner := store.NewMemory()
			c.prepare(inner)
			before := storeDump(t, inner)
			_, err := store.Seal(t.Context(), inner, c.key)
			if !errors.Is(err, c.want) {
				t.Errorf("got error %v, want %v", err, c.want)
			}
			if c.want != nil && storeDump(t, inner) != before {
				t.Error("Seal wrote to a store that it rejected")
			}
			if err := inner.Ping(t.Context()); err != nil {
				t.Errorf("inner store after Seal: got error %v, want it open", err)
			}
		})
	}
	for _, n := range []int{0, 16, 31, 33} {
		if _, err := store.Seal(t.Context(), store.NewMemory(), make([]byte, n)); err == nil {
			t.Errorf("a key of %d bytes was accepted", n)
		}
	}
}

func remove(t *testing.T, s store.Store, key string) {
	t.Helper()
	err := s.Update(t.Context(), key, deleteRecord)
	if err != nil {
		t.Fatal(err)
	}
}

// TestDamagedSealedRecordIsCorrupt flips each bit of a sealed record, and moves
// a record to another key.
//
// Load and Update report it, List goes on, and Update moves it as it is.
func TestDamagedSealedRecordIsMoved(t *testing.T) {
	inner := store.NewMemory()
	s := seal(t, inner)
	storePut(t, s, "a", "one")
	storePut(t, s, "b", "two")
	sealed, err := inner.Load(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	damage := []string{"\x00", string(sealed[:len(sealed)-1]), string(sealed) + "x"}
	for i := range 8 * len(sealed) {
		flipped := bytes.Clone(sealed)
		flipped[i/8] ^= 1 << (i % 8)
		damage = append(damage, string(flipped))
	}
	moved, err := inner.Load(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	damage = append(damage, string(moved))
	storePut(t, s, "c", "three")
	for _, d := range damage {
		storePut(t, inner, "b", d)
		_, load := s.Load(t.Context(), "b")
		var listed []string
		err := s.List(t.Context(), "", "", func(key string, record []byte) bool {
			listed = append(listed, fmt.Sprintf("%s=%s", key, record))
			return true
		})
		if err != nil || fmt.Sprint(listed) != "[a=one b= c=three]" {
			t.Fatalf("listed with %q: got %q, error %v, want b without a record", d, listed, err)
		}
		update := s.Update(t.Context(), "b", func(context.Context, []byte) ([]byte, error) {
			t.Error("fn was called with a damaged record")
			return nil, nil
		})
		for name, err := range map[string]error{"load": load, "update": update} {
			if !errors.Is(err, store.ErrDamaged) || !mentions(err, `"b"`) {
				t.Fatalf("%s of %q: got error %v, want ErrDamaged with the key", name, d, err)
			}
		}
		if _, err := inner.Load(t.Context(), "b"); !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("damaged record: got error %v, want ErrNotFound", err)
		}
		if got, err := inner.Load(t.Context(), "damaged/b"); err != nil || string(got) != d {
			t.Fatalf("moved record: got %q, error %v, want it unchanged", got, err)
		}
	}
	storePut(t, s, "b", "two")
	want := "\"a\": \"one\"\n\"b\": \"two\"\n\"c\": \"three\"\n"
	if got := storeDump(t, s); got != want {
		t.Errorf("afterwards: got %s, want %s", got, want)
	}
}

func TestSealKeysAreHidden(t *testing.T) {
	s := seal(t, store.NewMemory())
	if _, err := s.Load(t.Context(), "seal/check"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("load of the check record: got error %v, want ErrNotFound", err)
	}
	for _, key := range []string{"seal/check", "damaged/a"} {
		if err := s.Update(t.Context(), key, deleteRecord); err == nil {
			t.Errorf("an update of %s succeeded", key)
		}
	}
	if got := storeDump(t, s); got != "" {
		t.Errorf("listed: got %s, want nothing", got)
	}
}

// These were sealed with sealKey by an earlier version: the record "one" under
// the key "a", and the check record. Stores in use hold such records.
const (
	sealedOne   = "AcP/ACa+j66oRHGmiK2EMBynLxV0FEk2A6Fo8mCDFT0="
	sealedCheck = "AQk/tJ+B1t2pdScR3jgOf9hcjfdZ9qnbecuSNJfWXi0qV3GKVDdIQqcicletdd02J" +
		"+nry8bkmj9OF4gLG1Qajusv8RIMFRjJ52JT3phmjsOJab1N6UHKLaaAVbs1cQ=="
)

func unbase64(t testing.TB, text string) string {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestRecordsSealedEarlierOpen(t *testing.T) {
	inner := store.NewMemory()
	storePut(t, inner, "a", unbase64(t, sealedOne))
	storePut(t, inner, "seal/check", unbase64(t, sealedCheck))
	if got, err := seal(t, inner).Load(t.Context(), "a"); err != nil || string(got) != "one" {
		t.Errorf("got %q, error %v, want one", got, err)
	}
	if _, err := store.Seal(t.Context(), inner, wrongKey); !errors.Is(err, store.ErrWrongKey) {
		t.Errorf("wrong key: got error %v, want ErrWrongKey", err)
	}
}

// FuzzUnseal: bytes that were not sealed with the key never open.
func FuzzUnseal(f *testing.F) {
	sealed := unbase64(f, sealedOne)
	for _, seed := range []string{sealed, sealed[:29], "\x01", "\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b string) {
		if b == "" {
			return // an empty record is Keep
		}
		inner := store.NewMemory()
		s := seal(t, inner)
		storePut(t, inner, "a", b)
		got, err := s.Load(t.Context(), "a")
		if b == sealed {
			if err != nil || string(got) != "one" {
				t.Errorf("got %q, error %v, want one", got, err)
			}
		} else if !errors.Is(err, store.ErrDamaged) || got != nil {
			t.Errorf("%q: got %q, error %v, want ErrDamaged", b, got, err)
		}
	})
}

// TestClaimsAreHashed: the inner store sees neither the key of a claim, nor a
// name that depends on the sealing key.
func TestClaimsAreHashed(t *testing.T) {
	inner := &claimRecorder{Store: store.NewMemory()}
	const key = "confidential"
	until := time.Now().Add(time.Hour)
	for range 2 {
		if _, err := seal(t, inner).Claim(t.Context(), key, until); err != nil {
			t.Fatal(err)
		}
	}
	const want = "tF37_zhapvD29JhBSIQn4VauoGQB4jImQbCW7NY_BN0"
	if got := inner.claims; len(got) != 2 || got[0] != want || got[1] != want {
		t.Errorf("claims in the inner store: got %q, want twice %q", got, want)
	}
}

type claimRecorder struct {
	store.Store
	claims []string
}

func (r *claimRecorder) Claim(ctx context.Context, key string, until time.Time) (bool, error) {
	r.claims = append(r.claims, key)
	return r.Store.Claim(ctx, key, until)
}

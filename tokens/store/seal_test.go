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

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/storetest"
)

// Two keys for stores of the tests below.
var (
	sealKey  = bytes.Repeat([]byte{1}, store.KeySize)
	wrongKey = bytes.Repeat([]byte{2}, store.KeySize)
)

func sealed(t testing.TB, inner store.Store) store.Store {
	t.Helper()
	s, err := store.Seal(t.Context(), inner, sealKey)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func storePut(t testing.TB, s store.Store, key, record string) {
	t.Helper()
	err := s.Update(t.Context(), key, func(context.Context, []byte) ([]byte, error) { return []byte(record), nil })
	if err != nil {
		t.Fatal(err)
	}
}

// storeDump gives all that is in a store as text.
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

func TestSealed(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return sealed(t, store.NewMemory()) })
}

func TestSealHides(t *testing.T) {
	inner := store.NewMemory()
	s := sealed(t, inner)
	storePut(t, s, "account/wx0", "a refresh token")
	first := storeDump(t, inner)
	if strings.Contains(first, "refresh") || !strings.Contains(first, "account/wx0") {
		t.Errorf("what is stored: %s", first)
	}
	if got := storeDump(t, s); got != `"account/wx0": "a refresh token"`+"\n" {
		t.Errorf("what is listed: %s", got)
	}
	storePut(t, s, "account/wx0", "a refresh token")
	if storeDump(t, inner) == first {
		t.Error("sealing the same twice gives the same")
	}
}

func TestSealTwice(t *testing.T) {
	inner := store.NewMemory()
	storePut(t, sealed(t, inner), "a", "one")
	if got, err := sealed(t, inner).Load(t.Context(), "a"); err != nil || string(got) != "one" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestSealedAtOnce: replicas that start on an empty store agree on one check record.
func TestSealedAtOnce(t *testing.T) {
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
				t.Errorf("%d records", n)
			}
		}
	}
	if keys != 1 {
		t.Errorf("%d keys open the store", keys)
	}
}

func TestSealRefuses(t *testing.T) {
	one := func(inner store.Store) { storePut(t, sealed(t, inner), "a", "one") }
	for name, c := range map[string]struct {
		prepare func(inner store.Store)
		key     []byte
		want    error // nil: it is to open
	}{
		"empty":                      {func(store.Store) {}, wrongKey, nil},
		"its key":                    {one, sealKey, nil},
		"another key":                {one, wrongKey, store.ErrWrongKey},
		"another key, nothing in it": {func(inner store.Store) { sealed(t, inner) }, wrongKey, store.ErrWrongKey},
		"the check is lost": {func(inner store.Store) {
			one(inner)
			remove(t, inner, "seal/check")
		}, sealKey, nil},
		"the check is lost, another key": {func(inner store.Store) {
			one(inner)
			remove(t, inner, "seal/check")
		}, wrongKey, store.ErrWrongKey},
		"never sealed":       {func(inner store.Store) { storePut(t, inner, "a", `{"v":1}`) }, sealKey, store.ErrCorrupt},
		"an empty check":     {func(inner store.Store) { storePut(t, inner, "seal/check", "\x00") }, sealKey, store.ErrCorrupt},
		"a check of a newer": {func(inner store.Store) { storePut(t, inner, "seal/check", "\x02"+strings.Repeat("x", 99)) }, sealKey, store.ErrCorrupt},
		"a record as the check": {func(inner store.Store) {
			one(inner)
			box, err := inner.Load(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			storePut(t, inner, "seal/check", string(box))
		}, sealKey, store.ErrWrongKey},
	} {
		t.Run(name, func(t *testing.T) {
			inner := store.NewMemory()
			c.prepare(inner)
			before := storeDump(t, inner)
			_, err := store.Seal(t.Context(), inner, c.key)
			if !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if c.want != nil && storeDump(t, inner) != before {
				t.Error("it has written")
			}
			if err := inner.Ping(t.Context()); err != nil {
				t.Errorf("it has closed the store: %v", err)
			}
		})
	}
	for _, n := range []int{0, 16, 31, 33} {
		if _, err := store.Seal(t.Context(), store.NewMemory(), make([]byte, n)); err == nil {
			t.Errorf("a key of %d bytes", n)
		}
	}
}

func remove(t *testing.T, s store.Store, key string) {
	t.Helper()
	err := s.Update(t.Context(), key, func(context.Context, []byte) ([]byte, error) { return nil, nil })
	if err != nil {
		t.Fatal(err)
	}
}

// TestSealDamage: each bit of a sealed record matters, and so does the key it is under.
func TestSealDamage(t *testing.T) {
	inner := store.NewMemory()
	s := sealed(t, inner)
	storePut(t, s, "a", "one")
	storePut(t, s, "b", "two")
	box, err := inner.Load(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	damage := []string{"\x00", string(box[:len(box)-1]), string(box) + "x"}
	for i := range 8 * len(box) {
		flipped := bytes.Clone(box)
		flipped[i/8] ^= 1 << (i % 8)
		damage = append(damage, string(flipped))
	}
	moved, err := inner.Load(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	damage = append(damage, string(moved))
	for _, d := range damage {
		storePut(t, inner, "b", d)
		_, load := s.Load(t.Context(), "b")
		var listed []string
		list := s.List(t.Context(), "", "", func(key string, _ []byte) bool { listed = append(listed, key); return true })
		update := s.Update(t.Context(), "b", func(context.Context, []byte) ([]byte, error) {
			t.Error("fn was called")
			return nil, nil
		})
		for name, err := range map[string]error{"load": load, "list": list, "update": update} {
			if !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), `"b"`) {
				t.Fatalf("%s of %q: %v", name, d, err)
			}
		}
		if fmt.Sprint(listed) != "[a]" {
			t.Fatalf("listed: %q", listed)
		}
		if got, err := inner.Load(t.Context(), "b"); err != nil || string(got) != d {
			t.Fatalf("it was overwritten: %q, %v", got, err)
		}
	}
	// A list that does not come so far is none the worse.
	if err := s.List(t.Context(), "", "", func(string, []byte) bool { return false }); err != nil {
		t.Error(err)
	}
}

func TestSealsOwnKeys(t *testing.T) {
	s := sealed(t, store.NewMemory())
	if _, err := s.Load(t.Context(), "seal/check"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the check record: %v", err)
	}
	err := s.Update(t.Context(), "seal/check", func(context.Context, []byte) ([]byte, error) { return nil, nil })
	if err == nil {
		t.Error("the check record was deleted")
	}
	if got := storeDump(t, s); got != "" {
		t.Errorf("listed: %s", got)
	}
}

// What an earlier wxproxy sealed with sealKey: "one" under the key "a", and the check. Stores that are in
// use hold such records.
const (
	sealedOne   = "AcP/ACa+j66oRHGmiK2EMBynLxV0FEk2A6Fo8mCDFT0="
	sealedCheck = "AQk/tJ+B1t2pdScR3jgOf9hcjfdZ9qnbecuSNJfWXi0qV3GKVDdIQqcicletdd02J+nry8bkmj9OF4gLG1Qajusv8RIMFRjJ52JT3phmjsOJab1N6UHKLaaAVbs1cQ=="
)

func unbase64(t testing.TB, text string) string {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestSealedEarlier(t *testing.T) {
	inner := store.NewMemory()
	storePut(t, inner, "a", unbase64(t, sealedOne))
	storePut(t, inner, "seal/check", unbase64(t, sealedCheck))
	if got, err := sealed(t, inner).Load(t.Context(), "a"); err != nil || string(got) != "one" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := store.Seal(t.Context(), inner, wrongKey); !errors.Is(err, store.ErrWrongKey) {
		t.Error(err)
	}
}

// FuzzUnseal: no box that we did not seal opens, and none crashes.
func FuzzUnseal(f *testing.F) {
	box := unbase64(f, sealedOne)
	for _, seed := range []string{box, box[:29], "\x01", "\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b string) {
		if b == "" {
			return // Keep
		}
		inner := store.NewMemory()
		s := sealed(t, inner)
		storePut(t, inner, "a", b)
		got, err := s.Load(t.Context(), "a")
		if b == box {
			if err != nil || string(got) != "one" {
				t.Errorf("%q, %v", got, err)
			}
		} else if !errors.Is(err, store.ErrCorrupt) || got != nil {
			t.Errorf("%q opens as %q, %v", b, got, err)
		}
	})
}

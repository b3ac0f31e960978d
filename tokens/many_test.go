package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// watched is a store that counts what is read by List, and can be told to fail.
type watched struct {
	store.Store
	read atomic.Int64
	away atomic.Bool
}

func (w *watched) List(ctx context.Context, prefix, after string, yield func(string, []byte) bool) error {
	if w.away.Load() {
		return errors.New("away")
	}
	return w.Store.List(ctx, prefix, after, func(key string, record []byte) bool {
		w.read.Add(1)
		return yield(key, record)
	})
}

// Page after page of very many accounts shows each once, and costs not much more than going through them once.
func TestPagesOfVeryMany(t *testing.T) {
	_, client := newScript(t)
	store := &watched{Store: store.NewMemory()}
	b := authorized(t, store, client, nil)
	const n = 21_500
	for i := range n {
		if _, err := b.Import(t.Context(), fmt.Sprintf("wx%016d", i), wechat.NewSecret("imported")); err != nil {
			t.Fatal(err)
		}
	}
	for _, q := range []string{"wx0000", ""} {
		store.read.Store(0)
		seen, next := map[string]bool{}, 0
		for offset := 0; ; offset += 700 {
			list, total, err := b.List(t.Context(), offset, 700, q)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range list {
				if want := fmt.Sprintf("wx%016d", next); q != "" && a.AppID != want {
					t.Fatalf("offset %d: %s, want %s", offset, a.AppID, want)
				}
				seen[a.AppID] = true
				next++
			}
			if len(list) == 0 {
				if next != total || len(seen) != total || total < n {
					t.Errorf("%q: %d accounts, %d of them different, total %d", q, next, len(seen), total)
				}
				break
			}
		}
		if read := store.read.Load(); read > 5*n {
			t.Errorf("%q: %d records were read for %d accounts", q, read, n)
		}
	}
}

// What cannot be counted is not known, and is neither nothing nor what it was.
func TestCensusWithoutStore(t *testing.T) {
	_, client := newScript(t)
	var c clock
	store := &watched{Store: store.NewMemory()}
	b := authorized(t, store, client, c.use)
	eventually(t, func() bool { active, _, _, known := b.Accounts(); return active == 1 && known })
	store.away.Store(true)
	c.forward(time.Minute)
	if active, _, _, known := b.Accounts(); active != 0 || known {
		t.Error(active, known)
	}
	store.away.Store(false)
	if active, _, _, known := b.Accounts(); active != 1 || !known {
		t.Error(active, known)
	}
}

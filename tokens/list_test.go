package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"wxproxy/tokens"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// countingStore counts the records that List yields, and can fail.
type countingStore struct {
	store.Store
	read atomic.Int64
	down atomic.Bool
}

func (s *countingStore) List(
	ctx context.Context, prefix, after string, yield func(string, []byte) bool,
) error {
	if s.down.Load() {
		return errors.New("store is down")
	}
	return s.Store.List(ctx, prefix, after, func(key string, record []byte) bool {
		s.read.Add(1)
		return yield(key, record)
	})
}

// importAccounts adds n accounts with numbers as appids.
func importAccounts(t *testing.T, b *tokens.Broker, n int) {
	t.Helper()
	for i := range n {
		if _, err := b.Import(t.Context(), fmt.Sprintf("wx%016d", i), wechat.NewSecret("imported")); err != nil {
			t.Fatalf("Import: %v", err)
		}
	}
}

func TestList(t *testing.T) {
	_, client := newFakeWeChat(t)
	b := newAuthorized(t, store.NewMemory(), client, nil)
	importAccounts(t, b, 25)
	all, named := tokens.AccountFilter{}, tokens.AccountFilter{Query: "店"}
	list, total, err := b.List(t.Context(), 20, 10, tokens.AccountFilter{Query: "wx00"})
	if err != nil || total != 25 || len(list) != 5 {
		t.Fatalf("List(20, 10, wx00): got %d of %d accounts, error %v, want 5 of 25", len(list), total, err)
	}
	if a := list[0]; a.AppID != "wx0000000000000020" || a.Kind != tokens.Authorizer {
		t.Errorf("List: got %s of kind %v first, want wx0000000000000020 of kind %v",
			a.AppID, a.Kind, tokens.Authorizer)
	}
	if list, total, err = b.List(t.Context(), 0, 3, all); err != nil || len(list) != 3 || total < 26 {
		t.Errorf("List(0, 3): got %d of %d accounts, error %v, want 3 of 26 or more", len(list), total, err)
	}
	if _, err := b.Account(t.Context(), accountA); err != nil { // reads its name
		t.Fatalf("Account: %v", err)
	}
	if list, _, err = b.List(t.Context(), 0, 10, named); err != nil || len(list) != 1 || list[0].Name != "店?铺" {
		t.Errorf("List(店): got %+v, error %v, want the account named 店?铺", list, err)
	}
}

// Paging through very many accounts returns each once, and costs not much more
// than reading them once.
func TestPagingReadsEachRecordAboutOnce(t *testing.T) {
	const n, pageSize = 21_500, 700
	_, client := newFakeWeChat(t)
	s := &countingStore{Store: store.NewMemory()}
	b := newAuthorized(t, s, client, nil)
	importAccounts(t, b, n)
	for _, query := range []string{"wx0000", ""} {
		s.read.Store(0)
		seen, next := map[string]bool{}, 0
		for offset := 0; ; offset += pageSize {
			filter := tokens.AccountFilter{Query: query}
			list, total, err := b.List(t.Context(), offset, pageSize, filter)
			if err != nil {
				t.Fatalf("List(%d, %d, %q): %v", offset, pageSize, query, err)
			}
			for _, a := range list {
				if want := fmt.Sprintf("wx%016d", next); query != "" && a.AppID != want {
					t.Fatalf("List(%d, %d, %q): got %s, want %s", offset, pageSize, query, a.AppID, want)
				}
				seen[a.AppID] = true
				next++
			}
			if len(list) == 0 {
				if next != total || len(seen) != total || total < n {
					t.Errorf("query %q: got %d accounts, %d of them different, total %d, want %d or more of each",
						query, next, len(seen), total, n)
				}
				break
			}
		}
		if read := s.read.Load(); read > 5*n {
			t.Errorf("query %q: got %d records read for %d accounts, want %d at most", query, read, n, 5*n)
		}
	}
}

// If the accounts cannot be counted, their number is unknown: neither 0 nor the
// last one.
func TestCountsAreUnknownWithoutStore(t *testing.T) {
	_, client := newFakeWeChat(t)
	var c clock
	s := &countingStore{Store: store.NewMemory()}
	b := newAuthorized(t, s, client, c.use)
	counted := func(wantActive int, wantKnown bool) func() bool {
		return func() bool {
			counts, known := b.Stats().AccountCounts()
			return counts.Active == wantActive && known == wantKnown
		}
	}
	eventually(t, "one active account is counted", counted(1, true))
	s.down.Store(true)
	c.advance(time.Minute)
	eventually(t, "the count is unknown", counted(0, false))
	s.down.Store(false)
	eventually(t, "one active account is counted again", counted(1, true))
}

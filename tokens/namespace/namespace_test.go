package namespace_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"wxproxy/tokens/namespace"
	"wxproxy/tokens/store"
	"wxproxy/tokens/store/storetest"
)

const (
	component = "wxcccccccccccccccc"
	other     = "wxdddddddddddddddd"
	own       = "wx0000000000000000"
	account   = "wxaaaaaaaaaaaaaaaa"
)

var discard = slog.New(slog.DiscardHandler)

// platformOf returns a platform with the given own accounts.
func platformOf(component string, own ...string) namespace.Platform {
	return namespace.Platform{
		Component: component,
		Own:       func(appid string) bool { return slices.Contains(own, appid) },
	}
}

func put(t testing.TB, s store.Store, key, record string) {
	t.Helper()
	err := s.Update(t.Context(), key, func(context.Context, []byte) ([]byte, error) {
		return []byte(record), nil
	})
	if err != nil {
		t.Fatalf("Update(%s): %v", key, err)
	}
}

// contents returns the records of s.
func contents(t testing.TB, s store.Store, prefix, after string) map[string]string {
	t.Helper()
	all, last := map[string]string{}, ""
	err := s.List(t.Context(), prefix, after, func(key string, record []byte) bool {
		if key <= last {
			t.Errorf("List(%q, %q): got %q after %q, want ascending keys", prefix, after, key, last)
		}
		all[key], last = string(record), key
		return true
	})
	if err != nil {
		t.Fatalf("List(%q, %q): %v", prefix, after, err)
	}
	return all
}

func TestStoreContract(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store {
		return namespace.New(store.NewMemory(), platformOf(component, own), discard).Store()
	})
}

// Stores in use hold records of these names. Two platforms in one store see
// the signing keys and their own records, and not those of the other.
func TestNamesInTheDatabase(t *testing.T) {
	inner := store.NewMemory()
	first := namespace.New(inner, platformOf(component, own), discard).Store()
	second := namespace.New(inner, platformOf(other), discard).Store()
	names := map[string]string{
		"account/" + account:     "platform/" + component + "/account/" + account,
		"account/" + component:   "platform/" + component + "/account/" + component,
		"account/" + own:         "own/account/" + own,
		"code/" + account:        "platform/" + component + "/code/" + account,
		"code/" + own:            "platform/" + component + "/code/" + own,
		"spent/abc":              "platform/" + component + "/spent/abc",
		"name/gh_/odd//name":     "platform/" + component + "/name/gh_/odd//name",
		"ticket/" + component:    "platform/" + component + "/ticket/" + component,
		"sync/" + component:      "platform/" + component + "/sync/" + component,
		"kind-of-later/whatever": "platform/" + component + "/kind-of-later/whatever",
		"key/standin":            "key/standin",
	}
	want := map[string]string{}
	for key, stored := range names {
		put(t, first, key, key)
		want[stored] = key
	}
	if got := contents(t, inner, "", ""); !maps.Equal(got, want) {
		t.Errorf("names in the database: got %q, want %q", got, want)
	}
	if got := contents(t, second, "", ""); len(got) != 1 || got["key/standin"] == "" {
		t.Errorf("records of another platform: got %q, want the signing key alone", got)
	}
	for key := range names {
		if got, err := first.Load(t.Context(), key); err != nil || string(got) != key {
			t.Errorf("Load(%s): got %q, error %v, want what was saved", key, got, err)
		}
		_, err := second.Load(t.Context(), key)
		if shared := key == "key/standin"; errors.Is(err, store.ErrNotFound) == shared {
			t.Errorf("Load(%s) of another platform: got error %v", key, err)
		}
	}
}

// An account that becomes an own account, and an authorizer again, finds the
// record of each kind, and List shows the one of its present kind.
func TestKindOfAnAccountChanges(t *testing.T) {
	n := namespace.New(store.NewMemory(), platformOf(component), discard)
	s := n.Store()
	put(t, s, "account/"+own, "authorizer")
	for _, c := range []struct {
		platform namespace.Platform
		want     string // "": no record
	}{
		{platformOf(component, own), ""},
		{platformOf(component), "authorizer"},
		{platformOf(component, own), "app"},
		{platformOf(other, own), "app"},
		{platformOf(other), ""},
		{platformOf("", own), "app"},
		{platformOf(component), "authorizer"},
	} {
		n.Configure(c.platform)
		got, err := s.Load(t.Context(), "account/"+own)
		if string(got) != c.want || err != nil && !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: got %q, error %v, want %q", c.platform.Component, got, err, c.want)
		}
		if listed := contents(t, s, "account/", "")["account/"+own]; listed != c.want {
			t.Errorf("component %s: List: got %q, want %q", c.platform.Component, listed, c.want)
		}
		if c.want == "" && c.platform.Component == component {
			put(t, s, "account/"+own, "app")
		}
	}
}

// TestListMergesInKeyOrder compares List with a map, for random records of two
// platforms, own accounts and signing keys × 12 prefixes × random starts ×
// calls that stop early.
func TestListMergesInKeyOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		inner := store.NewMemory()
		var owned []string
		for range random.IntN(4) {
			owned = append(owned, fmt.Sprintf("wx%016d", random.IntN(40)))
		}
		s := namespace.New(inner, platformOf(component, owned...), discard).Store()
		want := map[string]string{}
		for _, kind := range []string{"account/", "code/", "key/", "name/", "a", "zz/"} {
			for range random.IntN(30) {
				key := fmt.Sprintf("%swx%016d", kind, random.IntN(40))
				put(t, s, key, key)
				want[key] = key
			}
		}
		foreign := namespace.New(inner, platformOf(other, "wx0000000000000001"), discard).Store()
		for i := range 5 {
			if appid := fmt.Sprintf("wx%016d", i); !slices.Contains(owned, appid) {
				put(t, foreign, "account/"+appid, "foreign")
			}
		}
		for _, prefix := range []string{
			"", "a", "acc", "account/", "account/wx00", "b",
			"c", "k", "key/", "key/wx0", "name/", "zz",
		} {
			keys := slices.DeleteFunc(slices.Sorted(maps.Keys(want)), func(key string) bool {
				return !strings.HasPrefix(key, prefix)
			})
			after := ""
			if len(keys) > 0 && random.IntN(2) == 0 {
				i := random.IntN(len(keys))
				after, keys = keys[i], keys[i+1:]
			}
			got := slices.Sorted(maps.Keys(contents(t, s, prefix, after)))
			if !slices.Equal(got, keys) {
				t.Fatalf("List(%q, %q), own accounts %q:\ngot  %q\nwant %q",
					prefix, after, owned, got, keys)
			}
			n, limit := 0, random.IntN(len(keys)+1)+1
			err := s.List(t.Context(), prefix, after, func(key string, _ []byte) bool {
				if n++; n > len(keys) || key != keys[n-1] {
					t.Errorf("List(%q, %q): got %q as number %d", prefix, after, key, n)
				}
				return n < limit
			})
			if err != nil || n != min(limit, len(keys)) {
				t.Errorf("List(%q, %q) until %d: got %d, error %v", prefix, after, limit, n, err)
			}
		}
	}
}

// feed is a store with a change feed that tests write to.
type feed struct {
	store.Store
	changes chan store.Changes
}

// PartOf returns a number that tells the keys of the test apart.
func (f *feed) PartOf(key string) int { return len(key) }

func (f *feed) Watch(ctx context.Context, changed func(store.Changes)) {
	for {
		select {
		case c := <-f.changes:
			changed(c)
		case <-ctx.Done():
			return
		}
	}
}

// Changes of the platform are reported under the keys of package tokens, those
// of others are not, and an old name leads to a move, after which the new name
// is reported. No change of a single record is reported as "all".
func TestWatch(t *testing.T) {
	inner := &feed{Store: store.NewMemory(), changes: make(chan store.Changes)}
	s := namespace.New(inner, platformOf(component, own), discard).Store()
	seen := make(chan store.Changes, 10)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	watched := s.(store.Watcher)
	go func() {
		watched.Watch(ctx, func(c store.Changes) { seen <- c })
		close(ended)
	}()
	change := func(keys ...string) { inner.changes <- store.Changes{Keys: keys} }
	change("platform/"+other+"/account/"+account, "own/account/"+account)
	change(
		"own/account/"+own, "platform/"+component+"/account/"+own,
		"platform/"+component+"/name/gh_1", "key/standin", "seal/check", "damaged/x",
	)
	want := []string{"account/" + own, "name/gh_1", "key/standin"}
	if got := <-seen; !slices.Equal(got.Keys, want) || len(got.Unknown) > 0 {
		t.Errorf("changed keys: got %q and parts %v, want %q", got.Keys, got.Unknown, want)
	}
	inner.changes <- store.Changes{Unknown: map[int]string{3: "x"}}
	if got := <-seen; len(got.Keys) > 0 || len(got.Unknown) != 1 || got.Unknown[3] != "x" {
		t.Errorf("a part has changed: got %q and parts %v, want part 3 with data x", got.Keys, got.Unknown)
	}
	stored := "platform/" + component + "/account/" + account
	if got := watched.PartOf("account/" + account); got != len(stored) {
		t.Errorf("PartOf: got %d, want %d, that of the name in the database", got, len(stored))
	}
	put(t, inner, "code/"+account, `{"v":1}`)
	change("code/" + account)
	for start := time.Now(); ; <-time.After(time.Millisecond) {
		if _, err := s.Load(t.Context(), "code/"+account); err == nil {
			break
		}
		if time.Since(start) > time.Minute {
			t.Fatal("timeout: the record of an earlier version is moved")
		}
	}
	cancel()
	<-ended
	if _, err := inner.Load(t.Context(), "code/"+account); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("old record after Watch has ended: got error %v, want ErrNotFound", err)
	}
}

// A store without a change feed does not become a Watcher.
func TestStoreIsWatcherIfInnerIs(t *testing.T) {
	s := namespace.New(store.NewMemory(), platformOf(component), discard).Store()
	if _, ok := s.(store.Watcher); ok {
		t.Error("got a Watcher around a store that is none")
	}
	if inner, ok := store.As[interface{ Unwrap() store.Store }](s); !ok || inner.Unwrap() == nil {
		t.Error("got no inner store, want the one that it wraps")
	}
}

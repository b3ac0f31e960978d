package tokens_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/tokens"
	"wxproxy/tokens/store"
)

// faultyStore is a store in memory whose saves fail on command.
type faultyStore struct {
	store.Store

	mu sync.Mutex
	// fault is asked before each save and each Ping (key ""); nil: none fails.
	fault func(key string) error
	// saveAnyway saves although fault returns an error, as if a reply was lost.
	saveAnyway bool
	// reads makes Load fail with what fault returns.
	reads bool
	// beforeLock makes Update fail before its function is called.
	beforeLock bool
}

var errDiskFull = errors.New("no space left on device")

func newFaultyStore() *faultyStore { return &faultyStore{Store: store.NewMemory()} }

// set changes the fields of s.
func (s *faultyStore) set(change func(s *faultyStore)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

// fail makes all saves fail with err; nil repairs the store.
func (s *faultyStore) fail(err error) {
	s.set(func(s *faultyStore) {
		s.fault = nil
		if err != nil {
			s.fault = func(string) error { return err }
		}
	})
}

// err returns what fault returns for key, if the condition applies.
func (s *faultyStore) err(key string, applies func(s *faultyStore) bool) error {
	s.mu.Lock()
	fault := s.fault
	if !applies(s) {
		fault = nil
	}
	s.mu.Unlock()
	if fault == nil {
		return nil
	}
	return fault(key)
}

func always(*faultyStore) bool            { return true }
func failsReads(s *faultyStore) bool      { return s.reads }
func failsBeforeLock(s *faultyStore) bool { return s.beforeLock }
func (s *faultyStore) savesAnyway() bool  { s.mu.Lock(); defer s.mu.Unlock(); return s.saveAnyway }

func (s *faultyStore) Load(ctx context.Context, key string) ([]byte, error) {
	if err := s.err(key, failsReads); err != nil {
		return nil, err
	}
	return s.Store.Load(ctx, key)
}

func (s *faultyStore) Ping(context.Context) error {
	err := s.err("", always)
	if errors.Is(err, store.ErrLost) {
		return nil
	}
	return err
}

func (s *faultyStore) Update(ctx context.Context, key string, fn store.UpdateFunc) error {
	if err := s.err(key, failsBeforeLock); err != nil {
		return err
	}
	var failure error
	err := s.Store.Update(ctx, key, func(ctx context.Context, old []byte) ([]byte, error) {
		record, err := fn(ctx, old)
		if err != nil || record != nil && len(record) == 0 {
			return record, err
		}
		if failure = s.err(key, always); failure != nil && !s.savesAnyway() {
			return store.Keep, nil
		}
		return record, nil
	})
	if err == nil {
		err = failure
	}
	return err
}

// field returns a field of the record key as it is stored.
func (s *faultyStore) field(t *testing.T, key, name string) any {
	t.Helper()
	raw, err := s.Store.Load(t.Context(), key)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	var fields map[string]any
	if err := errors.Join(err, json.Unmarshal(raw, &fields)); err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	return fields[name]
}

// edit changes the stored record key as another process does; nil deletes it.
func (s *faultyStore) edit(t *testing.T, key string, change func(fields map[string]any)) {
	t.Helper()
	err := s.Store.Update(t.Context(), key, func(_ context.Context, old []byte) ([]byte, error) {
		if change == nil {
			return nil, nil
		}
		fields := map[string]any{}
		if err := json.Unmarshal(old, &fields); err != nil {
			return nil, err
		}
		change(fields)
		return json.Marshal(fields)
	})
	if err != nil {
		t.Fatalf("edit of %s: %v", key, err)
	}
}

// rotate makes WeChat issue a new refresh token with each token, and accept only
// the last one. It returns how many requests had another.
func rotate(f *fakeWeChat) (rejected func() int) {
	var mu sync.Mutex
	last, serial, bad := map[any]any{}, 0, 0
	f.handle("api_authorizer_token", func(in map[string]any) (any, bool) {
		mu.Lock()
		defer mu.Unlock()
		appid := in["authorizer_appid"]
		if want, known := last[appid]; known && in["authorizer_refresh_token"] != want {
			bad++
			return errcode(61023), true
		}
		serial++
		last[appid] = fmt.Sprint("R", serial)
		return map[string]any{
			"authorizer_access_token": fmt.Sprint("T", serial), "expires_in": 7200,
			"authorizer_refresh_token": last[appid],
		}, true
	})
	return func() int { mu.Lock(); defer mu.Unlock(); return bad }
}

// kinds are the accounts whose tokens are fetched in different ways, and the
// endpoints at WeChat.
var kinds = []struct{ name, appid, endpoint string }{
	{"authorizer", accountA, "api_authorizer_token"},
	{"component", component, "api_component_token"},
	{"own account", ownAccount, "stable_token"},
}

// newUnsaved returns a Broker whose store fails, as s.fault says, and whose
// accounts have tokens.
func newUnsaved(t *testing.T, s *faultyStore) (*fakeWeChat, *tokens.Broker, *clock) {
	t.Helper()
	f, client := newFakeWeChat(t)
	serial := 0
	f.handle("stable_token", func(in map[string]any) (any, bool) { // each forced one is new
		f.mu.Lock()
		defer f.mu.Unlock()
		if in["force_refresh"] == true {
			serial++
		}
		return map[string]any{"access_token": fmt.Sprint("S", serial), "expires_in": 7200}, true
	})
	var c clock
	b := newAuthorized(t, s, client, c.use)
	t.Cleanup(func() { s.fail(nil) }) // before Close, which would try for seconds
	authorize(t, b, accountB, 1000)
	for _, k := range kinds {
		mustToken(t, b, k.appid)
	}
	// The profiles are read in the background, which changes the records.
	for _, appid := range []string{accountA, accountB} {
		eventually(t, "the profile is read", func() bool {
			return s.field(t, "account/"+appid, "profiled") != nil
		})
	}
	return f, b, &c
}

// wantToken fails the test unless Token returns want.
func wantToken(t *testing.T, b *tokens.Broker, appid string, want tokens.Token) {
	t.Helper()
	if got := mustToken(t, b, appid).Value; !got.Equal(want.Value) {
		t.Errorf("Token(%s): got %s, want %s", appid, got.Fingerprint(), want.Value.Fingerprint())
	}
}

// TestUnsavedGrantServes: a token is rejected and the save of the new one fails.
// The new one serves from memory, also after it was evicted from the cache.
// 100 further rejections cost no request to WeChat. When the store works again,
// the grant is saved without a request from a caller, and renewals go on with its
// refresh token. Parameters: authorizer, component, own account × disk full,
// disk full and reads fail, lock lost, saved although the reply was lost.
func TestUnsavedGrantServes(t *testing.T) {
	for name, fault := range map[string]func(s *faultyStore){
		"disk full": func(s *faultyStore) { s.fault = func(string) error { return errDiskFull } },
		"reads fail": func(s *faultyStore) {
			s.fault = func(string) error { return errDiskFull }
		},
		"lock lost": func(s *faultyStore) { s.fault = func(string) error { return store.ErrLost } },
		"reply lost": func(s *faultyStore) {
			s.fault, s.saveAnyway = func(string) error { return errDiskFull }, true
		},
	} {
		for _, k := range kinds {
			t.Run(name+", "+k.name, func(t *testing.T) {
				t.Parallel()
				s := newFaultyStore()
				f, b, c := newUnsaved(t, s)
				lost := rotate(f)
				stale := mustToken(t, b, k.appid).Value
				before := f.count(k.endpoint)
				s.set(fault)
				tok, err := b.Renew(t.Context(), k.appid, stale)
				if err != nil || tok.Value.Equal(stale) {
					t.Fatalf("Renew: got error %v, want a new token", err)
				}
				fetches := f.count(k.endpoint) - before
				if limit := 2; fetches < 1 || fetches > limit { // stable_token is asked twice
					t.Errorf("requests for one rejection: got %d, want 1 to %d", fetches, limit)
				}
				if name == "reads fail" {
					s.set(func(s *faultyStore) { s.reads = true })
				}
				for i := range 100 {
					if i%10 == 0 {
						b.Evict(k.appid)
					}
					wantToken(t, b, k.appid, tok)
					if name == "lock lost" || name == "reply lost" {
						continue // the store can be written: a rejection saves the grant
					}
					_, err := b.Renew(t.Context(), k.appid, tok.Value)
					after := tokens.RetryAfter(err, c.now())
					if !errors.Is(err, tokens.ErrUnavailable) || after < time.Second {
						t.Fatalf("Renew: got error %v, want %v", err, tokens.ErrUnavailable)
					}
				}
				if n := f.count(k.endpoint) - before; n != fetches {
					t.Errorf("further requests: got %d, want none", n-fetches)
				}
				s.set(func(s *faultyStore) { s.fault, s.reads = nil, false })
				eventually(t, "the grant is saved", func() bool {
					return b.Stats().UnsavedGrants() == 0 &&
						s.field(t, "account/"+k.appid, "access") == tok.Value.Reveal()
				})
				if next := mustRenew(t, b, k.appid); next.Value.Equal(tok.Value) {
					t.Error("Renew: got the rejected token")
				}
				if lost() != 0 {
					t.Errorf("requests with a lost refresh token: got %d, want none", lost())
				}
			})
		}
	}
}

// TestNothingIsFetchedForAnUnwritableStore: after one save has failed, nothing
// is fetched for other accounts, whether their tokens were rejected or have
// expired, and no code is exchanged. Valid cached tokens serve. When the store
// works again, so does everything.
func TestNothingIsFetchedForAnUnwritableStore(t *testing.T) {
	s := newFaultyStore()
	f, b, c := newUnsaved(t, s)
	c.advance(time.Hour)
	fresh := mustRenew(t, b, accountB)
	s.fail(errDiskFull)
	if _, err := rejectToken(t, b, ownAccount); err != nil {
		t.Fatalf("Renew: %v", err)
	}
	c.advance(time.Hour + 5*time.Minute) // the tokens of accountA and the component have expired
	f.ahead.Store(int64(2*time.Hour + 5*time.Minute))
	var before []int
	endpoints := []string{
		"api_authorizer_token", "api_component_token", "stable_token", "api_query_auth",
	}
	for _, e := range endpoints {
		before = append(before, f.count(e))
	}
	code := codeOf(accountA, 2000)
	for range 20 {
		wantToken(t, b, accountB, fresh)
		wantTokenError(t, b, accountA, tokens.ErrUnavailable)
		wantTokenError(t, b, component, tokens.ErrUnavailable)
		_, err := b.Renew(t.Context(), accountB, fresh.Value)
		_, exchangeErr := b.Exchange(t.Context(), code)
		_, refreshErr := b.Refresh(t.Context(), accountB)
		for what, err := range map[string]error{
			"Renew": err, "Exchange": exchangeErr, "Refresh": refreshErr,
		} {
			if !errors.Is(err, tokens.ErrUnavailable) && !errors.Is(err, errDiskFull) {
				t.Errorf("%s: got error %v, want %v", what, err, tokens.ErrUnavailable)
			}
		}
	}
	for i, e := range endpoints {
		f.wantCount(t, e, before[i])
	}
	if err := b.Ready(t.Context()); !errors.Is(err, errDiskFull) {
		t.Errorf("Ready: got error %v, want %v", err, errDiskFull)
	}
	s.fail(nil)
	for _, appid := range []string{accountA, component, ownAccount} {
		waitForToken(t, b, appid)
	}
	if _, err := b.Exchange(t.Context(), code); err != nil {
		t.Errorf("Exchange: %v", err)
	}
	if err := b.Ready(t.Context()); err != nil {
		t.Errorf("Ready: got error %v", err)
	}
}

// TestSaveBeforeUse: while the save of a new token is in
// progress, no caller gets it: not from the cache, not from the store, and not
// by a rejection of the old one.
func TestSaveBeforeUse(t *testing.T) {
	s := newFaultyStore()
	_, b, _ := newUnsaved(t, s)
	stale := mustToken(t, b, accountA).Value
	saving, proceed := make(chan struct{}), make(chan struct{})
	s.set(func(s *faultyStore) {
		s.fault = func(key string) error {
			if key == "account/"+accountA {
				close(saving)
				<-proceed
				return errDiskFull
			}
			return nil
		}
	})
	renewed := make(chan tokens.Token)
	go func() {
		tok, _ := b.Renew(context.Background(), accountA, stale)
		renewed <- tok
	}()
	<-saving
	for range 10 {
		b.Evict(accountA)
		if got := mustToken(t, b, accountA); !got.Value.Equal(stale) {
			t.Errorf("Token during the save: got %s, want the stored one", got.Value.Fingerprint())
		}
		select {
		case tok := <-renewed:
			t.Fatalf("Renew returned %s during the save", tok.Value.Fingerprint())
		default:
		}
	}
	s.fail(nil)
	close(proceed)
	if tok := <-renewed; tok.Value.IsEmpty() || tok.Value.Equal(stale) {
		t.Errorf("Renew: got %s, want a new token", tok.Value.Fingerprint())
	}
}

// TestUnsavedGrantAndOtherProcesses: while a grant is unsaved, another process
// changes the stored record. A record with another grant, a revoked and a
// forgotten one stay as they are, and the grant is dropped. After other changes,
// and if the record was lost, the grant is saved.
func TestUnsavedGrantAndOtherProcesses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(fields map[string]any) // nil: the record is deleted
		saved  bool
	}{
		"renewed":      {func(r map[string]any) { r["access"], r["refresh"] = "T9", "R9" }, false},
		"reauthorized": {func(r map[string]any) { r["code"], r["refresh"] = "c9", "R9" }, false},
		"revoked": {func(r map[string]any) {
			r["gone"], r["revoked"] = true, 5000
			delete(r, "access")
			delete(r, "refresh")
		}, false},
		"forgotten": {func(r map[string]any) { r["gone"], r["forgotten"] = true, 1 }, false},
		"failure noted": {func(r map[string]any) {
			r["failures"], r["failure"] = 3, "timeout"
		}, true},
		"profile was read": {func(r map[string]any) {
			r["name"], r["profiled"] = "new", 1<<50
		}, true},
		"lost": {nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newFaultyStore()
			f, b, _ := newUnsaved(t, s)
			lost := rotate(f)
			s.fail(errDiskFull)
			tok, err := rejectToken(t, b, accountA)
			if err != nil {
				t.Fatalf("Renew: %v", err)
			}
			s.edit(t, "account/"+accountA, c.change)
			s.fail(nil)
			eventually(t, "nothing is unsaved", func() bool {
				return b.Stats().UnsavedGrants() == 0
			})
			saved := s.field(t, "account/"+accountA, "access") == tok.Value.Reveal()
			if saved != c.saved {
				t.Errorf("grant saved: got %t, want %t", saved, c.saved)
			}
			if name == "profile was read" {
				if got := s.field(t, "account/"+accountA, "name"); got != "new" {
					t.Errorf("name: got %v, want that of the other process", got)
				}
			}
			if c.saved {
				mustRenew(t, b, accountA)
			}
			if lost() != 0 {
				t.Errorf("requests with a lost refresh token: got %d, want none", lost())
			}
		})
	}
}

// TestUnsavedGrantAndEvents: while a grant is unsaved, an operator's Refresh and
// Forget, a pushed revocation and a pushed code get an error, without a request
// to WeChat, and change nothing. Afterwards each of them has its usual effect,
// on the record with the grant.
func TestUnsavedGrantAndEvents(t *testing.T) {
	for name, event := range map[string]func(ctx context.Context, b *tokens.Broker) error{
		"refresh": func(ctx context.Context, b *tokens.Broker) error {
			return errorOf(b.Refresh(ctx, accountA))
		},
		"forget": func(ctx context.Context, b *tokens.Broker) error {
			return b.Forget(ctx, accountA)
		},
		"revocation": func(ctx context.Context, b *tokens.Broker) error {
			return b.MarkRevoked(ctx, accountA, time.Unix(3000, 0))
		},
		"code": func(ctx context.Context, b *tokens.Broker) error {
			at := time.Unix(3000, 0)
			return b.Authorize(ctx, accountA, codeOf(accountA, 3000), time.Time{}, at)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newFaultyStore()
			f, b, _ := newUnsaved(t, s)
			s.fail(errDiskFull)
			tok, err := rejectToken(t, b, accountA)
			if err != nil {
				t.Fatalf("Renew: %v", err)
			}
			before := f.count("api_authorizer_token") + f.count("api_query_auth")
			for range 5 {
				if err := event(t.Context(), b); err == nil {
					t.Error("got no error while the store cannot be written")
				}
				wantToken(t, b, accountA, tok)
			}
			if n := f.count("api_authorizer_token") + f.count("api_query_auth"); n != before {
				t.Errorf("requests to WeChat: got %d, want none", n-before)
			}
			s.fail(nil)
			eventually(t, "the event is accepted", func() bool {
				return event(t.Context(), b) == nil
			})
			switch name {
			case "refresh", "code":
				eventually(t, "there is another token", func() bool {
					got, err := b.Token(t.Context(), accountA)
					return err == nil && !got.Value.Equal(tok.Value)
				})
			case "forget":
				wantTokenError(t, b, accountA, tokens.ErrForgotten)
			case "revocation":
				wantTokenError(t, b, accountA, tokens.ErrRevoked)
			}
			if n := b.Stats().UnsavedGrants(); n != 0 {
				t.Errorf("unsaved grants: got %d, want none", n)
			}
		})
	}
}

// TestCodeIsNotLostWhenItsSaveFails: a code is exchanged and the save fails, of
// the account or of both records, under the lock or before it. The account has
// a token, the code is answered again without a request to WeChat, with its
// state only, and all of it is saved when the store works again: a new process
// knows it. Parameters: code of a browser, of a push, of an account that is
// known or not.
func TestCodeIsNotLostWhenItsSaveFails(t *testing.T) {
	const newAccount = "wxdddddddddddddddd"
	admit := func() error { return nil }
	for name, c := range map[string]struct {
		appid      string
		push       bool
		keys       []string
		beforeLock bool
	}{
		"browser, all records":          {newAccount, false, []string{"account/", "spent/"}, false},
		"browser, the account":          {newAccount, false, []string{"account/"}, false},
		"browser, the account's lock":   {newAccount, false, []string{"account/"}, true},
		"browser, the code":             {newAccount, false, []string{"spent/"}, false},
		"browser, known, all records":   {accountB, false, []string{"account/", "spent/"}, false},
		"browser, known, account":       {accountB, false, []string{"account/"}, false},
		"browser, known, the lock":      {accountB, false, []string{"account/"}, true},
		"push, all records":             {newAccount, true, []string{"account/", "spent/"}, false},
		"push, the account":             {newAccount, true, []string{"account/"}, false},
		"push, the code":                {newAccount, true, []string{"spent/"}, false},
		"push, known account, all":      {accountB, true, []string{"account/", "spent/"}, false},
		"push, known account's record":  {accountB, true, []string{"account/"}, false},
		"push, known account, the code": {accountB, true, []string{"spent/"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newFaultyStore()
			f, b, _ := newUnsaved(t, s)
			before := f.count("api_query_auth")
			s.set(func(s *faultyStore) {
				s.beforeLock = c.beforeLock
				s.fault = func(key string) error {
					if f.count("api_query_auth") == before {
						return nil // the failures begin when WeChat has been asked
					}
					for _, prefix := range c.keys {
						if strings.HasPrefix(key, prefix) {
							return errDiskFull
						}
					}
					return nil
				}
			})
			code := codeOf(c.appid, 2000)
			if c.push {
				pushCode(t, b, c.appid, code, 2000)
				f.waitForCount(t, "api_query_auth", before+1)
			}
			back := func(b *tokens.Broker, state string) (string, error) {
				done, err := b.ExchangeReturned(t.Context(), code, state, admit)
				return done.AppID, err
			}
			for range 3 {
				if got, err := back(b, "state"); err != nil || got != c.appid {
					t.Fatalf("exchange: got %q, error %v, want %q", got, err, c.appid)
				}
			}
			if _, err := back(b, "another"); !errors.Is(err, tokens.ErrForeignState) {
				t.Errorf("another state: got error %v, want %v", err, tokens.ErrForeignState)
			}
			tok := mustToken(t, b, c.appid)
			f.wantCount(t, "api_query_auth", before+1)
			s.fail(nil)
			eventually(t, "everything is saved", func() bool {
				return b.Stats().UnsavedGrants() == 0 &&
					s.field(t, "account/"+c.appid, "access") == tok.Value.Reveal() &&
					s.field(t, "code/"+c.appid, "code") == nil
			})
			if err := b.Close(t.Context()); err != nil {
				t.Fatalf("Close: %v", err)
			}
			_, client := newFakeWeChat(t)
			next := newBroker(t, s, client, nil)
			if got, err := back(next, "state"); err != nil || got != c.appid {
				t.Errorf("exchange in a new process: got %q, error %v, want %q", got, err, c.appid)
			}
			if _, err := back(next, "another"); !errors.Is(err, tokens.ErrForeignState) {
				t.Errorf("another state: got error %v, want %v", err, tokens.ErrForeignState)
			}
			wantToken(t, next, c.appid, tok)
		})
	}
}

// TestCloseSavesGrants: Close saves what is unsaved, if the store works again
// before its deadline, and returns at the deadline otherwise.
func TestCloseSavesGrants(t *testing.T) {
	for _, repaired := range []bool{true, false} {
		s := newFaultyStore()
		_, b, _ := newUnsaved(t, s)
		s.fail(errDiskFull)
		tok, err := rejectToken(t, b, accountA)
		if err != nil {
			t.Fatalf("Renew: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if !repaired {
			cancel()
		}
		closed := make(chan error)
		go func() { closed <- b.Close(ctx) }()
		if repaired {
			s.fail(nil)
		}
		<-closed
		cancel()
		got := s.field(t, "account/"+accountA, "access") == tok.Value.Reveal()
		if got != repaired {
			t.Errorf("store repaired: %t: grant saved: got %t", repaired, got)
		}
	}
}

// TestConcurrentRejectionsOnAFullDisk: 200 callers, of two accounts, whose
// tokens are rejected while no save succeeds. It costs one renewal for each
// account at most. A code is not exchanged, although the component's token is
// valid.
func TestConcurrentRejectionsOnAFullDisk(t *testing.T) {
	s := newFaultyStore()
	f, b, _ := newUnsaved(t, s)
	rotate(f)
	before := f.count("api_authorizer_token")
	s.fail(errDiskFull)
	var all sync.WaitGroup
	for i := range 200 {
		appid := []string{accountA, accountB}[i%2]
		all.Go(func() {
			stale := mustToken(t, b, appid).Value
			for range 3 {
				next, err := b.Renew(t.Context(), appid, stale)
				if err == nil {
					stale = next.Value
				} else if !errors.Is(err, tokens.ErrUnavailable) {
					t.Errorf("Renew: got error %v, want %v", err, tokens.ErrUnavailable)
				}
			}
		})
	}
	all.Wait()
	if n := f.count("api_authorizer_token") - before; n > 2 {
		t.Errorf("requests for 600 rejections: got %d, want 2 at most", n)
	}
	exchanged := f.count("api_query_auth")
	_, err := b.Exchange(t.Context(), codeOf(accountA, 2000))
	if !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("Exchange: got error %v, want %v", err, tokens.ErrUnavailable)
	}
	f.wantCount(t, "api_query_auth", exchanged)
}

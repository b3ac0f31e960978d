package tokens_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"wxproxy/internal/proctest"
	"wxproxy/tokens"
	"wxproxy/tokens/store"
)

// sealKey seals the stores of these tests.
var sealKey = bytes.Repeat([]byte{1}, store.KeySize)

// sealedStore returns a store as it is used in production, and the one below,
// in which records can be damaged.
func sealedStore(t *testing.T) (s, inner store.Store) {
	t.Helper()
	inner = store.NewMemory()
	s, err := store.Seal(t.Context(), inner, sealKey)
	if err != nil {
		t.Fatal(err)
	}
	return s, inner
}

func save(t *testing.T, s store.Store, key string, record []byte) {
	t.Helper()
	err := s.Update(t.Context(), key, func(context.Context, []byte) ([]byte, error) {
		return record, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// damages are the ways in which the tests damage a record. Each returns the
// bytes that have to lie in the store below damaged/.
var damages = map[string]func(t *testing.T, s, inner store.Store, key string) []byte{
	"garbage": func(t *testing.T, _, inner store.Store, key string) []byte {
		garbage := []byte("no sealed record")
		save(t, inner, key, garbage)
		return garbage
	},
	"a bit": func(t *testing.T, _, inner store.Store, key string) []byte {
		raw, err := inner.Load(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		raw[len(raw)/2] ^= 1
		save(t, inner, key, raw)
		return raw
	},
	"the record of another key": func(t *testing.T, s, inner store.Store, key string) []byte {
		save(t, s, "other", []byte(`{"v":1}`))
		raw, err := inner.Load(t.Context(), "other")
		if err != nil {
			t.Fatal(err)
		}
		save(t, inner, key, raw)
		return raw
	},
	"no JSON":       inside(`not JSON`),
	"wrong types":   inside(`{"v":1,"kind":7,"ticket":7,"code":7,"appid":7,"begun":"x","key":7}`),
	"later version": inside(`{"v":2,"tokens":{}}`),
}

// inside damages what is sealed.
func inside(text string) func(t *testing.T, s, inner store.Store, key string) []byte {
	return func(t *testing.T, s, inner store.Store, key string) []byte {
		save(t, s, key, []byte(text))
		raw, err := inner.Load(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
}

// Each kind of record is damaged in each way, while no process runs. The next
// process starts, and every account has a token again without an operator:
// record (account, component, ticket, code, exchanged code, name, comparison,
// signing key) × damage (garbage, one bit, the record of another key, no JSON,
// wrong types, later format version). The damaged bytes are kept, counted and
// named in the log, which has nothing of the record.
func TestDamagedRecordsRecover(t *testing.T) {
	for _, key := range []string{
		"account/" + accountA, "account/" + component, "ticket/" + component, "code/" + accountB,
		exchangedKey(codeOf(accountA, 1000)), "name/gh_" + accountA, "sync/" + component,
		"key/standin",
	} {
		for name, damage := range damages {
			t.Run(key+" "+name, func(t *testing.T) {
				t.Parallel()
				f, client := newFakeWeChat(t)
				f.list(map[string]authorizer{
					accountA: {"refresh@" + accountA, 1000}, accountB: {"R", 1000},
				})
				s, inner := sealedStore(t)
				b := newAuthorized(t, s, client, nil)
				waitForProfile(t, b)
				if _, err := b.SigningKey(t.Context(), "standin", nil); err != nil {
					t.Fatal(err)
				}
				f.down.Store(true)
				pushCode(t, b, accountB, codeOf(accountB, 2000), 2000)
				b.Close(t.Context())
				f.down.Store(false)
				want := damage(t, s, inner, key)

				var log proctest.Output
				b = newBroker(t, s, client, func(c *tokens.Config) {
					c.Log = slog.New(slog.NewTextHandler(&log, nil))
				})
				putTicket(t, b)
				if _, err := b.SigningKey(t.Context(), "standin", nil); err != nil {
					t.Errorf("SigningKey: %v", err)
				}
				mustRenew(t, b, accountA)
				waitForToken(t, b, accountB)
				b.IsAddressee(t.Context(), accountA, "gh_"+accountA)
				returned(t, b, "return", codeOf(accountA, 1000), "", nil)
				eventually(t, "the damaged record was moved", func() bool {
					got, err := inner.Load(t.Context(), "damaged/"+key)
					return err == nil && bytes.Equal(got, want)
				})
				eventually(t, "it is counted", func() bool {
					n, known := b.Stats().DamagedRecords()
					return known && n == 1
				})
				eventually(t, "the log has the key", func() bool {
					return strings.Contains(log.String(), key)
				})
				if text := log.String(); strings.Contains(text, "tokens:{}") {
					t.Errorf("log: got %s, want nothing of the record", text)
				}
			})
		}
	}
}

// A waiting code that is damaged keeps no process from starting.
func TestDamagedCodeDoesNotPreventTheStart(t *testing.T) {
	_, client := newFakeWeChat(t)
	s, inner := sealedStore(t)
	save(t, inner, "code/"+accountA, []byte("garbage"))
	newBroker(t, s, client, nil)
	eventually(t, "the code was moved", func() bool {
		_, err := inner.Load(t.Context(), "damaged/code/"+accountA)
		return err == nil
	})
}

// One damaged record among 600 costs one comparison with WeChat's list at most.
// The clock advances by a day, ten minutes at a time.
func TestDamagedRecordDoesNotRepeatComparisons(t *testing.T) {
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, client := newFakeWeChat(t)
			listed := map[string]authorizer{accountA: {"refresh@" + accountA, 1000}}
			for i := range 600 {
				listed[fmt.Sprintf("wx%016d", i)] = authorizer{"R", 1000}
			}
			f.list(listed)
			s, inner := sealedStore(t)
			var c clock
			b := newAuthorized(t, s, client, func(cfg *tokens.Config) {
				c.use(cfg)
				cfg.MaintenanceInterval = time.Hour // putTicket wakes it
			})
			pages := f.count("api_get_authorizer_list")
			damage(t, s, inner, "account/wx0000000000000300")
			c.advance(25 * time.Hour)
			for range 24 * 6 {
				putTicket(t, b)
				waitForMaintenance(t, b)
				c.advance(10 * time.Minute)
			}
			// Each comparison reads two pages. A day has one or two of them.
			pages = f.count("api_get_authorizer_list") - pages
			t.Logf("%d comparisons in a day", pages/2)
			if pages == 0 || pages > 4 {
				t.Errorf("got %d pages of WeChat's list read in a day, want 2 or 4", pages)
			}
			got := fieldsOf(t, s, "account/wx0000000000000300")
			if !strings.Contains(got, "refresh") {
				t.Errorf("the damaged account: got fields %q, want a refresh token", got)
			}
		})
	}
}

// waitForMaintenance waits until a run of the maintenance that began after the
// call has ended.
func waitForMaintenance(t *testing.T, b *tokens.Broker) {
	t.Helper()
	done := make(chan struct{})
	go func() { b.RunMaintenance(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("timeout: maintenance")
	}
}

// gatedStore lets a test write between the moment at which a damaged record is
// read and the moment at which it is to be moved.
type gatedStore struct {
	store.Store
	closed atomic.Bool
	waits  chan struct{} // gets a value for each Update that waits
	gate   chan struct{}
}

func (g *gatedStore) Update(ctx context.Context, key string, fn store.UpdateFunc) error {
	if g.closed.Load() {
		g.waits <- struct{}{}
		<-g.gate
	}
	return g.Store.Update(ctx, key, fn)
}

// A record that another replica has replaced by a good one is not moved:
//
//  1. replica 1: read a damaged record
//  2. replica 2: write a good record
//  3. replica 1: move the record (must not happen)
func TestGoodRecordIsNotMoved(t *testing.T) {
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			_, client := newFakeWeChat(t)
			s, inner := sealedStore(t)
			first := newAuthorized(t, s, client, nil)
			good, err := inner.Load(t.Context(), "account/"+accountA)
			if err != nil {
				t.Fatal(err)
			}
			first.Close(t.Context())
			damage(t, s, inner, "account/"+accountA)
			g := &gatedStore{Store: s, waits: make(chan struct{}, 100), gate: make(chan struct{})}
			b := newBroker(t, g, client, nil)
			g.closed.Store(true)
			err = errorOf(b.Account(t.Context(), accountA))
			if !errors.Is(err, tokens.ErrUnknownAccount) {
				t.Errorf("damaged account: got error %v, want ErrUnknownAccount", err)
			}
			<-g.waits
			save(t, inner, "account/"+accountA, good)
			g.closed.Store(false)
			close(g.gate)
			mustToken(t, b, accountA)
			b.Close(t.Context()) // the move has ended
			got, err := inner.Load(t.Context(), "account/"+accountA)
			if err != nil || !bytes.Equal(got, good) {
				t.Errorf("good record: got %q, error %v, want it unchanged", got, err)
			}
			if got, err := inner.Load(t.Context(), "damaged/account/"+accountA); err == nil {
				t.Errorf("moved record: got %q, want none", got)
			}
		})
	}
}

package namespace_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"wxproxy/tokens/namespace"
	"wxproxy/tokens/store"
)

// oldRecords are records of a store of format 1, as the version before this one
// has written them.
func oldRecords() map[string]string {
	return map[string]string{
		"account/" + component: `{"v":1,"kind":"component","access":"C","issued":1}`,
		"account/" + account:   `{"v":1,"kind":"authorizer","refresh":"R","authorized":5}`,
		"account/" + own:       `{"v":1,"kind":"app","access":"O","issued":1}`,
		"account/wx1":          `{"v":9,"later":true}`,
		"account/wx2":          `not JSON`,
		"code/" + account:      `{"v":1,"code":"X","created":5}`,
		"spent/abc":            `{"v":1,"appid":"` + account + `"}`,
		"name/gh_1":            `{"v":1,"appid":"` + account + `"}`,
		"sync/" + component:    `{"v":1,"begun":1}`,
		"ticket/" + component:  `{"v":1,"ticket":"T","created":7}`,
		"key/standin":          `{"v":1,"key":"aw=="}`,
	}
}

// moved returns records under the names that they have after the move.
func moved(records map[string]string) map[string]string {
	all := map[string]string{}
	for key, record := range records {
		switch key {
		case "account/" + own:
			key = "own/" + key
		case "key/standin":
		default:
			key = "platform/" + component + "/" + key
		}
		all[key] = record
	}
	return all
}

func fill(t testing.TB, s store.Store, records map[string]string) {
	t.Helper()
	for key, record := range records {
		put(t, s, key, record)
	}
}

// TestMove moves the records of a store of format 1, whatever is configured now:
// the same component, another one, none, or the own account as an authorizer.
func TestMove(t *testing.T) {
	for name, p := range map[string]namespace.Platform{
		"same":              platformOf(component, own),
		"another component": platformOf(other, own),
		"no component":      platformOf("", own),
		"no own account":    platformOf(component),
	} {
		s := store.NewMemory()
		fill(t, s, oldRecords())
		for range 2 { // the second has nothing to do
			if err := namespace.New(s, p, discard).Move(t.Context()); err != nil {
				t.Fatalf("%s: Move: %v", name, err)
			}
			if got, want := contents(t, s, "", ""), moved(oldRecords()); !maps.Equal(got, want) {
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
		}
	}
}

// Without a ticket the records belong to the configured component. Without one
// either they stay, until a component is configured.
func TestMoveWithoutTicket(t *testing.T) {
	s, records := store.NewMemory(), oldRecords()
	delete(records, "ticket/"+component)
	fill(t, s, records)
	if err := namespace.New(s, platformOf("", own), discard).Move(t.Context()); err != nil {
		t.Fatalf("Move: %v", err)
	}
	got := contents(t, s, "", "")
	for key := range records {
		named := strings.HasSuffix(key, component) || strings.HasSuffix(key, own)
		if _, stays := got[key]; stays == named && key != "key/standin" {
			t.Errorf("%s: stays under its old name: got %v, want %v", key, stays, !named)
		}
	}
	if err := namespace.New(s, platformOf(component, own), discard).Move(t.Context()); err != nil {
		t.Fatalf("Move: %v", err)
	}
	if got, want := contents(t, s, "", ""), moved(records); !maps.Equal(got, want) {
		t.Errorf("with a component: got %q, want %q", got, want)
	}
}

// A record that a process of an earlier version writes after the move replaces
// the moved one only if it is newer.
func TestNewerRecordStands(t *testing.T) {
	const key = "platform/" + component + "/account/" + account
	const authorized, newer = `{"authorized":5,"issued":5}`, `{"authorized":6}`
	for name, c := range map[string]struct {
		old, present string
		oldWins      bool
	}{
		"same":                 {authorized, authorized, false},
		"older token":          {`{"authorized":5,"issued":4}`, authorized, false},
		"newer token":          {`{"authorized":5,"issued":6}`, authorized, true},
		"newer authorization":  {newer, authorized, true},
		"older authorization":  {authorized, newer, false},
		"newer revocation":     {`{"authorized":5,"revoked":6}`, authorized, true},
		"newer ticket or code": {`{"created":6}`, `{"created":5}`, true},
		"older ticket or code": {`{"created":5}`, `{"created":6}`, false},
		"old is not JSON":      {`x`, authorized, false},
		"present is not JSON":  {authorized, `x`, true},
		"both are not":         {`x`, `y`, false},
	} {
		s := store.NewMemory()
		put(t, s, "account/"+account, c.old)
		put(t, s, key, c.present)
		if err := namespace.New(s, platformOf(component), discard).Move(t.Context()); err != nil {
			t.Fatalf("%s: Move: %v", name, err)
		}
		want := c.present
		if c.oldWins {
			want = c.old
		}
		if got := contents(t, s, "", ""); len(got) != 1 || got[key] != want {
			t.Errorf("%s: got %q, want %s under the new name", name, got, want)
		}
	}
}

// failing is a store that fails from the nth write on, as it does for a process
// that is killed there. A write that fails may have been saved.
type failing struct {
	store.Store
	left  atomic.Int64
	saves bool // the write that fails is saved nevertheless
}

var errKilled = errors.New("killed")

func (f *failing) Update(ctx context.Context, key string, fn store.UpdateFunc) error {
	left := f.left.Add(-1)
	if left < 0 && !(f.saves && left == -1) {
		return errKilled
	}
	if err := f.Store.Update(ctx, key, fn); err != nil || left >= 0 {
		return err
	}
	return errKilled
}

// TestInterruptedMoveIsResumed stops a move at each of its writes, with that
// write saved or not, and runs another one to its end: no record is lost, and
// none is there twice.
func TestInterruptedMoveIsResumed(t *testing.T) {
	for _, saves := range []bool{false, true} {
		for n := int64(0); ; n++ {
			inner := store.NewMemory()
			fill(t, inner, oldRecords())
			f := &failing{Store: inner, saves: saves}
			f.left.Store(n)
			p := platformOf(component, own)
			err := namespace.New(f, p, discard).Move(t.Context())
			if err != nil && !errors.Is(err, errKilled) {
				t.Fatalf("write %d: got error %v, want the store's", n, err)
			}
			if err := namespace.New(inner, p, discard).Move(t.Context()); err != nil {
				t.Fatalf("write %d: Move: %v", n, err)
			}
			got, want := contents(t, inner, "", ""), moved(oldRecords())
			if !maps.Equal(got, want) {
				t.Fatalf("write %d: got %q, want %q", n, got, want)
			}
			if err == nil {
				t.Logf("%d writes, the last saved: %v", n, saves)
				break
			}
		}
	}
}

// TestReplicasMoveConcurrently runs 8 moves of 600 records at once, while the
// first codes to arrive under their new names are used and deleted, as a
// replica does that was done first. No deleted code comes back.
func TestReplicasMoveConcurrently(t *testing.T) {
	s, records := store.NewMemory(), oldRecords()
	for i := 1; i <= 300; i++ {
		records[fmt.Sprintf("account/wx%016d", i)] = fmt.Sprintf(`{"authorized":%d}`, i)
		records[fmt.Sprintf("code/wx%016d", i)] = `{"created":1}`
	}
	fill(t, s, records)
	var all sync.WaitGroup
	for range 8 {
		n := namespace.New(s, platformOf(component, own), discard)
		all.Go(func() {
			if err := n.Move(t.Context()); err != nil {
				t.Errorf("Move: %v", err)
			}
			for i := 1; i <= 300; i++ {
				err := n.Store().Update(t.Context(), fmt.Sprintf("code/wx%016d", i),
					func(context.Context, []byte) ([]byte, error) { return nil, nil })
				if err != nil {
					t.Errorf("Update: %v", err)
				}
			}
		})
	}
	all.Wait()
	maps.DeleteFunc(records, func(key, _ string) bool { return strings.HasPrefix(key, "code/wx0") })
	if got, want := contents(t, s, "", ""), moved(records); !maps.Equal(got, want) {
		t.Errorf("got %d records, want %d", len(got), len(want))
	}
}

// A damaged record, under its old or its new name, does not keep the others
// from being moved, and no process from starting.
func TestDamagedRecordIsMovedAway(t *testing.T) {
	key := "code/" + account
	for _, damaged := range []string{key, "platform/" + component + "/" + key} {
		inner := store.NewMemory()
		s, err := store.Seal(t.Context(), inner, make([]byte, store.KeySize))
		if err != nil {
			t.Fatal(err)
		}
		fill(t, s, oldRecords())
		fill(t, inner, map[string]string{damaged: "garbage"})
		if err := namespace.New(s, platformOf(component, own), discard).Move(t.Context()); err != nil {
			t.Fatalf("Move: %v", err)
		}
		want := moved(oldRecords())
		if damaged == key {
			delete(want, "platform/"+component+"/"+key)
		}
		if got := contents(t, s, "", ""); !maps.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", damaged, got, want)
		}
		if got, err := inner.Load(t.Context(), "damaged/"+damaged); string(got) != "garbage" {
			t.Errorf("%s: got %q, error %v, want the damaged record", damaged, got, err)
		}
	}
}

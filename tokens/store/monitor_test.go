package store_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/storetest"
)

func TestMonitoredStoreContract(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store {
		return store.Monitor(store.NewMemory(), store.MonitorOptions{})
	})
}

// parts is a store of three partitions, by the last byte of the key. It fails
// on command.
type parts struct {
	store.Store
	failure [3]atomic.Pointer[error] // of writes and pings
	reads   atomic.Pointer[error]
	single  bool // one partition: the first
	pings   atomic.Int64
}

func (p *parts) Partitions() int {
	if p.single {
		return 1
	}
	return 3
}
func (p *parts) Partition(key string) int { return int(key[len(key)-1]) % p.Partitions() }

func (p *parts) err(i int) error {
	if err := p.failure[i].Load(); err != nil {
		return *err
	}
	return nil
}

func (p *parts) PingPartition(_ context.Context, i int) error {
	p.pings.Add(1)
	return p.err(i)
}

func (p *parts) Ping(ctx context.Context) error {
	var errs []error
	for i := range p.Partitions() {
		errs = append(errs, p.PingPartition(ctx, i))
	}
	return errors.Join(errs...)
}

func (p *parts) Load(ctx context.Context, key string) ([]byte, error) {
	if err := p.reads.Load(); err != nil {
		return nil, *err
	}
	return p.Store.Load(ctx, key)
}

func (p *parts) Update(ctx context.Context, key string, fn store.UpdateFunc) error {
	var failure error
	err := p.Store.Update(ctx, key, func(ctx context.Context, old []byte) ([]byte, error) {
		record, err := fn(ctx, old)
		if failure = p.err(p.Partition(key)); err == nil && failure != nil {
			return store.Keep, nil
		}
		return record, err
	})
	return cmp.Or(err, failure)
}

func (p *parts) Claim(ctx context.Context, key string, until time.Time) (bool, error) {
	if err := p.err(0); err != nil {
		return false, err
	}
	return p.Store.Claim(ctx, key, until)
}

func (p *parts) set(i int, err error) {
	if err == nil {
		p.failure[i].Store(nil)
		return
	}
	p.failure[i].Store(&err)
}

var errDisk = errors.New("no space left on device")

func replace(context.Context, []byte) ([]byte, error) { return []byte("x"), nil }

// A failed write makes the store unwritable until a ping succeeds, at most two
// seconds after the repair. The time is that of synctest.
func TestMonitorNoticesUnwritableStore(t *testing.T) {
	for name, write := range map[string]func(ctx context.Context, s store.Store) error{
		"update": func(ctx context.Context, s store.Store) error {
			return s.Update(ctx, "a", replace)
		},
		"claim": func(ctx context.Context, s store.Store) error {
			_, err := s.Claim(ctx, "a", time.Now().Add(time.Hour))
			return err
		},
		"ping": func(ctx context.Context, s store.Store) error { return s.Ping(ctx) },
	} {
		synctest.Test(t, func(t *testing.T) {
			p := &parts{Store: store.NewMemory(), single: true}
			m := store.Monitor(p, store.MonitorOptions{})
			defer m.Close()
			if err := m.Writable("a"); err != nil {
				t.Errorf("%s: before: got error %v", name, err)
			}
			p.set(0, errDisk)
			if err := write(t.Context(), m); !errors.Is(err, errDisk) {
				t.Errorf("%s: got error %v, want %v", name, err, errDisk)
			}
			for range 100 {
				if err := errors.Join(m.Writable("a"), m.Writable("")); !errors.Is(err, errDisk) {
					t.Errorf("%s: Writable: got %v, want %v", name, err, errDisk)
				}
				<-time.After(time.Second)
			}
			if n := p.pings.Load(); n < 50 || n > 60 {
				t.Errorf("%s: pings in 100 s: got %d, want one in two seconds", name, n)
			}
			p.set(0, nil)
			<-time.After(2 * time.Second)
			synctest.Wait()
			n := p.pings.Load()
			if err := m.Writable("a"); err != nil {
				t.Errorf("%s: Writable 2 s after the repair: got %v, want nil", name, err)
			}
			<-time.After(time.Hour)
			if p.pings.Load() != n {
				t.Errorf("%s: pings after the repair: got %d more", name, p.pings.Load()-n)
			}
		})
	}
}

// Errors that are not the database's leave the store writable: of the context,
// of the function, of a lock that was lost, of a damaged record.
func TestMonitorIgnoresOtherErrors(t *testing.T) {
	m := store.Monitor(store.NewMemory(), store.MonitorOptions{})
	defer m.Close()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Update(ended, "a", replace); !errors.Is(err, context.Canceled) {
		t.Errorf("ended context: got error %v", err)
	}
	for _, err := range []error{
		errDisk, store.ErrLost, store.ErrWrongKey, fmt.Errorf("%w: record", store.ErrCorrupt),
	} {
		fn := func(context.Context, []byte) ([]byte, error) { return nil, err }
		if got := m.Update(t.Context(), "a", fn); !errors.Is(got, err) {
			t.Errorf("update: got error %v, want %v", got, err)
		}
	}
	if err := m.Update(t.Context(), "", replace); err == nil {
		t.Error("empty key: got no error")
	}
	if _, err := m.Load(t.Context(), "b"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("load: got error %v, want ErrNotFound", err)
	}
	if err := m.Writable(""); err != nil {
		t.Errorf("Writable: got %v, want nil", err)
	}
}

// Of three partitions, one cannot be written. Records of the others can. A
// failed read makes the monitor ping, and only the pings decide.
func TestMonitorTellsPartitionsApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &parts{Store: store.NewMemory()}
		m := store.Monitor(store.Store(&wrapper{p}), store.MonitorOptions{})
		defer m.Close()
		expect := func(failed ...string) {
			t.Helper()
			for _, key := range []string{"a", "b", "c", ""} {
				want := slices.Contains(failed, key)
				if got := m.Writable(key); (got != nil) != want {
					t.Errorf("Writable(%q): got %v, want an error: %t", key, got, want)
				}
			}
		}
		p.set(p.Partition("b"), errDisk)
		p.reads.Store(&errDisk)
		if _, err := m.Load(t.Context(), "a"); !errors.Is(err, errDisk) {
			t.Errorf("load: got error %v, want %v", err, errDisk)
		}
		expect()
		<-time.After(time.Second)
		expect("b", "")
		p.set(p.Partition("b"), nil)
		<-time.After(2 * time.Second)
		expect()
		p.set(p.Partition("c"), errDisk)
		_ = m.Update(t.Context(), "c", replace)
		expect("c", "")
	})
}

// wrapper is a decorator that knows no optional interface.
type wrapper struct{ store.Store }

func (w *wrapper) Unwrap() store.Store { return w.Store }

func TestAsFindsOptionalInterfaces(t *testing.T) {
	p := &parts{Store: store.NewMemory()}
	sealed, err := store.Seal(t.Context(), p, make([]byte, store.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	m := store.Monitor(&wrapper{sealed}, store.MonitorOptions{})
	if got, ok := store.As[store.Partitioned](m); !ok || got != store.Partitioned(p) {
		t.Errorf("Partitioned: got %v, want the innermost store", got)
	}
	if _, ok := store.As[store.Watcher](m); ok {
		t.Error("Watcher: got one, want none")
	}
	if again := store.Monitor(m, store.MonitorOptions{}); again != m {
		t.Error("Monitor of a monitored store: got another one")
	}
}

// Each operation is observed once, with its result. The time of an update
// excludes that of its function, which takes ten seconds here.
func TestMonitorObservesOperations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var seen []string
		p := &parts{Store: store.NewMemory(), single: true}
		observe := func(operation, result string, took time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, fmt.Sprint(operation, " ", result, " ", took))
		}
		m := store.Monitor(p, store.MonitorOptions{Observe: observe})
		defer m.Close()
		slow := func(ctx context.Context, old []byte) ([]byte, error) {
			<-time.After(10 * time.Second)
			return replace(ctx, old)
		}
		_ = m.Update(t.Context(), "a", slow)
		keep := func(context.Context, []byte) ([]byte, error) { return store.Keep, nil }
		_ = m.Update(t.Context(), "a", keep)
		fail := func(context.Context, []byte) ([]byte, error) { return nil, errDisk }
		_ = m.Update(t.Context(), "a", fail)
		_, _ = m.Load(t.Context(), "b")
		_ = m.List(t.Context(), "", "", func(string, []byte) bool { return true })
		_, _ = m.Claim(t.Context(), "a", time.Now().Add(time.Hour))
		_ = m.Unclaim(t.Context(), "a")
		_ = m.Ping(t.Context())
		p.set(0, errDisk)
		_, _ = m.Claim(t.Context(), "a", time.Now().Add(time.Hour))
		want := []string{
			"update ok 0s", "update ok -1ns", "update ok -1ns", "load ok 0s", "list ok 0s",
			"claim ok 0s", "unclaim ok 0s", "ping ok 0s", "claim failed 0s",
		}
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(seen, want) {
			t.Errorf("got %q, want %q", seen, want)
		}
	})
}

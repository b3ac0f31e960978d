package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wxproxy/tokens/store"
)

// sharedStore is a store of several replicas. It can become unavailable, and
// can be emptied.
type sharedStore struct {
	store.Store
	down atomic.Bool

	mu       sync.Mutex
	views    []*storeView
	silent   map[int]chan struct{} // parts that do not respond until the channel is closed
	identity int                   // of the data in part 0
}

// storeView is the store as one replica sees it. It is a store.Watcher.
type storeView struct {
	*sharedStore
	changed    []string // keys that the watcher was not told yet
	allChanged bool     // any record may have changed
}

var errStoreDown = errors.New("store is down")

func newSharedStore() *sharedStore { return &sharedStore{Store: store.NewMemory()} }

func (s *sharedStore) view() *storeView {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := &storeView{sharedStore: s, allChanged: true}
	s.views = append(s.views, v)
	return v
}

func (s *sharedStore) err() error {
	if s.down.Load() {
		return errStoreDown
	}
	return nil
}

// silence makes a part not respond until the returned function is called.
func (s *sharedStore) silence(part int) (end func()) {
	ch := make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = map[int]chan struct{}{part: ch}
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.silent = nil
		close(ch)
	})
}

// respond waits until the part of key responds.
func (s *sharedStore) respond(ctx context.Context, key string) error {
	s.mu.Lock()
	ch := s.silent[partOf(key)]
	s.mu.Unlock()
	if ch != nil {
		select {
		case <-ch:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return s.err()
}

func (s *sharedStore) Load(ctx context.Context, key string) ([]byte, error) {
	if err := s.respond(ctx, key); err != nil {
		return nil, err
	}
	return s.Store.Load(ctx, key)
}

func (s *sharedStore) List(
	ctx context.Context, prefix, after string, yield func(string, []byte) bool,
) error {
	return errors.Join(s.err(), s.Store.List(ctx, prefix, after, yield))
}

func (s *sharedStore) Update(ctx context.Context, key string, fn store.UpdateFunc) error {
	if err := s.respond(ctx, key); err != nil {
		return err
	}
	err := s.Store.Update(ctx, key, fn)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.views {
		v.changed = append(v.changed, key)
	}
	return err
}

// comeUp makes the store available again. Its watchers compare everything.
func (s *sharedStore) comeUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.views {
		v.allChanged = true
	}
	s.down.Store(false)
}

// empty deletes all records, as FLUSHALL does in Redis.
func (s *sharedStore) empty(t *testing.T) { s.lose(t, func(string) bool { return true }) }

// lose deletes the records with these keys, as if part 0 had lost them.
func (s *sharedStore) lose(t *testing.T, isLost func(key string) bool) {
	t.Helper()
	var keys []string
	err := s.Store.List(t.Context(), "", "", func(key string, _ []byte) bool {
		if isLost(key) {
			keys = append(keys, key)
		}
		return true
	})
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	remove := func(context.Context, []byte) ([]byte, error) { return nil, nil }
	for _, key := range keys {
		if err := s.Store.Update(t.Context(), key, remove); err != nil {
			t.Fatalf("Update(%s): %v", key, err)
		}
	}
	s.mu.Lock()
	s.identity++
	s.mu.Unlock()
	s.comeUp()
}

// PartOf implements store.Watcher.
func (v *storeView) PartOf(key string) int { return partOf(key) }

// partOf returns the part of a record. That of accountB is in a part of its own.
func partOf(key string) int {
	if key == "account/"+accountB {
		return 1
	}
	return 0
}

func (v *storeView) Watch(ctx context.Context, changed func(store.Changes)) {
	t := time.NewTicker(time.Millisecond)
	defer t.Stop()
	for {
		v.mu.Lock()
		keys, all, identity := v.changed, v.allChanged, fmt.Sprint(v.identity)
		if v.down.Load() {
			keys, all = nil, false
		} else {
			v.changed, v.allChanged = nil, false
		}
		v.mu.Unlock()
		switch {
		case all:
			changed(store.Changes{Keys: keys, Unknown: map[int]string{0: identity, 1: "one"}})
		case len(keys) > 0:
			changed(store.Changes{Keys: keys})
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// waitForWatcher waits until the watcher of v was told of all changes.
func (v *storeView) waitForWatcher(t *testing.T) {
	t.Helper()
	eventually(t, "the watcher is told of all changes", func() bool {
		v.mu.Lock()
		defer v.mu.Unlock()
		return len(v.changed) == 0 && !v.allChanged
	})
}

package store

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"wxproxy/internal/clock"
)

// memoryStore is a [Store] that keeps records in a map.
type memoryStore struct {
	locks *KeyLocks
	close func() error
	queue *memoryQueue

	mu      sync.RWMutex
	records map[string][]byte // nil after Close
	claims  map[string]time.Time
	sweepAt int // number of claims at which the expired ones are removed
}

// NewMemory returns an empty store for trials and tests. Its records are lost
// when the process ends, and no other process can see them.
func NewMemory() Store {
	s := &memoryStore{locks: NewKeyLocks(), records: map[string][]byte{}, claims: map[string]time.Time{}}
	s.queue = newMemoryQueue(s.isClosed)
	s.close = sync.OnceValue(func() error {
		err := s.locks.Close()
		s.mu.Lock()
		s.records = nil
		s.mu.Unlock()
		return err
	})
	return s
}

// Queue implements [Queuer].
func (s *memoryStore) Queue() Queue { return s.queue }

func (s *memoryStore) isClosed() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.records == nil
}

func (s *memoryStore) Load(ctx context.Context, key string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	record, err := s.read(key)
	if err == nil && record == nil {
		err = ErrNotFound
	}
	return record, err
}

func (s *memoryStore) Update(ctx context.Context, key string, fn UpdateFunc) error {
	return s.locks.Update(ctx, key, memoryBackend{s}, fn)
}

// memoryBackend is the store without its locks, as [KeyLocks] uses it.
type memoryBackend struct{ s *memoryStore }

func (b memoryBackend) Read(key string) ([]byte, error)       { return b.s.read(key) }
func (b memoryBackend) Write(key string, record []byte) error { return b.s.write(key, record) }
func (b memoryBackend) Quarantine(key string) error           { return b.s.quarantine(key) }

// read returns a copy, so that the caller may change it.
func (s *memoryStore) read(key string) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.records == nil {
		return nil, ErrClosed
	}
	return bytes.Clone(s.records[key]), nil
}

// write keeps a copy, as the caller may change record afterwards.
func (s *memoryStore) write(key string, record []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.records == nil:
		return ErrClosed
	case record == nil:
		delete(s.records, key)
	default:
		s.records[key] = bytes.Clone(record)
	}
	return nil
}

// quarantine moves a record to [DamagedPrefix].
func (s *memoryStore) quarantine(key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.records == nil {
		return ErrClosed
	}
	if record, ok := s.records[key]; ok {
		s.records[DamagedPrefix+key] = record
		delete(s.records, key)
	}
	return nil
}

// List sorts all keys in every call, which is fast enough for trials. It does
// not hold mu while yield runs, and skips records that are deleted meanwhile.
func (s *memoryStore) List(
	ctx context.Context, prefix, after string, yield func(key string, record []byte) bool,
) error {
	s.mu.RLock()
	if s.records == nil {
		s.mu.RUnlock()
		return ErrClosed
	}
	var keys []string
	for key := range s.records {
		if strings.HasPrefix(key, prefix) && key > after {
			keys = append(keys, key)
		}
	}
	s.mu.RUnlock()
	slices.Sort(keys)
	for _, key := range keys {
		record, err := s.Load(ctx, key)
		if err == ErrNotFound { // deleted after the keys were copied
			continue
		}
		if err != nil {
			return err
		}
		if !yield(key, record) {
			return nil
		}
	}
	return ctx.Err()
}

// minSweep is the number of claims below which expired ones are not removed.
const minSweep = 1024

func (s *memoryStore) Claim(ctx context.Context, key string, until time.Time) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.mayClaim(ctx, key); err != nil {
		return false, err
	}
	now := clock.Now()
	if !until.After(now) || s.claims[key].After(now) {
		return false, nil
	}
	// A sweep visits all claims. Between two sweeps their number has doubled,
	// so a claim costs the same however many there are.
	if len(s.claims) >= max(s.sweepAt, minSweep) {
		maps.DeleteFunc(s.claims, func(_ string, until time.Time) bool { return !until.After(now) })
		s.sweepAt = 2 * len(s.claims)
	}
	s.claims[key] = until
	return true, nil
}

func (s *memoryStore) Unclaim(ctx context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.mayClaim(ctx, key)
	if err == nil {
		delete(s.claims, key)
	}
	return err
}

// mayClaim returns why key cannot be claimed or unclaimed. The caller holds mu.
func (s *memoryStore) mayClaim(ctx context.Context, key string) error {
	switch {
	case s.records == nil:
		return ErrClosed
	case key == "":
		return ErrEmptyKey
	}
	return ctx.Err()
}

func (s *memoryStore) Ping(ctx context.Context) error {
	if _, err := s.read(""); err != nil {
		return err
	}
	return ctx.Err()
}

func (s *memoryStore) Close() error { return s.close() }

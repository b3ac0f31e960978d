package store

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
)

// memoryStore keeps records in a map, for trials and tests: nothing survives the process, and
// no other process sees it.
type memoryStore struct {
	locks *KeyLocks
	close func() error

	mu      sync.RWMutex
	records map[string][]byte // values are never changed, only replaced; nil map: closed
}

// NewMemory gives an empty store that forgets all when the process ends.
func NewMemory() Store {
	s := &memoryStore{locks: NewKeyLocks(), records: map[string][]byte{}}
	s.close = sync.OnceValue(func() error {
		err := s.locks.Close()
		s.mu.Lock()
		s.records = nil
		s.mu.Unlock()
		return err
	})
	return s
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

func (s *memoryStore) Update(ctx context.Context, key string, fn func(ctx context.Context, old []byte) ([]byte, error)) error {
	return s.locks.Update(ctx, key, memory{s}, fn)
}

// memory is the store as its locks see it: without locks.
type memory struct{ s *memoryStore }

func (m memory) Read(key string) ([]byte, error)       { return m.s.read(key) }
func (m memory) Write(key string, record []byte) error { return m.s.write(key, record) }

func (s *memoryStore) read(key string) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.records == nil {
		return nil, ErrClosed
	}
	return bytes.Clone(s.records[key]), nil
}

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

// List sorts all keys at each call, which is quick enough for trials. The lock is not held while
// yield runs: records that are deleted meanwhile are left out.
func (s *memoryStore) List(ctx context.Context, prefix, after string, yield func(key string, record []byte) bool) error {
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
		if err == ErrNotFound {
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

func (s *memoryStore) Ping(ctx context.Context) error {
	if _, err := s.read(""); err != nil {
		return err
	}
	return ctx.Err()
}

func (s *memoryStore) Close() error { return s.close() }

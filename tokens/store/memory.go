package store

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
)

// memoryStore is a [Store] that keeps records in a map.
type memoryStore struct {
	locks *KeyLocks
	close func() error

	mu      sync.RWMutex
	records map[string][]byte // nil after Close
}

// NewMemory returns an empty store for trials and tests. Its records are lost
// when the process ends, and no other process can see them.
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

func (s *memoryStore) Update(ctx context.Context, key string, fn UpdateFunc) error {
	return s.locks.Update(ctx, key, memoryBackend{s}, fn)
}

// memoryBackend is the store without its locks, as [KeyLocks] uses it.
type memoryBackend struct{ s *memoryStore }

func (b memoryBackend) Read(key string) ([]byte, error)       { return b.s.read(key) }
func (b memoryBackend) Write(key string, record []byte) error { return b.s.write(key, record) }

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

func (s *memoryStore) Ping(ctx context.Context) error {
	if _, err := s.read(""); err != nil {
		return err
	}
	return ctx.Err()
}

func (s *memoryStore) Close() error { return s.close() }

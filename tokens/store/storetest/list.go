package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// putAll saves "record of KEY" under each key.
func (s suite) putAll(keys ...string) {
	s.Helper()
	for _, key := range keys {
		s.put(key, "record of "+key)
	}
}

// listIsInKeyOrder lists by prefix. The order is that of the bytes of the keys.
func listIsInKeyOrder(s suite) {
	s.wantKeys("", "")
	s.putAll("b/2", "a/10", "c", "b", "a/1", "b/1", "a/2", "B/1")
	s.wantKeys("", "", "B/1", "a/1", "a/10", "a/2", "b", "b/1", "b/2", "c")
	s.wantKeys("a/", "", "a/1", "a/10", "a/2")
	s.wantKeys("b", "", "b", "b/1", "b/2")
	s.wantKeys("a/1", "", "a/1", "a/10")
	s.wantKeys("d", "")
	s.wantKeys("a/10/", "")
}

// listStartsAfterKey starts after existing and missing keys, inside and outside
// the prefix.
func listStartsAfterKey(s suite) {
	s.putAll("a/1", "a/2", "a/3", "b/1")
	s.wantKeys("a/", "a/1", "a/2", "a/3")
	s.wantKeys("a/", "a/11", "a/2", "a/3") // no such key
	s.wantKeys("a/", "a/3")
	s.wantKeys("a/", "b/1")        // beyond the prefix
	s.wantKeys("b/", "a/1", "b/1") // before it
	s.wantKeys("", "a/3", "b/1")   // no prefix
	s.wantKeys("a/", "a/", "a/1", "a/2", "a/3")
}

// listStopsEarly: yield returns false after two records.
func listStopsEarly(s suite) {
	s.putAll("a", "b", "c")
	var got []string
	err := s.List(s.ctx, "", "", func(key string, _ []byte) bool {
		got = append(got, key)
		return len(got) < 2
	})
	if err != nil || !slices.Equal(got, []string{"a", "b"}) {
		s.Errorf("list stopped after two: got %q, error %v, want [a b]", got, err)
	}
}

// listOfManyPages is for stores that read a list in pages.
func listOfManyPages(s suite) {
	const n = 3600
	// Several pages of the file store (1,000 records each), and two of most
	// Redis buckets (225 of 200 records).
	var keys []string
	var writers sync.WaitGroup
	for i := range n {
		keys = append(keys, fmt.Sprintf("many/%04d", i))
	}
	for chunk := range slices.Chunk(keys, 50) {
		writers.Go(func() {
			for _, key := range chunk {
				err := s.Update(s.ctx, key, replaceWith("record of "+key))
				s.noError("update", err)
			}
		})
	}
	writers.Wait()
	s.putAll("man", "manz", "z")
	s.wantKeys("many/", "", keys...)
	s.wantKeys("many/", "many/0999", keys[1000:]...)
	s.wantKeys("many/", "many/1000", keys[1001:]...)
	var got int
	err := s.List(s.ctx, "many/", "", func(string, []byte) bool { got++; return got < n })
	if err != nil || got != n {
		s.Errorf("list stopped at the last record: got %d, error %v, want %d", got, err, n)
	}
}

// canceledContext: every method returns the error of a context that has ended.
func canceledContext(s suite) {
	s.putAll("a")
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	err := s.Update(ctx, "a", func(context.Context, []byte) ([]byte, error) {
		s.Error("fn was called with a canceled context")
		return nil, nil
	})
	for name, err := range map[string]error{
		"update": err,
		"load":   func() error { _, err := s.Load(ctx, "a"); return err }(),
		"list":   s.List(ctx, "", "", func(string, []byte) bool { return true }),
		"ping":   s.Ping(ctx),
	} {
		if !errors.Is(err, context.Canceled) {
			s.Errorf("%s: got error %v, want context.Canceled", name, err)
		}
	}
	s.want("a", "record of a")
}

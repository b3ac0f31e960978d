package storetest

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sync"

	"wxproxy/tokens/store"
)

// asDamaged is a [store.UpdateFunc] that rejects the record as damaged.
func asDamaged(context.Context, []byte) ([]byte, error) {
	return store.Quarantine, fmt.Errorf("%w: for the test", store.ErrDamaged)
}

// damagedRecordsAreMoved: an update function that returns Quarantine moves the
// record, and the key is free afterwards.
func damagedRecordsAreMoved(s suite) {
	keys := func() (list []string) {
		inner := store.Innermost(s.Store)
		err := inner.List(s.ctx, store.DamagedPrefix, "", func(key string, record []byte) bool {
			if len(record) == 0 {
				s.Errorf("%q: got an empty record, want the damaged one", key)
			}
			// Stores that translate keys have more in between.
			list = append(list, key[:len(store.DamagedPrefix)]+path.Base(key))
			return true
		})
		s.noError("list", err)
		return list
	}
	for _, record := range []string{"one", "another one"} { // the second replaces the first
		s.put("a", record)
		s.put("b", "record of b")
		if err := s.Update(s.ctx, "a", asDamaged); !errors.Is(err, store.ErrDamaged) {
			s.Fatalf("update: got error %v, want ErrDamaged", err)
		}
		s.wantNone("a")
		s.wantKeys("b", "", "b")
		if got := fmt.Sprint(keys()); got != "[damaged/a]" {
			s.Fatalf("damaged records: got %s, want [damaged/a]", got)
		}
	}
	// A record that does not exist leaves nothing behind.
	if err := s.Update(s.ctx, "missing", asDamaged); !errors.Is(err, store.ErrDamaged) {
		s.Errorf("update of a missing record: got error %v, want ErrDamaged", err)
	}
	if got := fmt.Sprint(keys()); got != "[damaged/a]" {
		s.Errorf("damaged records: got %s, want [damaged/a]", got)
	}
	s.put("a", "two")
	s.want("a", "two")
	// The error alone may be that of another record.
	err := s.Update(s.ctx, "a", func(context.Context, []byte) ([]byte, error) {
		return nil, store.ErrDamaged
	})
	if !errors.Is(err, store.ErrDamaged) {
		s.Errorf("update: got error %v, want ErrDamaged", err)
	}
	s.want("a", "two")
}

// goodRecordsAreNotMoved: ten goroutines replace a damaged record by a good one
// while ten others move it away if they find it damaged. Whatever the order,
// the last good record stays.
func goodRecordsAreNotMoved(s suite) {
	for round := range 20 {
		key := fmt.Sprint("k", round)
		s.put(key, "damaged")
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				err := s.Update(s.ctx, key, func(ctx context.Context, old []byte) ([]byte, error) {
					if string(old) == "damaged" {
						return asDamaged(ctx, old)
					}
					return store.Keep, nil
				})
				if err != nil && !errors.Is(err, store.ErrDamaged) {
					s.Errorf("moving: got error %v, want none or ErrDamaged", err)
				}
			})
			all.Go(func() { s.noError("update", s.Update(s.ctx, key, replaceWith("good"))) })
		}
		all.Wait()
		s.want(key, "good")
	}
}

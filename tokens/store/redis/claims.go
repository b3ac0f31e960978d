package redis

import (
	"context"
	"crypto/rand"
	"time"

	"wxproxy/internal/clock"
	"wxproxy/tokens/store"
)

// Claim implements [store.Store]. Redis gets the time that is left, not the
// time at which the claim ends: its clock may differ.
func (s *Store) Claim(ctx context.Context, key string, until time.Time) (bool, error) {
	if err := s.mayClaim(ctx, key); err != nil {
		return false, err
	}
	left := until.Sub(clock.Now())
	if left <= 0 {
		return false, nil
	}
	keys := []string{s.bucket(key).claim + key}
	// One millisecond is the shortest time that Redis accepts.
	first, err := claimScript.Run(ctx, s.client, keys,
		rand.Text(), max(left.Milliseconds(), 1)).Int()
	if err != nil {
		return false, s.convertError(ctx, err)
	}
	return first == 1, nil
}

// Unclaim implements [store.Store].
func (s *Store) Unclaim(ctx context.Context, key string) error {
	if err := s.mayClaim(ctx, key); err != nil {
		return err
	}
	return s.convertError(ctx, s.client.Del(ctx, s.bucket(key).claim+key).Err())
}

// mayClaim returns why a key cannot be claimed or unclaimed.
func (s *Store) mayClaim(ctx context.Context, key string) error {
	if key == "" {
		return store.ErrEmptyKey
	}
	return s.usable(ctx)
}

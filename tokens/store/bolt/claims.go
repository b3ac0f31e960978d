package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"wxproxy/tokens/store"
)

// The buckets of claims. The first claim of a file creates them; versions that
// do not know them ignore them.
var (
	// claimsBucket maps a claim to its end.
	claimsBucket = []byte("claims")
	// claimEndsBucket holds the same claims in the order in which they end. Its
	// keys are the end followed by the claim, its values are empty.
	claimEndsBucket = []byte("claim_ends")
)

// claimEndSize is the length of an end in bytes: Unix time in milliseconds, big
// endian.
const claimEndSize = 8

// minSweep is how many expired claims a commit removes at least, if there are
// so many. A commit with claims removes twice as many as it adds, so the
// expired ones cannot pile up, and no commit takes long because of them.
const minSweep = 16

// Claim implements [store.Store]. Concurrent claims share a commit with other
// writes. A claim that is known already costs no commit.
func (s *Store) Claim(ctx context.Context, key string, until time.Time) (bool, error) {
	if err := checkClaim(ctx, key); err != nil {
		return false, err
	}
	now := s.now
	if !until.After(now()) {
		return false, nil
	}
	taken := false
	err := s.viewTx(func(tx *bbolt.Tx) error {
		taken = isClaimed(tx, key, now())
		return nil
	})
	if err != nil || taken {
		return false, err
	}
	first := false
	err = s.commit(ctx, newWrite(func(tx *bbolt.Tx) error {
		if isClaimed(tx, key, now()) {
			return nil
		}
		first = true
		return putClaim(tx, key, until)
	}))
	// After an error the write may still be in progress, so first must not be
	// read.
	if err != nil {
		return false, err
	}
	return first, nil
}

// Unclaim implements [store.Store].
func (s *Store) Unclaim(ctx context.Context, key string) error {
	if err := checkClaim(ctx, key); err != nil {
		return err
	}
	return s.commit(ctx, newWrite(func(tx *bbolt.Tx) error {
		return deleteClaim(tx, key)
	}))
}

// checkClaim returns why a key cannot be claimed. bbolt would reject it in the
// commit, together with the writes of others.
func checkClaim(ctx context.Context, key string) error {
	switch {
	case key == "":
		return store.ErrEmptyKey
	case claimEndSize+len(key) > bbolt.MaxKeySize:
		return fmt.Errorf("claim too long: got %d bytes, limit %d", len(key), bbolt.MaxKeySize-claimEndSize)
	}
	return ctx.Err()
}

// claimEnd returns the end of a claim. end is nil if it is damaged.
func claimEnd(tx *bbolt.Tx, key string) (end []byte, exists bool) {
	claims := tx.Bucket(claimsBucket)
	if claims == nil {
		return nil, false
	}
	end, err := decodeValue([]byte(key), claims.Get([]byte(key)))
	if err != nil || end != nil && len(end) != claimEndSize {
		return nil, true
	}
	return end, end != nil
}

// isClaimed reports whether a claim exists and has not ended. A damaged claim
// counts until it is swept: its end is known from the other bucket.
func isClaimed(tx *bbolt.Tx, key string, now time.Time) bool {
	end, exists := claimEnd(tx, key)
	return exists && (end == nil || bytes.Compare(end, encodeEnd(now)) > 0)
}

// encodeEnd returns a time in the form in which ends are stored and sorted.
func encodeEnd(t time.Time) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(t.UnixMilli()))
}

// putClaim adds a claim, in place of one that has ended.
func putClaim(tx *bbolt.Tx, key string, until time.Time) error {
	if err := deleteClaim(tx, key); err != nil {
		return err
	}
	claims, err := tx.CreateBucketIfNotExists(claimsBucket)
	if err != nil {
		return err
	}
	ends, err := tx.CreateBucketIfNotExists(claimEndsBucket)
	if err != nil {
		return err
	}
	end := encodeEnd(until)
	if err := claims.Put([]byte(key), encodeValue([]byte(key), end)); err != nil {
		return err
	}
	return ends.Put(append(end, key...), nil)
}

func deleteClaim(tx *bbolt.Tx, key string) error {
	end, _ := claimEnd(tx, key)
	if end == nil {
		return nil
	}
	if err := tx.Bucket(claimsBucket).Delete([]byte(key)); err != nil {
		return err
	}
	return tx.Bucket(claimEndsBucket).Delete(append(end, key...))
}

// sweepClaims removes claims that have ended, the oldest first, at most limit.
// It removes damaged ones too.
func sweepClaims(tx *bbolt.Tx, now time.Time, limit int) error {
	ends := tx.Bucket(claimEndsBucket)
	if ends == nil {
		return nil
	}
	last := encodeEnd(now)
	var ended [][]byte // deleting would move the cursor
	c := ends.Cursor()
	for k, _ := c.First(); k != nil && len(ended) < limit; k, _ = c.Next() {
		if len(k) < claimEndSize || bytes.Compare(k[:claimEndSize], last) > 0 {
			break
		}
		ended = append(ended, bytes.Clone(k))
	}
	claims := tx.Bucket(claimsBucket)
	for _, k := range ended {
		if err := claims.Delete(k[claimEndSize:]); err != nil {
			return err
		}
		if err := ends.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

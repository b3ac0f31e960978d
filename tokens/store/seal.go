package store

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"time"
)

// sealedStore is a [Store] whose records are encrypted. The keys stay readable:
// they are appids, and List must find records by prefix.
type sealedStore struct {
	inner  Store
	sealer *sealer
}

// Seal returns a store that encrypts the records of inner with AES-256-GCM. key
// must be [KeySize] bytes long. [As] finds the [Watcher] that inner is: the feed
// consists of keys, which are not encrypted.
//
// A record that was changed, damaged or moved to another key counts as damaged,
// see [ErrDamaged]. Records below [DamagedPrefix] are hidden, except from a List
// whose prefix begins with it: they are listed as they are stored.
//
// The first Seal of a store saves a check record, which detects a wrong key at
// once. From then on Seal returns [ErrWrongKey] for any other key. It returns
// [ErrCorrupt] if inner holds records that were never sealed. In both cases
// nothing was written. inner stays open whatever Seal returns.
//
// Nonces are random. That is safe for 2^32 writes with one key: 13 years at ten
// writes a second.
func Seal(ctx context.Context, inner Store, key []byte) (Store, error) {
	sealer, err := newSealer(key)
	if err != nil {
		return nil, err
	}
	if err := checkSealKey(ctx, inner, sealer); err != nil {
		return nil, err
	}
	return &sealedStore{inner: inner, sealer: sealer}, nil
}

// Unwrap returns the store with the encrypted records, see [As].
func (s *sealedStore) Unwrap() Store { return s.inner }

func (s *sealedStore) Load(ctx context.Context, key string) ([]byte, error) {
	if isReserved(key) {
		return nil, ErrNotFound
	}
	sealed, err := s.inner.Load(ctx, key)
	if err != nil {
		return nil, err
	}
	return s.sealer.open(key, sealed)
}

func (s *sealedStore) Update(ctx context.Context, key string, fn UpdateFunc) error {
	if isReserved(key) {
		return fmt.Errorf("key %q is reserved", key)
	}
	return s.inner.Update(ctx, key, func(ctx context.Context, sealed []byte) ([]byte, error) {
		var old []byte
		if sealed != nil {
			var err error
			if old, err = s.sealer.open(key, sealed); err != nil {
				return Quarantine, err
			}
		}
		record, err := fn(ctx, old)
		if err != nil || len(record) == 0 { // nil deletes, an empty record is no record
			return record, err
		}
		return s.sealer.seal(key, record), nil
	})
}

// isReserved reports whether key belongs to the seal, or is that of a damaged
// record.
func isReserved(key string) bool {
	return strings.HasPrefix(key, sealPrefix) || strings.HasPrefix(key, DamagedPrefix)
}

// List decrypts each record just before it is yielded.
func (s *sealedStore) List(
	ctx context.Context, prefix, after string, yield func(key string, record []byte) bool,
) error {
	if strings.HasPrefix(prefix, DamagedPrefix) {
		return s.inner.List(ctx, prefix, after, yield)
	}
	return s.inner.List(ctx, prefix, after, func(key string, sealed []byte) bool {
		if isReserved(key) {
			return true
		}
		record, _ := s.sealer.open(key, sealed) // nil if it cannot be opened
		return yield(key, record)
	})
}

// Claim hashes the key: what was claimed, such as a signature, does not become
// readable in the database.
func (s *sealedStore) Claim(ctx context.Context, key string, until time.Time) (bool, error) {
	return s.inner.Claim(ctx, claimName(key), until)
}

func (s *sealedStore) Unclaim(ctx context.Context, key string) error {
	return s.inner.Unclaim(ctx, claimName(key))
}

// claimName returns the name under which the inner store remembers a claim. It
// does not depend on the sealing key: replicas agree on it while that is being
// changed. The empty key, which no store accepts, stays empty.
func claimName(key string) string {
	if key == "" {
		return ""
	}
	sum := sha256.Sum256([]byte("wxproxy claim 1\x00" + key))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func (s *sealedStore) Ping(ctx context.Context) error { return s.inner.Ping(ctx) }

func (s *sealedStore) Close() error { return s.inner.Close() }

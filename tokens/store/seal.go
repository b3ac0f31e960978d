package store

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// sealedStore is a [Store] whose records are encrypted. The keys stay readable:
// they are appids, and List must find records by prefix.
type sealedStore struct {
	inner Store
	ring  *keyring

	mu       sync.Mutex   // held by prepare
	prepared atomic.Int64 // until when, in Unix nanoseconds; 0 before the first write
	// outdated is set while the key of the store is one that this process lacks.
	outdated atomic.Bool

	// changedTo is the key of the store, and changedAt when this process saw that
	// records are to be sealed with it. Only Reseal uses them.
	changedTo *sealer
	changedAt time.Time
}

// Seal returns a store that encrypts the records of inner with AES-256-GCM. key
// must be [KeySize] bytes long. [As] finds the [Watcher] that inner is: the feed
// consists of keys, which are not encrypted. The result is a [Resealer], and a
// [Queuer] if inner is one: the payloads of entries are encrypted, too.
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
// previous are keys that only open records. A store whose key was one of them
// is sealed with key from the first write on. Until all records are, Seal
// returns ErrWrongKey if it gets key alone. Processes that share a store and
// have both keys, in any order, read and write the same records.
//
// Nonces are random. That is safe for 2^32 writes with one key: 13 years at ten
// writes a second.
func Seal(ctx context.Context, inner Store, key []byte, previous ...[]byte) (Store, error) {
	ring, err := newKeyring(key, previous...)
	if err != nil {
		return nil, err
	}
	if err := checkSealKey(ctx, inner, ring); err != nil {
		return nil, err
	}
	s := &sealedStore{inner: inner, ring: ring}
	if q, ok := As[Queuer](inner); ok {
		return &sealedQueuer{s, &sealedQueue{q.Queue(), s}}, nil
	}
	return s, nil
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
	record, _, err := s.ring.open(key, sealed)
	if err != nil {
		return nil, s.explain(ctx, sealed, err)
	}
	return record, nil
}

func (s *sealedStore) Update(ctx context.Context, key string, fn UpdateFunc) error {
	if isReserved(key) {
		return fmt.Errorf("key %q is reserved", key)
	}
	if err := s.prepare(ctx); err != nil {
		return err
	}
	return s.inner.Update(ctx, key, func(ctx context.Context, sealed []byte) ([]byte, error) {
		var old []byte
		if sealed != nil {
			var err error
			if old, _, err = s.ring.open(key, sealed); err != nil {
				if err = s.explain(ctx, sealed, err); errors.Is(err, ErrDamaged) {
					return Quarantine, err
				}
				return nil, err
			}
		}
		record, err := fn(ctx, old)
		if err != nil || len(record) == 0 { // nil deletes, an empty record is no record
			return record, err
		}
		return s.ring.seal(key, record), nil
	})
}

// explain returns what err of keyring.open means for a record: damage, or
// [ErrForeignKey] if the store knows the key that this process does not have.
func (s *sealedStore) explain(ctx context.Context, sealed []byte, err error) error {
	if !errors.Is(err, errUnknownKey) && !errors.Is(err, errUnknownVersion) {
		return err
	}
	st, loadErr := loadSealState(ctx, s.inner, s.ring)
	if loadErr != nil {
		return loadErr
	}
	var foreign bool
	switch id, hasID := sealedBy(sealed); {
	case hasID:
		foreign = st.isKnown(id) || st.isForeign()
	case errors.Is(err, errUnknownVersion):
		foreign = len(st.check) > 0 && st.check[0] >= sealed[0]
	default: // it has no key id
		foreign = st.lacksKey(s.ring) || st.by == nil && st.check != nil
	}
	if foreign {
		return ErrForeignKey
	}
	return err
}

// keyRefresh is how late a process notices that another one has changed the key
// of the store. Until then it seals with the key before, which is re-sealed.
const keyRefresh = 10 * time.Second

// prepare makes sure that the check record is sealed with the key with which
// records are sealed: no record of a new form or key may exist before it. It
// returns [ErrForeignKey] if that is a key which this process does not have: a
// record of the key before could stay when [Reseal] is done.
func (s *sealedStore) prepare(ctx context.Context) error {
	err := s.refresh(ctx)
	if err == nil && s.outdated.Load() {
		err = fmt.Errorf("the key of the store was changed: %w", ErrForeignKey)
	}
	return err
}

// refresh calls refreshKey if that was not done a short while ago.
func (s *sealedStore) refresh(ctx context.Context) error {
	until := s.prepared.Load()
	if time.Now().UnixNano() < until {
		return nil
	}
	if until == 0 {
		s.mu.Lock() // the first write waits for it
	} else if !s.mu.TryLock() {
		return nil
	}
	defer s.mu.Unlock()
	if until == 0 && s.prepared.Load() != 0 {
		return nil
	}
	_, err := s.refreshKey(ctx)
	if until != 0 && err != nil {
		err = nil // the write itself fails, too, if the store does not respond
	} else if err == nil {
		s.prepared.Store(time.Now().Add(keyRefresh).UnixNano())
	}
	return err
}

// refreshKey reads with which key records are to be sealed, and notes it in the
// store if it is a new one.
func (s *sealedStore) refreshKey(ctx context.Context) (st sealState, err error) {
	if st, err = loadSealState(ctx, s.inner, s.ring); err != nil {
		return st, err
	}
	s.outdated.Store(st.isForeign())
	if st.by == nil && st.check != nil {
		return st, nil
	}
	target, _ := st.target(s.ring)
	if !target.isTarget(st.check) {
		if err := s.changeKey(ctx); err != nil {
			return st, err
		}
		if st, err = loadSealState(ctx, s.inner, s.ring); err != nil {
			return st, err
		}
		target, _ = st.target(s.ring)
	}
	s.ring.target.Store(target)
	return st, nil
}

// changeKey seals the check record in the present form, with the key of the
// configuration. The history is written first: a process that finds the new
// check record also finds that records are left.
func (s *sealedStore) changeKey(ctx context.Context) error {
	return s.inner.Update(ctx, checkKey, func(ctx context.Context, _ []byte) ([]byte, error) {
		st, err := loadSealState(ctx, s.inner, s.ring)
		if err != nil {
			return nil, err
		}
		target, _ := st.target(s.ring)
		if st.by == nil && st.check != nil || target.isTarget(st.check) {
			return Keep, nil // another process was quicker
		}
		h := &st.history
		h.Version, h.Pending, h.After, h.Changed, h.Settled = 1, true, "", false, false
		for _, k := range []*sealer{st.by, target} {
			if k != nil {
				id := k.id.String()
				h.IDs = append(slices.DeleteFunc(h.IDs, func(x string) bool { return x == id }), id)
			}
		}
		h.IDs = h.IDs[max(0, len(h.IDs)-maxKeyHistory):]
		err = s.inner.Update(ctx, keysKey, func(context.Context, []byte) ([]byte, error) {
			return target.seal(keysKey, encodeHistory(h)), nil
		})
		if err != nil {
			return nil, err
		}
		return target.seal(checkKey, []byte(checkText)), nil
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
		record, _, _ := s.ring.open(key, sealed) // nil if it cannot be opened
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

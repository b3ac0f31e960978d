package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	// sealPrefix begins the keys that belong to the seal. Users of a sealed
	// store neither see nor write them.
	sealPrefix = "seal/"
	// checkKey is the key of the check record, and checkText its content. The
	// record exists so that a wrong key is detected when the store is opened,
	// before any record is written with it. It is sealed with the key with
	// which records are to be sealed.
	checkKey  = sealPrefix + "check"
	checkText = "wxproxy: this store is sealed with the key that opens this record"
	// keysKey is the key of the record of all keys, see keyHistory.
	keysKey = sealPrefix + "keys"
)

// keyHistory is the record under keysKey. It is sealed with the newest key. A
// store of an earlier version, and one whose key was never changed, has none.
type keyHistory struct {
	Version int `json:"v"`
	// IDs are the ids of all keys that the store was sealed with, the newest
	// last. A process whose key is not the last one has an outdated
	// configuration: it does not change the key back.
	IDs []string `json:"ids"`
	// Pending is set while records may not be sealed with the newest key.
	Pending bool `json:"pending"`
	// After is the key of the last record that Reseal has looked at.
	After string `json:"after,omitempty"`
	// Changed is set if this pass of Reseal has found a record to seal.
	Changed bool `json:"changed,omitempty"`
	// Settled is set if this pass began when no process sealed records with the
	// key before any more; see keySettle.
	Settled bool `json:"settled,omitempty"`
}

// maxKeyHistory bounds the ids that are kept.
const maxKeyHistory = 32

// sealState is what a store says about its keys.
type sealState struct {
	check   []byte // the check record; nil if there is none, or if it is damaged
	by      *sealer
	history keyHistory
	// foreignHistory is set if the history is sealed with an unknown key.
	foreignHistory bool
}

// isForeign reports whether the key of the store was changed to one that the
// process does not have. A damaged check record alone does not say so.
func (st *sealState) isForeign() bool {
	_, hasID := sealedBy(st.check)
	return hasID && st.by == nil && st.foreignHistory
}

// loadSealState reads the state with the keys of r. by is nil if none of them
// opens the check record.
func loadSealState(ctx context.Context, inner Store, r *keyring) (st sealState, err error) {
	if st.check, err = loadRaw(ctx, inner, checkKey); err != nil {
		return st, err
	}
	raw, err := loadRaw(ctx, inner, keysKey)
	if err != nil {
		return st, err
	}
	text, _, err := r.open(keysKey, raw)
	if err == nil {
		_ = json.Unmarshal(text, &st.history) // a damaged one is written anew
	}
	st.foreignHistory = errors.Is(err, errUnknownKey)
	if text, by, err := r.open(checkKey, st.check); err == nil && string(text) == checkText {
		st.by = by
	}
	return st, nil
}

// loadRaw returns nil for a record that is missing or damaged.
func loadRaw(ctx context.Context, inner Store, key string) ([]byte, error) {
	raw, err := inner.Load(ctx, key)
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrDamaged) {
		return nil, nil
	}
	return raw, err
}

// isKnown reports whether the store was sealed with the key of that id. What is
// sealed with any other key is damaged.
func (st *sealState) isKnown(id keyID) bool {
	if newest, ok := sealedBy(st.check); ok && newest == id {
		return true
	}
	return slices.Contains(st.history.IDs, id.String())
}

// lacksKey reports whether records may be sealed with a key that r does not
// have.
func (st *sealState) lacksKey(r *keyring) bool {
	if !st.history.Pending {
		return false
	}
	return slices.ContainsFunc(st.history.IDs, func(id string) bool {
		return !slices.ContainsFunc(r.sealers, func(s *sealer) bool { return s.id.String() == id })
	})
}

// target returns the key with which records are to be sealed, and whether that
// is another one than until now.
func (st *sealState) target(r *keyring) (target *sealer, isNew bool) {
	current := r.current()
	switch {
	case st.by == nil, st.by == current:
		return current, st.by == nil
	case st.age(current.id) >= 0 && st.age(current.id) < st.age(st.by.id):
		return st.by, false // the configuration is older than the store
	}
	return current, true
}

// age returns the position of a key among all, -1 if it is not known.
func (st *sealState) age(id keyID) int { return slices.Index(st.history.IDs, id.String()) }

// checkSealKey makes sure that inner is sealed with a key of r. It saves the
// check record if inner has none and may get one, see mayInitialize. Apart from
// that it changes nothing: a new key is used from the first write on.
func checkSealKey(ctx context.Context, inner Store, r *keyring) error {
	st, err := loadSealState(ctx, inner, r)
	if err != nil {
		return err
	}
	if st.by == nil {
		if err := initialize(ctx, inner, r); err != nil {
			return err
		}
		if st, err = loadSealState(ctx, inner, r); err != nil {
			return err
		}
	}
	target, _ := st.target(r)
	r.target.Store(target)
	if st.lacksKey(r) {
		return checkNothingIsLeft(ctx, inner, r)
	}
	return nil
}

// initialize writes a missing or damaged check record.
func initialize(ctx context.Context, inner Store, r *keyring) error {
	// Write under the lock: if several replicas start on an empty store, one of
	// them saves the record, and none has stored anything before it exists.
	write := func(ctx context.Context, check []byte) ([]byte, error) {
		if check != nil {
			if err := verifyCheck(r, check); err == nil || !errors.Is(err, errCheckDamaged) {
				return Keep, err
			}
		}
		by, err := mayInitialize(ctx, inner, r, check != nil)
		if err != nil {
			return nil, err
		}
		return by.seal(checkKey, []byte(checkText)), nil
	}
	err := inner.Update(ctx, checkKey, write)
	if errors.Is(err, ErrDamaged) { // it was moved
		err = inner.Update(ctx, checkKey, write)
	}
	return err
}

// verifyCheck returns nil if r opens the check record, ErrWrongKey if it is
// sealed with another key, and ErrCorrupt if it is damaged.
func verifyCheck(r *keyring, check []byte) error {
	text, _, err := r.open(checkKey, check)
	switch {
	case err == nil && string(text) == checkText:
		return nil
	case errors.Is(err, errUnknownKey):
		return ErrWrongKey
	case errors.Is(err, errUnknownVersion):
		return fmt.Errorf("%w: its record %q has an unknown version: "+
			"a newer wxproxy wrote it", ErrCorrupt, checkKey)
	}
	return errCheckDamaged
}

var errCheckDamaged = fmt.Errorf("%w: its record %q has unexpected content", ErrCorrupt, checkKey)

// sampleSize is how many records mayInitialize looks at. One that opens is
// enough; more are for a store of which some are damaged.
const sampleSize = 100

// mayInitialize returns the key for a check record that is to be created: the
// one that opens one of the first records, or the current one if inner is
// empty. The former happens if the check record was deleted, by hand or by a
// Redis that evicts keys, or if it is damaged.
func mayInitialize(
	ctx context.Context, inner Store, r *keyring, damaged bool,
) (by *sealer, err error) {
	var result error
	if damaged {
		result = errCheckDamaged
	}
	left := sampleSize
	err = inner.List(ctx, "", "", func(key string, sealed []byte) bool {
		if isReserved(key) || sealed == nil {
			return true
		}
		var openErr error
		_, by, openErr = r.open(key, sealed)
		switch {
		case openErr == nil:
			return false
		case errors.Is(openErr, errUnknownKey):
			result = ErrWrongKey
		case result == nil:
			result = fmt.Errorf("%w: it holds records that were never sealed, such as %q",
				ErrCorrupt, key)
		}
		left--
		return left > 0
	})
	switch {
	case err != nil || by != nil:
		return by, err
	case result != nil:
		return nil, result
	}
	return r.current(), nil
}

// errStopped ends a List early.
var errStopped = errors.New("stopped")

// leftTimeout bounds the search of checkNothingIsLeft.
const leftTimeout = 20 * time.Second

// checkNothingIsLeft returns ErrWrongKey if a record is still sealed with a key
// that r does not have. It is only called while that is possible.
func checkNothingIsLeft(ctx context.Context, inner Store, r *keyring) error {
	ctx, cancel := context.WithTimeoutCause(ctx, leftTimeout, errStopped)
	defer cancel()
	first := ""
	err := inner.List(ctx, "", "", func(key string, sealed []byte) bool {
		if sealed == nil || isReserved(key) || r.target.Load().isTarget(sealed) {
			return true
		}
		if _, _, err := r.open(key, sealed); errors.Is(err, errUnknownKey) {
			first = key
		}
		return first == ""
	})
	if q, ok := As[Queuer](inner); ok && first == "" && err == nil {
		err = q.Queue().Scan(ctx, func(e QueueEntry) bool {
			if _, _, err := r.open(e.String(), e.Payload); errors.Is(err, errUnknownKey) {
				first = e.String()
			}
			return first == ""
		})
	}
	switch {
	case first != "":
		return fmt.Errorf("%w: records such as %q are still sealed with the key before: "+
			"set previous_key until re-sealing is done; "+
			"wxproxy store verify says how many are left", ErrWrongKey, first)
	case err != nil && errors.Is(context.Cause(ctx), errStopped):
		return fmt.Errorf("%w: records may still be sealed with the key before: "+
			"set previous_key until re-sealing is done", ErrWrongKey)
	}
	return err
}

package store

import (
	"context"
	"errors"
	"fmt"
)

const (
	// sealPrefix begins the keys that belong to the seal. Users of a sealed
	// store neither see nor write them.
	sealPrefix = "seal/"
	// checkKey is the key of the check record, and checkText its content. The
	// record exists so that a wrong key is detected when the store is opened,
	// before any record is written with it.
	checkKey  = sealPrefix + "check"
	checkText = "wxproxy: this store is sealed with the key that opens this record"
)

// checkSealKey makes sure that inner is sealed with the key of s. It saves the
// check record if inner has none and may get one, see mayInitialize.
func checkSealKey(ctx context.Context, inner Store, s *sealer) error {
	check, err := inner.Load(ctx, checkKey)
	if err == nil {
		return verifyCheck(s, check)
	}
	if !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrDamaged) {
		return err
	}
	// Write under the lock: if several replicas start on an empty store, one of
	// them saves the record, and none has stored anything before it exists.
	initialize := func(ctx context.Context, check []byte) ([]byte, error) {
		if check != nil {
			return Keep, verifyCheck(s, check)
		}
		if err := mayInitialize(ctx, inner, s); err != nil {
			return nil, err
		}
		return s.seal(checkKey, []byte(checkText)), nil
	}
	err = inner.Update(ctx, checkKey, initialize)
	if errors.Is(err, ErrDamaged) { // it was moved
		err = inner.Update(ctx, checkKey, initialize)
	}
	return err
}

// verifyCheck returns nil if s opens the check record.
func verifyCheck(s *sealer, check []byte) error {
	text, err := s.open(checkKey, check)
	switch {
	case err == nil && string(text) == checkText:
		return nil
	case err != nil && hasSealVersion(check):
		return ErrWrongKey
	}
	return fmt.Errorf("%w: its record %q has unexpected content: "+
		"it is damaged or a newer wxproxy wrote it", ErrCorrupt, checkKey)
}

// sampleSize is how many records mayInitialize looks at. One that opens is
// enough; more are for a store of which some are damaged.
const sampleSize = 100

// mayInitialize returns nil if a missing check record may be created: inner is
// empty, or one of its first records opens with s. The latter happens if the
// check record was deleted, by hand or by a Redis that evicts keys.
func mayInitialize(ctx context.Context, inner Store, s *sealer) error {
	var result error
	left := sampleSize
	err := inner.List(ctx, "", "", func(key string, sealed []byte) bool {
		if isReserved(key) || sealed == nil {
			return true
		}
		_, err := s.open(key, sealed)
		switch {
		case err == nil:
			result = nil
			return false
		case hasSealVersion(sealed):
			result = ErrWrongKey
		case result == nil:
			result = fmt.Errorf("%w: it holds records that were never sealed, such as %q",
				ErrCorrupt, key)
		}
		left--
		return left > 0
	})
	if err != nil {
		return err
	}
	return result
}

func hasSealVersion(sealed []byte) bool { return len(sealed) > 0 && sealed[0] == sealVersion }

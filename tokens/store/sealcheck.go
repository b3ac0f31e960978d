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
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	// Write under the lock: if several replicas start on an empty store, one of
	// them saves the record, and none has stored anything before it exists.
	return inner.Update(ctx, checkKey, func(ctx context.Context, check []byte) ([]byte, error) {
		if check != nil {
			return Keep, verifyCheck(s, check)
		}
		if err := mayInitialize(ctx, inner, s); err != nil {
			return nil, err
		}
		return s.seal(checkKey, []byte(checkText)), nil
	})
}

// verifyCheck returns nil if s opens the check record.
func verifyCheck(s *sealer, check []byte) error {
	text, err := s.open(checkKey, check)
	switch {
	case err == nil && string(text) == checkText:
		return nil
	case err != nil && hasSealVersion(check):
		return ErrWrongKey
	case err != nil:
		return err
	}
	return corruptRecord(checkKey, "has unexpected content")
}

// mayInitialize returns nil if a missing check record may be created: inner is
// empty, or its first record opens with s. The latter happens if the check
// record was deleted, by hand or by a Redis that evicts keys.
func mayInitialize(ctx context.Context, inner Store, s *sealer) error {
	var result error
	err := inner.List(ctx, "", "", func(key string, sealed []byte) bool {
		_, err := s.open(key, sealed)
		switch {
		case err == nil:
		case hasSealVersion(sealed):
			result = ErrWrongKey
		default:
			result = fmt.Errorf("%w: it holds records that were never sealed, such as %q", ErrCorrupt, key)
		}
		return false // one record is enough: all were sealed with the same key
	})
	if err != nil {
		return err
	}
	return result
}

func hasSealVersion(sealed []byte) bool { return len(sealed) > 0 && sealed[0] == sealVersion }

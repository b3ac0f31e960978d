package store

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"strings"
)

// KeySize is the length of the key of a sealed store, in bytes.
const KeySize = 32

const (
	// sealVersion is the first byte of what Seal stores:
	//
	//	version (1) · nonce (12) · AES-256-GCM ciphertext · tag (16)
	sealVersion = 1

	// sealPurpose stands before the record's key in the additional data. A record that is moved
	// under another key, or that the same AES key sealed for something else, does not open.
	sealPurpose = "wxproxy sealed record 1\x00"

	// sealPrefix begins the keys that are the seal's own. Users of a sealed store never see them.
	sealPrefix = "seal/"
	checkKey   = sealPrefix + "check"
	checkText  = "wxproxy: this store is sealed with the key that opens this record"
)

// sealed is a Store whose records mean nothing without a key. The keys of the records stay
// readable: they are appids, and List has to find them.
type sealed struct {
	inner Store
	aead  cipher.AEAD
}

// Seal puts encryption in front of inner: AES-256-GCM with key, which has [KeySize] bytes.
// Records that were changed, damaged or moved under another key are told as ErrCorrupt, by
// Load, Update and List, and never overwritten.
//
// At first use a record is made by which a wrong key is known at once: then Seal returns
// ErrWrongKey, and ErrCorrupt where inner holds what nobody sealed. It has
// written nothing in these cases, and inner stays open in all.
//
// Nonces are random. That is sound for 2^32 writes with one key; at ten a second, 13 years.
func Seal(ctx context.Context, inner Store, key []byte) (Store, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("a store is sealed with a key of %d bytes, this one has %d", KeySize, len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	s := &sealed{inner: inner, aead: aead}
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	if w, ok := inner.(Watcher); ok {
		return &sealedWatched{s, w}, nil
	}
	return s, nil
}

// sealedWatched is a sealed store that others write to as well: the keys of the records are readable, so it can be watched.
type sealedWatched struct {
	*sealed
	Watcher
}

// check makes sure that key is the one with which the store was sealed.
func (s *sealed) check(ctx context.Context) error {
	box, err := s.inner.Load(ctx, checkKey)
	if errors.Is(err, ErrNotFound) {
		// Under the lock: of several replicas that start on an empty store one makes the record,
		// and none of them has stored anything before it is made.
		return s.inner.Update(ctx, checkKey, func(ctx context.Context, box []byte) ([]byte, error) {
			if box != nil {
				return Keep, s.verify(box)
			}
			if err := s.vacant(ctx); err != nil {
				return nil, err
			}
			return s.close(checkKey, []byte(checkText)), nil
		})
	}
	if err != nil {
		return err
	}
	return s.verify(box)
}

func (s *sealed) verify(box []byte) error {
	text, err := s.open(checkKey, box)
	switch {
	case err == nil && string(text) == checkText:
		return nil
	case err != nil && len(box) > 0 && box[0] == sealVersion:
		return ErrWrongKey
	case err != nil:
		return err
	}
	return corruptRecord(checkKey, "does not say what it should")
}

// vacant is asked where the check record is missing: may one be made? Yes in an empty store, and
// where a record opens with our key (somebody cleared a part of the store, or an evicting cache did).
func (s *sealed) vacant(ctx context.Context) error {
	var verdict error
	err := s.inner.List(ctx, "", "", func(key string, box []byte) bool {
		_, err := s.open(key, box)
		switch {
		case err == nil:
		case len(box) > 0 && box[0] == sealVersion:
			verdict = ErrWrongKey
		default:
			verdict = fmt.Errorf("%w: it holds records that were never sealed, such as %q", ErrCorrupt, key)
		}
		return false
	})
	if err != nil {
		return err
	}
	return verdict
}

// close seals record; open is its reverse. The receiver's Close is the one with the capital.
func (s *sealed) close(key string, record []byte) []byte {
	box := make([]byte, 1, 1+len(record)+s.aead.Overhead())
	box[0] = sealVersion
	return s.aead.Seal(box, nil, record, additional(key))
}

func (s *sealed) open(key string, box []byte) ([]byte, error) {
	if len(box) > 0 && box[0] > sealVersion {
		return nil, corruptRecord(key, "is sealed in a way that this wxproxy does not know: it is damaged, or a newer one wrote it")
	}
	if len(box) < 1+s.aead.Overhead() || box[0] != sealVersion {
		return nil, corruptRecord(key, "is not a sealed one")
	}
	record, err := s.aead.Open([]byte{}, nil, box[1:], additional(key))
	if err != nil {
		// The library's error is left out: it says "authentication failed", which readers take for a login.
		return nil, corruptRecord(key, "does not open: it was changed, or sealed with another key")
	}
	return record, nil
}

func additional(key string) []byte { return append([]byte(sealPurpose), key...) }

func corruptRecord(key, what string) error {
	return fmt.Errorf("%w: the record %q %s", ErrCorrupt, key, what)
}

func (s *sealed) Load(ctx context.Context, key string) ([]byte, error) {
	if strings.HasPrefix(key, sealPrefix) {
		return nil, ErrNotFound
	}
	box, err := s.inner.Load(ctx, key)
	if err != nil {
		return nil, err
	}
	return s.open(key, box)
}

func (s *sealed) Update(ctx context.Context, key string, fn func(ctx context.Context, old []byte) ([]byte, error)) error {
	if strings.HasPrefix(key, sealPrefix) {
		return fmt.Errorf("the key %q is reserved for the seal", key)
	}
	return s.inner.Update(ctx, key, func(ctx context.Context, box []byte) ([]byte, error) {
		var old []byte
		if box != nil {
			var err error
			if old, err = s.open(key, box); err != nil {
				return nil, err
			}
		}
		record, err := fn(ctx, old)
		if err != nil || len(record) == 0 { // nil deletes, an empty one is Keep
			return record, err
		}
		return s.close(key, record), nil
	})
}

// List opens each record when its turn comes. The first that does not open ends it, after
// the ones before it were yielded.
func (s *sealed) List(ctx context.Context, prefix, after string, yield func(key string, record []byte) bool) error {
	var damage error
	err := s.inner.List(ctx, prefix, after, func(key string, box []byte) bool {
		if strings.HasPrefix(key, sealPrefix) {
			return true
		}
		var record []byte
		if record, damage = s.open(key, box); damage != nil {
			return false
		}
		return yield(key, record)
	})
	if damage != nil {
		return damage
	}
	return err
}

func (s *sealed) Ping(ctx context.Context) error { return s.inner.Ping(ctx) }

func (s *sealed) Close() error { return s.inner.Close() }

package store

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync/atomic"
)

// KeySize is the length of the key of a sealed store, in bytes.
const KeySize = 32

// The first byte of a sealed record is its version. Stores in use hold records
// of both forms:
//
//	version 1 (1 byte) · nonce (12) · AES-256-GCM ciphertext · tag (16)
//	version 2 (1 byte) · key id (8) · nonce (12) · AES-256-GCM … · tag (16)
//
// Version 1 is only read. Processes that know nothing of version 2 reject it,
// and refuse to open a store whose check record has it.
const (
	oldSealVersion = 1
	sealVersion    = 2
	// lastSealVersion is the last byte that is taken for a later version, not
	// for damage.
	lastSealVersion = 15
	keyIDSize       = 8

	// The purposes precede the key id and the record's key in the additional
	// data. A record that was moved to another key, or data that the same AES
	// key sealed for another purpose, fails authentication.
	oldSealPurpose = "wxproxy sealed record 1\x00"
	sealPurpose    = "wxproxy sealed record 2\x00"
	// keyIDPurpose is what a key id is the HMAC of. It reveals nothing of the
	// key.
	keyIDPurpose = "wxproxy sealing key id 1"
)

// ErrForeignKey reports that a record is sealed with a key that this process
// does not have, while others do: the key is being changed, and this process
// has only the one before. The record is intact and stays where it is.
var ErrForeignKey = errors.New("record is sealed with a key that this process does not have")

// Errors of keyring.open for records that may belong to other processes. They
// mean damage only if the store does not know the key or the version.
var (
	errUnknownKey     = errors.New("cannot be opened: unknown key")
	errUnknownVersion = errors.New("cannot be opened: unknown seal version")
)

// keyID names a key in sealed records.
type keyID [keyIDSize]byte

func (id keyID) String() string { return hex.EncodeToString(id[:]) }

// sealer encrypts and authenticates records with one key. It is safe for
// concurrent use.
type sealer struct {
	aead cipher.AEAD
	id   keyID
}

func newSealer(key []byte) (*sealer, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("invalid sealing key: got %d bytes, want %d", len(key), KeySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	s := &sealer{aead: aead}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(keyIDPurpose))
	copy(s.id[:], mac.Sum(nil))
	return s, nil
}

// seal encrypts record for key. Sealing the same record twice gives different
// bytes, because the nonce is random.
func (s *sealer) seal(key string, record []byte) []byte {
	sealed := make([]byte, 0, 1+keyIDSize+len(record)+s.aead.Overhead())
	sealed = append(append(sealed, sealVersion), s.id[:]...)
	return s.aead.Seal(sealed, nil, record, s.additionalData(key))
}

func (s *sealer) additionalData(key string) []byte {
	return append(append([]byte(sealPurpose), s.id[:]...), key...)
}

// keyring is the keys of a process. It is safe for concurrent use.
type keyring struct {
	sealers []*sealer              // the first is the key of the configuration
	target  atomic.Pointer[sealer] // seals records
}

// newKeyring returns the ring of a key, and of keys that only open.
func newKeyring(key []byte, previous ...[]byte) (*keyring, error) {
	r := &keyring{}
	for _, k := range append([][]byte{key}, previous...) {
		s, err := newSealer(k)
		if err != nil {
			return nil, err
		}
		r.sealers = append(r.sealers, s)
	}
	r.target.Store(r.current())
	return r, nil
}

// current is the key of the configuration.
func (r *keyring) current() *sealer { return r.sealers[0] }

// find returns the key with that id, or nil.
func (r *keyring) find(id keyID) *sealer {
	for _, s := range r.sealers {
		if s.id == id {
			return s
		}
	}
	return nil
}

// seal encrypts record for key.
func (r *keyring) seal(key string, record []byte) []byte {
	return r.target.Load().seal(key, record)
}

// open decrypts what seal of this or an earlier version returned for the same
// key, and returns the key that it was sealed with. Its errors wrap
// [ErrDamaged], and errUnknownKey or errUnknownVersion if that may be untrue.
// They contain nothing of the record.
func (r *keyring) open(key string, sealed []byte) (record []byte, by *sealer, err error) {
	id, hasID := sealedBy(sealed)
	switch {
	case len(sealed) > 0 && sealed[0] > sealVersion && sealed[0] <= lastSealVersion:
		return nil, nil, damagedRecord(key, errUnknownVersion)
	case hasID:
		s := r.find(id)
		if s == nil {
			return nil, nil, damagedRecord(key, errUnknownKey)
		}
		data := s.additionalData(key)
		if len(sealed) >= 1+keyIDSize+s.aead.Overhead() {
			record, err = s.aead.Open([]byte{}, nil, sealed[1+keyIDSize:], data)
			if err == nil {
				return record, s, nil
			}
		}
		// The library's error is dropped: it says "authentication failed",
		// which reads like a failed login.
		return nil, nil, damagedRecord(key, errors.New("cannot be decrypted: it was changed"))
	case len(sealed) == 0 || sealed[0] != oldSealVersion:
		return nil, nil, damagedRecord(key, errors.New("is not sealed"))
	}
	for _, s := range r.sealers {
		data := append([]byte(oldSealPurpose), key...)
		if len(sealed) < 1+s.aead.Overhead() {
			break
		}
		if record, err = s.aead.Open([]byte{}, nil, sealed[1:], data); err == nil {
			return record, s, nil
		}
	}
	return nil, nil, damagedRecord(key, errUnknownKey)
}

// isTarget reports whether a record is sealed in the present form, with the key
// s. It looks at nothing but its beginning.
func (s *sealer) isTarget(sealed []byte) bool {
	return len(sealed) > 1+keyIDSize && sealed[0] == sealVersion &&
		bytes.Equal(sealed[1:1+keyIDSize], s.id[:])
}

// sealedBy returns the id of the key of a record of version 2.
func sealedBy(sealed []byte) (id keyID, ok bool) {
	if len(sealed) < 1+keyIDSize || sealed[0] != sealVersion {
		return id, false
	}
	copy(id[:], sealed[1:])
	return id, true
}

func damagedRecord(key string, problem error) error {
	return fmt.Errorf("%w: %q %w", ErrDamaged, key, problem)
}

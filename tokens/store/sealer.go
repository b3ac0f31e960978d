package store

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
)

// KeySize is the length of the key of a sealed store, in bytes.
const KeySize = 32

const (
	// sealVersion is the first byte of a sealed record:
	//
	//	version (1 byte) · nonce (12) · AES-256-GCM ciphertext · tag (16)
	//
	// Stores in use hold records of this form, so it cannot change without a
	// new version that is read beside the old one.
	sealVersion = 1

	// sealPurpose precedes the record's key in the additional data. A record
	// that was moved to another key, or data that the same AES key sealed for
	// another purpose, fails authentication.
	sealPurpose = "wxproxy sealed record 1\x00"
)

// sealer encrypts and authenticates records. It is safe for concurrent use.
type sealer struct{ aead cipher.AEAD }

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
	return &sealer{aead}, nil
}

// seal encrypts record for key. Sealing the same record twice gives different
// bytes, because the nonce is random.
func (s *sealer) seal(key string, record []byte) []byte {
	sealed := make([]byte, 1, 1+len(record)+s.aead.Overhead())
	sealed[0] = sealVersion
	return s.aead.Seal(sealed, nil, record, additionalData(key))
}

// open decrypts what seal returned for the same key. Its errors wrap
// [ErrDamaged] and do not contain any of the record.
func (s *sealer) open(key string, sealed []byte) ([]byte, error) {
	if len(sealed) > 0 && sealed[0] > sealVersion {
		return nil, damagedRecord(key, "has an unknown seal version: it is damaged or a newer wxproxy wrote it")
	}
	if len(sealed) < 1+s.aead.Overhead() || sealed[0] != sealVersion {
		return nil, damagedRecord(key, "is not sealed")
	}
	record, err := s.aead.Open([]byte{}, nil, sealed[1:], additionalData(key))
	if err != nil {
		// The library's error is dropped: it says "authentication failed",
		// which reads like a failed login.
		return nil, damagedRecord(key, "cannot be decrypted: it was changed or sealed with another key")
	}
	return record, nil
}

func additionalData(key string) []byte { return append([]byte(sealPurpose), key...) }

func damagedRecord(key, problem string) error {
	return fmt.Errorf("%w: %q %s", ErrDamaged, key, problem)
}

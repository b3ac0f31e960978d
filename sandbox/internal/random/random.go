// Package random makes the random values of the sandbox WeChat: tokens, codes,
// nonces and identifiers. All come from crypto/rand, which cannot fail.
package random

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"strconv"
)

// Base64 returns n random bytes in base64url without padding.
func Base64(n int) string { return base64.RawURLEncoding.EncodeToString(Bytes(n)) }

// Hex returns n random bytes in lower-case hexadecimal.
func Hex(n int) string { return hex.EncodeToString(Bytes(n)) }

// Digits returns a nonce as WeChat makes them: a number of nine or ten digits.
func Digits() string {
	// The bit that is always set keeps the number above 500 million.
	return strconv.FormatUint(uint64(binary.BigEndian.Uint32(Bytes(4)))|1<<29, 10)
}

// Bytes returns n random bytes.
func Bytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

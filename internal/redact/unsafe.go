package redact

import "unsafe"

// unsafeBytes returns the bytes of s without copying them. They must not be
// changed.
func unsafeBytes(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// unsafeString returns a string that shares the memory of b, for comparisons.
func unsafeString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

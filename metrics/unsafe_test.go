package metrics_test

import "unsafe"

// unsafeString is what fasthttp's users do to avoid a copy.
func unsafeString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

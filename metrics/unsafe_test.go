package metrics_test

import "unsafe"

// unsafeString returns a string that aliases b, as users of fasthttp do to
// avoid a copy.
func unsafeString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

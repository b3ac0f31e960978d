//go:build !unix

package transport

// openFileLimit is a guess: Windows has no limit of its own, only memory and ports.
func openFileLimit() uint64 { return 1 << 16 }

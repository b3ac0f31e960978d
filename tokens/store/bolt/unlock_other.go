//go:build !unix

package bolt

import "os"

// unlockFile does nothing: closing the file releases its lock.
func unlockFile(*os.File) error { return nil }

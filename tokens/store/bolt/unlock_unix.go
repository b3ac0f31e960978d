//go:build unix

package bolt

import (
	"errors"
	"os"
	"syscall"
)

// unlockFile releases the lock that bbolt has taken on f. A file that is closed
// already has none.
func unlockFile(f *os.File) error {
	conn, err := f.SyscallConn()
	if err == nil {
		var lockErr error
		err = conn.Control(func(fd uintptr) { lockErr = syscall.Flock(int(fd), syscall.LOCK_UN) })
		err = errors.Join(err, lockErr)
	}
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

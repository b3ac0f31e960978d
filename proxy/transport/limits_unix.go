//go:build unix

package transport

import "syscall"

// openFileLimit returns the number of files that this process can open. The Go
// runtime has raised the soft limit to the hard limit at the start.
func openFileLimit() uint64 {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 1024 // the usual soft limit
	}
	return uint64(limit.Cur) // an int64 on FreeBSD
}

//go:build unix

package transport

import "syscall"

// openFileLimit is how many files this process may open. The runtime has raised the soft limit to the hard one.
func openFileLimit() uint64 {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 1024
	}
	return uint64(limit.Cur) // signed on FreeBSD
}

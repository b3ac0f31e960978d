//go:build unix

package durable

import (
	"io/fs"
	"os"
	"syscall"
)

// keepOwner gives the file name the owner of the file that it replaces. A tool
// that runs as root must not take a file away from the user of a service.
func keepOwner(name string, old fs.FileInfo) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	was, ok1 := old.Sys().(*syscall.Stat_t)
	is, ok2 := info.Sys().(*syscall.Stat_t)
	if !ok1 || !ok2 || was.Uid == is.Uid && was.Gid == is.Gid {
		return nil
	}
	return os.Chown(name, int(was.Uid), int(was.Gid))
}

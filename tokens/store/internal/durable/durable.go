// Package durable creates files that survive a power failure.
package durable

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
)

// Create makes the file at path without ever showing a partial one there. It
// calls write with the name of a new, empty file in the same folder, readable
// by its owner alone. When write has written that file and synced it to the
// disk, Create links it to path and syncs the folder, so that the name survives
// a power failure too.
//
// An existing file is never replaced: if two processes create path
// concurrently, one of them gets an error that is io/fs.ErrExist. After an
// error of write nothing is left behind.
//
// The file system must support hard links. ext4, XFS, ZFS, APFS, UFS and NTFS
// do; FAT and exFAT do not, and Create returns their error.
func Create(path string, write func(name string) error) error {
	folder := filepath.Dir(path)
	// CreateTemp uses O_EXCL and mode 0600.
	f, err := os.CreateTemp(folder, filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	// Close it before write opens it: Windows does not let a file be locked or
	// renamed that is open elsewhere.
	if err := f.Close(); err != nil {
		return err
	}
	if err := write(f.Name()); err != nil {
		return err
	}
	// Link, unlike Rename, fails if path exists.
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	return syncDir(folder)
}

// syncDir makes the names of new files in a folder durable. On Unix systems a
// file's name is part of its folder, and is lost in a power failure unless the
// folder is synced as well. Windows cannot sync a folder that was opened for
// reading; NTFS writes names through its journal instead.
func syncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Package durable creates files that survive a power failure.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
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
	// Link, unlike Rename, fails if path exists.
	return install(path, write, os.Link)
}

// Replace is [Create] for a path that may exist: then the file there is
// replaced, in one step, and the new one has the same owner. After an error, or
// if the process is killed, the old one is unchanged.
//
// A process that has the old file open keeps it. On Windows none may have it open
// when write returns.
func Replace(path string, write func(name string) error) error {
	old, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return install(path, write, os.Rename)
	}
	if err != nil {
		return err
	}
	if !old.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	return install(path, func(name string) error {
		if err := write(name); err != nil {
			return err
		}
		return keepOwner(name, old)
	}, os.Rename)
}

// RemoveLeftovers removes the files that killed processes have left behind
// while they made path. No other process may be making it.
func RemoveLeftovers(path string) error {
	folder := filepath.Dir(path)
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), filepath.Base(path)+leftover) && e.Type().IsRegular() {
			err = errors.Join(err, os.Remove(filepath.Join(folder, e.Name())))
		}
	}
	return err
}

// leftover follows the name of a file in the name of the one that becomes it.
const leftover = ".new-"

// install makes the file at path: it calls write with the name of a new file,
// and then move.
func install(path string, write func(name string) error, move func(name, path string) error) error {
	folder := filepath.Dir(path)
	// CreateTemp uses O_EXCL and mode 0600.
	f, err := os.CreateTemp(folder, filepath.Base(path)+leftover+"*")
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
	if err := move(f.Name(), path); err != nil {
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

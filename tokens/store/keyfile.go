package store

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// LoadOrCreateKey reads the key of a sealed store from the file path, base64 of [KeySize]
// bytes, and where there is no such file makes one with a new random key, if mayCreate.
// Only its owner may read the file; one that others may read is refused, since its key
// may be known by now.
//
// mayCreate is to be false where the store exists: it was sealed with the key that is missing,
// and a new one beside it would only look like an answer.
//
// A new key is on the disk, its folder too, when this returns: nothing is ever sealed with
// a key that a power cut could take away. Of two processes that make one at the same moment both
// get the same.
func LoadOrCreateKey(path string, mayCreate bool) ([]byte, error) {
	key, err := loadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if !mayCreate {
		return nil, fmt.Errorf("the key file %s is missing, and the store cannot be read without it: restore it, or move the store away to begin anew", path)
	}
	if err := createKey(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("the key file cannot be made: %w", err)
	}
	return loadKey(path)
}

func loadKey(path string) ([]byte, error) {
	// Asked before it is opened: to open a pipe is to wait for its other end.
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("the key file cannot be read: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("the key file %s is not a regular file", path)
	}
	// Windows keeps no such bits; what Go shows there is made up.
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("the key file %s can be read by others (mode %04o): run chmod 600 %[1]s", path, info.Mode().Perm())
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("the key file cannot be read: %w", err)
	}
	defer f.Close()
	const enough = 4096 // far more than a key and the blanks that an editor may leave
	text, err := io.ReadAll(io.LimitReader(f, enough))
	if err != nil {
		return nil, fmt.Errorf("the key file cannot be read: %w", err)
	}
	// The decoder's error would quote nothing, but say at which byte; the sentence is enough.
	key, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil || len(key) != KeySize {
		return nil, fmt.Errorf("the key file %s does not hold a key (base64 of %d bytes): restore it", path, KeySize)
	}
	return key, nil
}

// createKey makes the file in full under another name and then links it: path never names a
// file with half a key, and an existing one is never replaced.
func createKey(path string) (err error) {
	folder := filepath.Dir(path)
	f, err := os.CreateTemp(folder, filepath.Base(path)+".new-*") // O_EXCL, 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	key := make([]byte, KeySize)
	rand.Read(key) // never fails
	_, err = f.WriteString(base64.StdEncoding.EncodeToString(key) + "\n")
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	return syncFolder(folder)
}

// syncFolder makes the names of new files in a folder survive a power cut.
func syncFolder(path string) error {
	if runtime.GOOS == "windows" { // where folders cannot be synced
		return nil
	}
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

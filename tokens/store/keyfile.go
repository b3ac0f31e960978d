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
	"runtime"

	"wxproxy/tokens/store/internal/durable"
)

// LoadOrCreateKey reads the key of a sealed store from the file path, which
// holds [KeySize] bytes in base64. If there is no such file and mayCreate is
// true, it creates one with a random key.
//
// Set mayCreate to false if the store exists: it was sealed with the missing
// key, so a new one would hide the loss and open nothing.
//
// A new key is on the disk before LoadOrCreateKey returns, including its name
// in the folder. Otherwise a power failure could take away the key of records
// that were already sealed with it. If several processes create the file
// concurrently, all of them get the same key.
//
// The file must be readable by its owner alone: a key that other users can read
// must be considered known. On Windows this is not checked, because its access
// control lists do not map to file modes; there the file inherits the
// permissions of its folder.
func LoadOrCreateKey(path string, mayCreate bool) ([]byte, error) {
	key, err := readKeyFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if !mayCreate {
		return nil, fmt.Errorf("key file %s is missing, and the store cannot be read without it: "+
			"restore it, or move the store away to start over", path)
	}
	// If the file exists by now, another process has created it: read that one.
	if err := createKeyFile(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("creating key file: %w", err)
	}
	return readKeyFile(path)
}

// maxKeyFileSize is how much of the file is read, in bytes. It is far more than
// a key and the white space that an editor may add.
const maxKeyFileSize = 4096

func readKeyFile(path string) ([]byte, error) {
	// Stat before opening: opening a named pipe blocks until it has a writer.
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("reading key file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("key file %s is not a regular file", path)
	}
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o077 != 0 {
		return nil, fmt.Errorf("key file %s is accessible to other users (mode %04o): run chmod 600 %[1]s", path, mode)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading key file: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFileSize))
	if err != nil {
		return nil, fmt.Errorf("reading key file: %w", err)
	}
	// The decoder's error only adds the position of a byte, so it is dropped.
	key, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil || len(key) != KeySize {
		return nil, fmt.Errorf("key file %s does not hold a key (base64 of %d bytes): restore it", path, KeySize)
	}
	return key, nil
}

// createKeyFile returns an error that is fs.ErrExist if the file exists.
func createKeyFile(path string) error {
	return durable.Create(path, func(name string) error {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		key := make([]byte, KeySize)
		rand.Read(key) // never fails
		_, err = f.WriteString(base64.StdEncoding.EncodeToString(key) + "\n")
		if err == nil {
			err = f.Sync()
		}
		return errors.Join(err, f.Close())
	})
}

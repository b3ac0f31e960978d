package bolt_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/bolt"
)

func TestNothingToOpen(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, part := range map[string]string{
		filepath.Join(dir, "missing", "a.db"): "does not exist: make it",
		filepath.Join(file, "a.db"):           "",
		dir:                                   "not a regular file",
	} {
		for name, err := range map[string]error{
			"Open":     func() error { _, err := bolt.Open(t.Context(), path); return err }(),
			"OpenFile": func() error { _, err := bolt.OpenFile(t.Context(), path, nil); return err }(),
		} {
			if err == nil || !strings.Contains(err.Error(), part) || !strings.Contains(err.Error(), filepath.Dir(path)) {
				t.Errorf("%s(%s): %v", name, path, err)
			}
		}
	}
	wantFiles(t, file, "file")
}

// refused opens path and wants ErrCorrupt (or the given error) and the bytes as they were.
func refused(t *testing.T, path string, target error) {
	t.Helper()
	before := read(t, path)
	s, err := bolt.Open(t.Context(), path)
	if err == nil {
		s.Close()
	}
	if !errors.Is(err, target) || !strings.Contains(err.Error(), path) {
		t.Errorf("opened with: %v", err)
	}
	if !bytes.Equal(before, read(t, path)) {
		t.Error("the file was changed")
	}
}

func TestEmptyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, path, store.ErrCorrupt)
	if _, err := bolt.OpenFile(t.Context(), path, make([]byte, store.KeySize)); !errors.Is(err, store.ErrCorrupt) {
		t.Error(err)
	}
	wantFiles(t, path, "a.db")
}

func TestGarbage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	for _, garbage := range [][]byte{
		{0}, []byte("hello"), make([]byte, 100), make([]byte, 4096), make([]byte, 1<<20),
		bytes.Repeat([]byte{0xff}, 1<<16), bytes.Repeat([]byte("SQLite format 3\x00"), 4096),
	} {
		if err := os.WriteFile(path, garbage, 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, path, store.ErrCorrupt)
	}
}

// TestForeign: a sound file of bbolt's that is somebody else's keeps its bytes and its mode.
func TestForeign(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	edit(t, path, func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte("theirs"))
		if err != nil {
			return err
		}
		return b.Put([]byte("k"), []byte("v"))
	})
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	refused(t, path, store.ErrCorrupt)
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func edit(t *testing.T, path string, fn func(tx *bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(fn), db.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestNewerFormat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	closed(t, open(t, path))
	edit(t, path, func(tx *bbolt.Tx) error {
		if err := tx.Bucket([]byte("records")).Put([]byte("a"), []byte("in another way")); err != nil {
			return err
		}
		return tx.Bucket([]byte("meta")).Put([]byte("format"), []byte("2"))
	})
	before := read(t, path)
	_, err := bolt.Open(t.Context(), path)
	if err == nil || errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), "written by a newer one") {
		t.Errorf("opened with: %v", err)
	}
	if !bytes.Equal(before, read(t, path)) {
		t.Error("the file was changed")
	}
	for _, format := range []string{"", "0", "-1", "x"} {
		edit(t, path, func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte("meta")).Put([]byte("format"), []byte(format))
		})
		refused(t, path, store.ErrCorrupt)
	}
}

// TestFormat writes a record as format 1 says, with bbolt and by hand: stores that are in use
// hold such records.
func TestFormat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	sum := crc32.Checksum([]byte("\x01\x00\x00\x00"+"a"+"one"), crc32.MakeTable(crc32.Castagnoli))
	edit(t, path, func(tx *bbolt.Tx) error {
		meta, err := tx.CreateBucket([]byte("meta"))
		if err != nil {
			return err
		}
		records, err := tx.CreateBucket([]byte("records"))
		if err != nil {
			return err
		}
		return errors.Join(
			meta.Put([]byte("format"), []byte("1")),
			records.Put([]byte("a"), append(binary.LittleEndian.AppendUint32(nil, sum), "one"...)),
		)
	})
	s := open(t, path)
	want(t, s, "a", "one")
	closed(t, s)
	edit(t, path, func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("records")).Put([]byte("a"), []byte("one, without its checksum"))
	})
	refused(t, path, store.ErrCorrupt)
}

func TestModeIsMended(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no such modes here")
	}
	path := filepath.Join(t.TempDir(), "a.db")
	closed(t, open(t, path))
	if err := os.Chmod(path, 0o664); err != nil {
		t.Fatal(err)
	}
	open(t, path)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := openFile(t, path, nil)
	put(t, s, "a", "one")
	closed(t, s)

	before := read(t, path)
	wrong := bytes.Repeat([]byte{7}, store.KeySize)
	_, err := bolt.OpenFile(t.Context(), path, wrong)
	if !errors.Is(err, store.ErrWrongKey) || !strings.Contains(err.Error(), "than the one given") || !strings.Contains(err.Error(), path) {
		t.Errorf("a wrong key: %v", err)
	}
	if err := os.Rename(path+".key", path+".moved"); err != nil {
		t.Fatal(err)
	}
	_, err = bolt.OpenFile(t.Context(), path, nil)
	if err == nil || !strings.Contains(err.Error(), path+".key is missing") {
		t.Errorf("without its key: %v", err)
	}
	wantFiles(t, path, "a.db", "a.db.moved")
	// A key file of another store, left beside this one.
	if _, err := store.LoadOrCreateKey(path+".key", true); err != nil {
		t.Fatal(err)
	}
	_, err = bolt.OpenFile(t.Context(), path, nil)
	if !errors.Is(err, store.ErrWrongKey) || !strings.Contains(err.Error(), path+".key") {
		t.Errorf("with another's key file: %v", err)
	}
	if !bytes.Equal(before, read(t, path)) {
		t.Error("the file was changed")
	}
	if err := os.Rename(path+".moved", path+".key"); err != nil {
		t.Fatal(err)
	}
	// Refused stores were let go of.
	want(t, openFile(t, path, nil), "a", "one")

	_, err = bolt.OpenFile(t.Context(), filepath.Join(t.TempDir(), "b.db"), wrong[:5])
	if err == nil {
		t.Error("a key of 5 bytes")
	}
}

// TestKeyBeforeStore: a first start that ended between the two goes on where it was.
func TestKeyBeforeStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	key, err := store.LoadOrCreateKey(path+".key", true)
	if err != nil {
		t.Fatal(err)
	}
	s := openFile(t, path, nil)
	put(t, s, "a", "one")
	closed(t, s)
	want(t, openFile(t, path, key), "a", "one")
}

// TestBareFileIsNotSealedOver: a store that was made without a key is not taken for an empty one.
func TestBareFileIsNotSealedOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := open(t, path)
	put(t, s, "a", "one")
	closed(t, s)
	before := read(t, path)
	if _, err := bolt.OpenFile(context.Background(), path, make([]byte, store.KeySize)); !errors.Is(err, store.ErrCorrupt) {
		t.Error(err)
	}
	if !bytes.Equal(before, read(t, path)) {
		t.Error("the file was changed")
	}
}

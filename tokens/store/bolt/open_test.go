package bolt_test

import (
	"bytes"
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

func TestUnusablePathIsRejected(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, part := range map[string]string{
		filepath.Join(dir, "missing", "a.db"): "does not exist: create it",
		filepath.Join(file, "a.db"):           "",
		dir:                                   "not a regular file",
	} {
		for name, err := range map[string]error{
			"Open":     func() error { _, err := bolt.Open(t.Context(), path); return err }(),
			"OpenFile": func() error { _, err := bolt.OpenFile(t.Context(), path, nil); return err }(),
		} {
			if !mentions(err, part, filepath.Dir(path)) {
				t.Errorf("%s(%s): got error %v, want one with %q and the folder", name, path, err, part)
			}
		}
	}
	wantFiles(t, file, "file")
}

// wantRejected fails unless Open returns an error that is target and leaves the
// file unchanged.
func wantRejected(t *testing.T, path string, target error) {
	t.Helper()
	before := read(t, path)
	s, err := bolt.Open(t.Context(), path)
	if err == nil {
		s.Close()
	}
	if !errors.Is(err, target) || !mentions(err, path) {
		t.Errorf("Open: got error %v, want %v with the path", err, target)
	}
	if !bytes.Equal(before, read(t, path)) {
		t.Error("Open changed a file that it rejected")
	}
}

func TestEmptyFileIsCorrupt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantRejected(t, path, store.ErrCorrupt)
	if _, err := bolt.OpenFile(t.Context(), path, make([]byte, store.KeySize)); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("OpenFile: got error %v, want ErrCorrupt", err)
	}
	wantFiles(t, path, "a.db")
}

func TestGarbageIsCorrupt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	for _, garbage := range [][]byte{
		{0}, []byte("hello"), make([]byte, 100), make([]byte, 4096), make([]byte, 1<<20),
		bytes.Repeat([]byte{0xff}, 1<<16), bytes.Repeat([]byte("SQLite format 3\x00"), 4096),
	} {
		if err := os.WriteFile(path, garbage, 0o600); err != nil {
			t.Fatal(err)
		}
		wantRejected(t, path, store.ErrCorrupt)
	}
}

// TestOtherBoltFileIsRejected: an intact bbolt file of another program keeps
// its bytes and its mode.
func TestOtherBoltFileIsRejected(t *testing.T) {
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
	wantRejected(t, path, store.ErrCorrupt)
	wantMode(t, path, 0o644)
}

func wantMode(t *testing.T, path string, want os.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); runtime.GOOS != "windows" && got != want {
		t.Errorf("mode of %s: got %04o, want %04o", path, got, want)
	}
}

// edit changes the file with bbolt itself.
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

func TestNewerFormatIsRejected(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	mustClose(t, open(t, path))
	edit(t, path, func(tx *bbolt.Tx) error {
		if err := tx.Bucket([]byte("records")).Put([]byte("a"), []byte("another encoding")); err != nil {
			return err
		}
		return tx.Bucket([]byte("meta")).Put([]byte("format"), []byte("3"))
	})
	before := read(t, path)
	_, err := bolt.Open(t.Context(), path)
	if err == nil || errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), "a newer wxproxy wrote it") {
		t.Errorf("Open: got error %v, want one about a newer format", err)
	}
	if !bytes.Equal(before, read(t, path)) {
		t.Error("Open changed a file that it rejected")
	}
	for _, format := range []string{"", "0", "-1", "x"} {
		edit(t, path, func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte("meta")).Put([]byte("format"), []byte(format))
		})
		wantRejected(t, path, store.ErrCorrupt)
	}
}

// TestFormatIsStable writes a record of format 1 by hand, with bbolt. Stores in
// use hold such records.
func TestFormatIsStable(t *testing.T) {
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
	format := func() (format string) {
		edit(t, path, func(tx *bbolt.Tx) error {
			format = string(tx.Bucket([]byte("meta")).Get([]byte("format")))
			return nil
		})
		return format
	}
	s := open(t, path)
	want(t, s, "a", "one")
	mustClose(t, s)
	if got := format(); got != "1" {
		t.Errorf("format after Open: got %q, want 1", got)
	}
	for range 2 {
		s = open(t, path)
		if err := s.Upgrade(t.Context()); err != nil {
			t.Errorf("Upgrade: %v", err)
		}
		want(t, s, "a", "one")
		mustClose(t, s)
		if got := format(); got != "2" {
			t.Errorf("format after Upgrade: got %q, want 2", got)
		}
	}
	edit(t, path, func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("records")).Put([]byte("a"), []byte("one, without its checksum"))
	})
	// One damaged record does not keep the store from being used.
	s = open(t, path)
	if got, err := s.Load(t.Context(), "a"); !errors.Is(err, store.ErrDamaged) || got != nil {
		t.Errorf("wrong checksum: got %q, error %v, want ErrDamaged", got, err)
	}
	if err := s.Update(t.Context(), "a", replaceWith("two")); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("wrong checksum: got error %v from Update, want ErrDamaged", err)
	}
	want(t, s, "damaged/a", "one, without its checksum")
	put(t, s, "a", "two")
	mustClose(t, s)
	want(t, open(t, path), "a", "two")
}

func TestOpenRestrictsTheMode(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such modes")
	}
	path := filepath.Join(t.TempDir(), "a.db")
	mustClose(t, open(t, path))
	if err := os.Chmod(path, 0o664); err != nil {
		t.Fatal(err)
	}
	open(t, path)
	wantMode(t, path, 0o600)
}

func TestWrongOrMissingKeyIsRejected(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := openFile(t, path, nil)
	put(t, s, "a", "one")
	mustClose(t, s)

	before := read(t, path)
	wrong := bytes.Repeat([]byte{7}, store.KeySize)
	_, err := bolt.OpenFile(t.Context(), path, wrong)
	if !errors.Is(err, store.ErrWrongKey) || !mentions(err, "than the one given", path) {
		t.Errorf("wrong key: got error %v, want ErrWrongKey with its source and the path", err)
	}
	if err := os.Rename(path+".key", path+".moved"); err != nil {
		t.Fatal(err)
	}
	_, err = bolt.OpenFile(t.Context(), path, nil)
	if !mentions(err, path+".key is missing") {
		t.Errorf("missing key file: got error %v, want one that says so", err)
	}
	wantFiles(t, path, "a.db", "a.db.moved")
	// The key file of another store.
	if _, err := store.LoadOrCreateKey(path+".key", true); err != nil {
		t.Fatal(err)
	}
	_, err = bolt.OpenFile(t.Context(), path, nil)
	if !errors.Is(err, store.ErrWrongKey) || !mentions(err, path+".key") {
		t.Errorf("other key file: got error %v, want ErrWrongKey with its path", err)
	}
	if !bytes.Equal(before, read(t, path)) {
		t.Error("OpenFile changed a file that it rejected")
	}
	if err := os.Rename(path+".moved", path+".key"); err != nil {
		t.Fatal(err)
	}
	// Rejected files were closed.
	want(t, openFile(t, path, nil), "a", "one")

	_, err = bolt.OpenFile(t.Context(), filepath.Join(t.TempDir(), "b.db"), wrong[:5])
	if err == nil {
		t.Error("a key of 5 bytes was accepted")
	}
}

// TestOpenAfterKeyWasCreated: a first start that was killed after it created
// the key is completed by the next one.
func TestOpenAfterKeyWasCreated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	key, err := store.LoadOrCreateKey(path+".key", true)
	if err != nil {
		t.Fatal(err)
	}
	s := openFile(t, path, nil)
	put(t, s, "a", "one")
	mustClose(t, s)
	want(t, openFile(t, path, key), "a", "one")
}

// TestUnsealedStoreIsNotSealed: a store that was made without a key is not
// taken for an empty one.
func TestUnsealedStoreIsNotSealed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := open(t, path)
	put(t, s, "a", "one")
	mustClose(t, s)
	before := read(t, path)
	_, err := bolt.OpenFile(t.Context(), path, make([]byte, store.KeySize))
	if !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("got error %v, want ErrCorrupt", err)
	}
	if !bytes.Equal(before, read(t, path)) {
		t.Error("OpenFile changed a file that it rejected")
	}
}

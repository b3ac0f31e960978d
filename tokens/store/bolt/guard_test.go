//go:build unix

package bolt_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"wxproxy/tokens/store/bolt"
)

// TestGuard reads a page of a mapped file that is not there any more, which is a SIGBUS.
func TestGuard(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "mapped"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 16); err != nil {
		t.Fatal(err)
	}
	mapped, err := syscall.Mmap(int(f.Fd()), 0, 1<<16, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Munmap(mapped)
	read := func() error {
		if mapped[1<<15] != 0 {
			t.Error("not zero")
		}
		return nil
	}
	if err := bolt.Guard(read); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if err := bolt.Guard(read); err == nil {
		t.Error("read a page that is not there")
	}
	if err := bolt.Guard(func() error { panic("nonsense") }); err == nil {
		t.Error("a panic was no error")
	}
}

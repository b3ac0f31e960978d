//go:build unix

package bolt_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"wxproxy/tokens/store/bolt"
)

// TestFaultsBecomeErrors reads a mapped page of a file that was truncated,
// which raises SIGBUS.
func TestFaultsBecomeErrors(t *testing.T) {
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
			t.Error("got another byte than zero")
		}
		return nil
	}
	if err := bolt.CatchFaults(read); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if err := bolt.CatchFaults(read); err == nil {
		t.Error("reading a missing page: got no error")
	}
	if err := bolt.CatchFaults(func() error { panic("nonsense") }); err == nil {
		t.Error("panic: got no error")
	}
}

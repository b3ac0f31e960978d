package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"wxproxy/tokens/store/internal/durable"
)

func writeText(text string) func(name string) error {
	return func(name string) error { return os.WriteFile(name, []byte(text), 0o600) }
}

func TestCreate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	err := durable.Create(path, func(name string) error {
		if _, err := os.Stat(path); err == nil {
			t.Error("path exists before write has returned")
		}
		return writeText("one")(name)
	})
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode() != 0o600 {
		t.Errorf("mode: got %v, want 0600", info.Mode())
	}
	wantFile(t, path, "one")
}

func TestCreateNeverReplaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	if err := durable.Create(path, writeText("one")); err != nil {
		t.Fatal(err)
	}
	if err := durable.Create(path, writeText("two")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second Create: got error %v, want fs.ErrExist", err)
	}
	wantFile(t, path, "one")
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	failure := errors.New("disk full")
	if err := durable.Create(path, func(string) error { return failure }); !errors.Is(err, failure) {
		t.Errorf("got error %v, want %v", err, failure)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 0 {
		t.Errorf("got files %v, error %v, want none", entries, err)
	}
}

// wantFile fails unless path holds text and is the only file in its folder.
func wantFile(t *testing.T, path, text string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != text {
		t.Errorf("content: got %q, error %v, want %q", got, err, text)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("got files %v, error %v, want one", entries, err)
	}
}

// Replace replaces a file in one step, keeps it after an error, and keeps its
// owner. A leftover of a killed process is removed.
func TestReplace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(path+".new-123", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := durable.RemoveLeftovers(path); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"one", "two"} {
		if err := durable.Replace(path, writeText(text)); err != nil {
			t.Fatal(err)
		}
		wantFile(t, path, text)
	}
	broken := errors.New("broken")
	if err := durable.Replace(path, func(string) error { return broken }); err != broken {
		t.Errorf("got error %v, want that of write", err)
	}
	wantFile(t, path, "two")
	if os.Getuid() == 0 {
		if err := os.Chown(path, 12345, 54321); err != nil {
			t.Fatal(err)
		}
		if err := durable.Replace(path, writeText("three")); err != nil {
			t.Fatal(err)
		}
		wantOwner(t, path, 12345, 54321)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("files: got %v, error %v, want one", entries, err)
	}
	if err := durable.Replace(filepath.Dir(path), writeText("x")); err == nil {
		t.Error("a folder was replaced")
	}
}

package store_test

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"wxproxy/tokens/store"
)

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.key")
	if _, err := store.LoadOrCreateKey(path, false); !mentions(err, path+" is missing") {
		t.Errorf("missing file, mayCreate false: got error %v, want one that says it is missing", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a key file was created although mayCreate is false")
	}
	key, err := store.LoadOrCreateKey(path, true)
	if err != nil || len(key) != store.KeySize {
		t.Fatalf("new key: got %d bytes, error %v, want %d bytes", len(key), err, store.KeySize)
	}
	for _, mayCreate := range []bool{true, false} {
		if again, err := store.LoadOrCreateKey(path, mayCreate); err != nil || !bytes.Equal(again, key) {
			t.Errorf("mayCreate %v: got error %v or another key, want the existing key", mayCreate, err)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode() != 0o600 {
		t.Errorf("mode: got %v, want 0600", info.Mode())
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("files in the folder: got %v, error %v, want the key alone", entries, err)
	}
	if other, err := store.LoadOrCreateKey(path+"2", true); err != nil || bytes.Equal(other, key) {
		t.Errorf("second file: got error %v or the same key, want another key", err)
	}
}

func TestConcurrentKeyFileCreationGivesOneKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.key")
	var all sync.WaitGroup
	keys := make(chan string, 20)
	for range cap(keys) {
		all.Go(func() {
			key, err := store.LoadOrCreateKey(path, true)
			if err != nil {
				t.Error(err)
			}
			keys <- string(key)
		})
	}
	all.Wait()
	close(keys)
	first := <-keys
	for key := range keys {
		if key != first {
			t.Fatal("got two keys for one path, want one")
		}
	}
}

func TestUnusableKeyFileIsRejected(t *testing.T) {
	dir := t.TempDir()
	good := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0xA5}, store.KeySize))
	for name, c := range map[string]struct {
		text, want string // "" in want: the file is accepted
		mode       os.FileMode
	}{
		"good":             {good, "", 0o600},
		"white space":      {"\n " + good + " \r\n", "", 0o600},
		"read only":        {good, "", 0o400},
		"group readable":   {good, "chmod 600 " + dir, 0o640},
		"readable for all": {good, "chmod 600 " + dir, 0o604},
		"empty":            {"", "does not hold a key", 0o600},
		"half":             {good[:20], "does not hold a key", 0o600},
		"too long":         {good[:40] + good, "does not hold a key", 0o600},
		"not base64":       {strings.Repeat("!", 44), "does not hold a key", 0o600},
		"huge":             {strings.Repeat("A", 1<<20), "does not hold a key", 0o600},
	} {
		if runtime.GOOS == "windows" && strings.HasPrefix(c.want, "chmod") {
			continue
		}
		path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		key, err := store.LoadOrCreateKey(path, true)
		if c.want == "" {
			if err != nil || key[0] != 0xA5 {
				t.Errorf("%s: got error %v or another key, want the key in the file", name, err)
			}
			continue
		}
		if !mentions(err, c.want, path) {
			t.Errorf("%s: got error %v, want one with %q and the path", name, err, c.want)
		} else if len(c.text) > 0 && strings.Contains(err.Error(), c.text[:20]) {
			t.Errorf("%s: the error quotes the key: %v", name, err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != c.text {
			t.Errorf("%s: the file was changed, or cannot be read: %v", name, err)
		}
	}
	if _, err := store.LoadOrCreateKey(dir, true); err == nil {
		t.Error("a folder was accepted as the key file")
	}
	if _, err := store.LoadOrCreateKey(filepath.Join(dir, "missing", "a.key"), true); err == nil {
		t.Error("a key file was created in a missing folder")
	}
}

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
	if _, err := store.LoadOrCreateKey(path, false); err == nil || !strings.Contains(err.Error(), path+" is missing") {
		t.Errorf("missing: %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a key was made beside a store that has lost its own")
	}
	key, err := store.LoadOrCreateKey(path, true)
	if err != nil || len(key) != store.KeySize {
		t.Fatalf("%d bytes, %v", len(key), err)
	}
	for _, mayCreate := range []bool{true, false} {
		if again, err := store.LoadOrCreateKey(path, mayCreate); err != nil || !bytes.Equal(again, key) {
			t.Errorf("read again: %v", err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || runtime.GOOS != "windows" && info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("beside it: %v, %v", entries, err)
	}
	if other, err := store.LoadOrCreateKey(path+"2", true); err != nil || bytes.Equal(other, key) {
		t.Errorf("another key is the same, %v", err)
	}
}

func TestKeyFileMadeAtOnce(t *testing.T) {
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
			t.Fatal("two processes have two keys for one store")
		}
	}
}

func TestKeyFileRefused(t *testing.T) {
	dir := t.TempDir()
	good := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0xA5}, store.KeySize))
	for name, c := range map[string]struct {
		text, want string // no want: it is good
		mode       os.FileMode
	}{
		"good":         {good, "", 0o600},
		"with blanks":  {"\n " + good + " \r\n", "", 0o600},
		"read only":    {good, "", 0o400},
		"for a group":  {good, "chmod 600 " + dir, 0o640},
		"for everyone": {good, "chmod 600 " + dir, 0o604},
		"empty":        {"", "does not hold a key", 0o600},
		"half":         {good[:20], "does not hold a key", 0o600},
		"too long":     {good[:40] + good, "does not hold a key", 0o600},
		"not base64":   {strings.Repeat("!", 44), "does not hold a key", 0o600},
		"huge":         {strings.Repeat("A", 1<<20), "does not hold a key", 0o600},
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
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		} else if len(c.text) > 0 && strings.Contains(err.Error(), c.text[:20]) {
			t.Errorf("%s: the error quotes the key: %v", name, err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != c.text {
			t.Errorf("%s: the file was changed, %v", name, err)
		}
	}
	if _, err := store.LoadOrCreateKey(dir, true); err == nil {
		t.Error("a folder as the key")
	}
	if _, err := store.LoadOrCreateKey(filepath.Join(dir, "missing", "a.key"), true); err == nil {
		t.Error("a key in a folder that is not there")
	}
}

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
)

func TestKey(t *testing.T) {
	got := runArgs(t.Context(), "key", "orders-1.test")
	lines := strings.Split(strings.TrimSuffix(got.out, "\n"), "\n")
	key := lines[len(lines)-1]
	if got.code != exitDone || got.errors != "" || !regexp.MustCompile(`^wxk_[A-Za-z0-9_-]{43}$`).MatchString(key) {
		t.Fatalf("key: got %+v, want a key on the last line", got)
	}
	sum := sha256.Sum256([]byte(key))
	block := "[[caller]]\nname = \"orders-1.test\"\nkey_sha256 = \"" + hex.EncodeToString(sum[:]) + "\"\n"
	if !strings.Contains(got.out, block) || strings.Count(got.out, key) != 1 {
		t.Errorf("key: got\n%s\nwant the block\n%s\nand the key once", got.out, block)
	}

	var response struct{ Name, Key, Key_SHA256 string }
	got = runArgs(t.Context(), "key", "--json", "orders")
	if err := json.Unmarshal([]byte(got.out), &response); err != nil || response.Name != "orders" ||
		response.Key == key {
		t.Errorf("key --json: got %s, %v, want another key for orders", got.out, err)
	}
	if sum := sha256.Sum256([]byte(response.Key)); response.Key_SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("key --json: got %s, want the SHA-256 of the key", got.out)
	}
}

func TestKeyNeedsValidName(t *testing.T) {
	for _, name := range []string{"", "Orders", "a b", "a\"b", ".a", "商城", strings.Repeat("x", 65), "a\n"} {
		got := runArgs(t.Context(), "key", name)
		if got.code != exitUsage || got.out != "" || !strings.Contains(got.errors, "not a caller's name") {
			t.Errorf("key %q: got %+v, want wrong usage", name, got)
		}
	}
	runArgs(t.Context(), "key").check(t, "key", wrongUsage("key", "key needs NAME"))
}

//go:build unix

package durable_test

import (
	"os"
	"syscall"
	"testing"
)

func wantOwner(t *testing.T, path string, uid, gid uint32) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if s := info.Sys().(*syscall.Stat_t); s.Uid != uid || s.Gid != gid {
		t.Errorf("owner: got %d:%d, want %d:%d", s.Uid, s.Gid, uid, gid)
	}
}

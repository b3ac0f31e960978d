//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"wxproxy/internal/proctest"
	"wxproxy/sandbox"
	"wxproxy/tokens/store"
	"wxproxy/tokens/store/bolt"
	"wxproxy/tokens/store/redis"
)

// storedKey is the name of a platform's record in the database.
func storedKey(key string) string { return "platform/" + sandbox.DefaultComponentAppID + "/" + key }

// verify runs `wxproxy store verify` and returns its exit code and its output.
func verify(t *testing.T, config string, flags ...string) (code int, out string) {
	t.Helper()
	cmd := proctest.Command(t, append([]string{"store", "verify", "--config", config}, flags...)...)
	b, _ := cmd.CombinedOutput()
	return cmd.ProcessState.ExitCode(), string(b)
}

func wantVerified(t *testing.T, config string, code int, parts ...string) {
	t.Helper()
	got, out := verify(t, config)
	for _, part := range parts {
		if got != code || !strings.Contains(out, part) {
			t.Errorf("store verify: got exit code %d\n%s\nwant %d and %q", got, out, code, part)
		}
	}
}

// flipByte changes a byte in the middle of a record in the file of a store.
func flipByte(t *testing.T, path, key string) {
	t.Helper()
	s, err := bolt.OpenReadOnly(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	record, err := s.Load(t.Context(), key)
	s.Close()
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(record)
	flipped[len(flipped)/2] ^= 1
	if err := os.WriteFile(path, bytes.ReplaceAll(file, record, flipped), 0o600); err != nil {
		t.Fatal(err)
	}
}

// One byte of a record is flipped in the file while wxproxy is stopped: account,
// component, ticket, waiting comparison, name, signing key. verify names the
// record and changes nothing. wxproxy starts, serves and counts it, and verify
// names it until the operator deletes it.
func TestDamagedFileRecords(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{Grace: -1})
	path := filepath.Join(w.dir, "wxproxy.db")
	w.start().authorized(accountA)
	wantVerified(t, w.config(), 1, "store is in use by another process: stop wxproxy first")
	w.end(syscall.SIGTERM)
	wantVerified(t, w.config(), 0, " 0 damaged, 0 sealed with previous_key\n")
	keys := []string{"key/standin", storedKey("account/" + accountA),
		storedKey("account/" + sandbox.DefaultComponentAppID),
		storedKey("ticket/" + sandbox.DefaultComponentAppID),
		storedKey("sync/" + sandbox.DefaultComponentAppID)}
	for _, key := range keys {
		flipByte(t, path, key)
		before, _ := os.ReadFile(path)
		wantVerified(t, w.config(), 1, "damaged  "+key+"  wrong checksum\n", " 1 damaged,")
		if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
			t.Error("store verify changed the file")
		}
		w.start().authorized()
		w.call("/"+accountA+userInfo, "")
		proctest.Eventually(t, func() bool {
			_, metrics := w.get(w.admin, "/metrics")
			return strings.Contains(metrics, "\nwxproxy_store_damaged_records 1\n")
		})
		w.end(syscall.SIGTERM)
		code, out := verify(t, w.config(), "--json")
		var v verification
		if err := json.Unmarshal([]byte(firstLine(out)), &v); err != nil || code != 1 ||
			len(v.Damaged) != 1 || v.Damaged[0].Key != key || !v.Damaged[0].Moved {
			t.Errorf("store verify --json: got exit code %d, error %v\n%s\nwant %s as moved", code, err, out, key)
		}
		if code, out := verify(t, w.config(), "--remove-damaged"); code != 0 {
			t.Errorf("store verify --remove-damaged: got exit code %d\n%s\nwant 0", code, out)
		}
		wantVerified(t, w.config(), 0, " 0 damaged,")
	}
	w.store = `url = "file:` + path + `x"`
	wantVerified(t, w.config(), 1, "does not exist")
	if _, err := os.Stat(path + "x"); err == nil {
		t.Error("store verify created a store")
	}
}

func firstLine(s string) string { line, _, _ := strings.Cut(s, "\n"); return line }

// Garbage is written into records of a Redis that two replicas use: account,
// component, ticket. Both serve the account at once, the garbage is moved away
// once, and verify names it while they run.
func TestDamagedRedisRecords(t *testing.T) {
	f := newFleet(t, 2, sandbox.Config{Grace: -1}).authorized(accountA)
	f.everywhere(accountA)
	s, err := redis.Open(t.Context(), "redis+unix://"+f.redis.socket, redis.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, key := range []string{"account/" + accountA, "account/" + sandbox.DefaultComponentAppID,
		"ticket/" + sandbox.DefaultComponentAppID} {
		garbage := func(context.Context, []byte) ([]byte, error) {
			return []byte("garbage of " + key), nil
		}
		if err := s.Update(t.Context(), storedKey(key), garbage); err != nil {
			t.Fatal(err)
		}
		f.wx.PushTicket(t.Context())
		f.wx.Expire(accountA)
		f.everywhere(accountA)
		proctest.Eventually(t, func() bool {
			got, err := s.Load(t.Context(), store.DamagedPrefix+storedKey(key))
			return err == nil && string(got) == "garbage of "+key
		})
		wantVerified(t, f.replicas[0].config, 1, "moved  "+storedKey(key))
	}
	wantVerified(t, f.replicas[0].config, 1, " 3 damaged,")
}

//go:build unix

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.etcd.io/bbolt"

	"wxproxy/sandbox"
	"wxproxy/tokens/store"
	"wxproxy/tokens/store/bolt"
	"wxproxy/tokens/store/redis"
)

// database is a store of w that no process uses.
type database struct {
	name  string
	lines func(w *testEnv) string         // of [store]
	open  func(w *testEnv) store.Store    // with the key
	mark  func(w *testEnv, format string) // sets the format
}

// databases returns a file store and a Redis.
func databases(t *testing.T) []database {
	r := startRedis(t)
	path := func(w *testEnv) string { return filepath.Join(w.dir, "wxproxy.db") }
	edit := func(w *testEnv, fn func(meta *bbolt.Bucket) error) {
		db, err := bbolt.Open(path(w), 0o600, nil)
		if err == nil {
			err = db.Update(func(tx *bbolt.Tx) error { return fn(tx.Bucket([]byte("meta"))) })
		}
		if err != nil || db.Close() != nil {
			t.Fatalf("editing the store file: %v", err)
		}
	}
	return []database{{
		name:  "file",
		lines: func(w *testEnv) string { return fmt.Sprintf("url = %q", "file:"+path(w)) },
		open: func(w *testEnv) store.Store {
			return opened(t)(bolt.OpenFile(t.Context(), path(w), nil))
		},
		mark: func(w *testEnv, format string) {
			edit(w, func(meta *bbolt.Bucket) error {
				return meta.Put([]byte("format"), []byte(format))
			})
		},
	}, {
		name:  "Redis",
		lines: func(*testEnv) string { return onRedis(r, "k") },
		open: func(*testEnv) store.Store {
			return opened(t)(redis.OpenSealed(t.Context(), "redis+unix://"+r.socket,
				[]byte(strings.Repeat("k", 32)), redis.Options{}))
		},
		mark: func(_ *testEnv, format string) { r.do(t, "SET", "wxproxy:{00}:format", format) },
	}}
}

func opened(t *testing.T) func(store.Store, error) store.Store {
	return func(s store.Store, err error) store.Store {
		t.Helper()
		if err != nil {
			t.Fatalf("opening the store: %v", err)
		}
		return s
	}
}

// asBefore gives the records in s the names that they had in format 1, and
// returns how many there are.
func asBefore(t *testing.T, s store.Store) (n int) {
	t.Helper()
	records := map[string][]byte{}
	err := s.List(t.Context(), "", "", func(key string, record []byte) bool {
		records[key] = record
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	for key, record := range records {
		old := strings.TrimPrefix(key, "own/")
		old = strings.TrimPrefix(old, "platform/"+sandbox.DefaultComponentAppID+"/")
		if old == key {
			continue
		}
		n++
		for name, record := range map[string][]byte{old: record, key: nil} {
			replace := func(context.Context, []byte) ([]byte, error) { return record, nil }
			if err := s.Update(t.Context(), name, replace); err != nil {
				t.Fatal(err)
			}
		}
	}
	return n
}

// TestRecordsOfTheVersionBefore starts wxproxy on a store of format 1, in a file
// and in Redis: tokens, stand-ins and the own account serve, nothing is asked of
// WeChat, and the store is marked, so that the version before refuses it.
//
// WXPROXY_BEFORE names a program of that version, which then writes the store
// and tries to open it afterwards. Without it the records are renamed.
func TestRecordsOfTheVersionBefore(t *testing.T) {
	const ownAccount, appSecret = "wx0123456789abcdef", "own-secret-of-32-characters-0000"
	for _, db := range databases(t) {
		t.Run(db.name, func(t *testing.T) {
			w := newTestEnv(t, sandbox.Config{Grace: -1, RotateRefreshTokens: true})
			w.store = db.lines(w)
			secret := sandbox.WithSecret(appSecret)
			if err := w.wx.AddAccount(ownAccount, sandbox.OfficialAccount, secret); err != nil {
				t.Fatal(err)
			}
			w.blocks = fmt.Sprintf("[[app]]\nappid = %q\nappsecret = %q\n", ownAccount, appSecret)
			before := os.Getenv("WXPROXY_BEFORE")
			if before == "" {
				w.start()
			} else {
				w.run(exec.Command(before, "serve", "--config", w.config()))
			}
			w.authorized(accountA, accountB)
			w.call("/"+ownAccount+userInfo, "")
			standIn := w.standIn(accountA)
			if code := w.end(syscall.SIGTERM); code != 0 {
				t.Fatalf("exit code: got %d, want 0", code)
			}
			if before == "" {
				s := db.open(w)
				if n := asBefore(t, s); n < 6 {
					t.Errorf("renamed records: got %d, want more", n)
				}
				s.Close()
				db.mark(w, "1")
			}
			w.wx.ResetHistory()
			w.start()
			w.call("/"+accountA+userInfo, "miss")
			w.call("/"+accountB+userInfo, "miss")
			w.call("/"+ownAccount+userInfo, "miss")
			w.call(userInfo+"&access_token="+standIn, "hit")
			for _, path := range []string{refreshPath, "/cgi-bin/component/api_query_auth",
				"/cgi-bin/component/api_get_authorizer_list", "/cgi-bin/stable_token"} {
				if n := w.wx.Count(path); n != 0 {
					t.Errorf("%s after the move: got %d requests, want 0", path, n)
				}
			}
			if code := w.end(syscall.SIGTERM); code != 0 {
				t.Errorf("exit code: got %d, want 0", code)
			}
			if before != "" {
				out, err := exec.Command(before, "check", "--config", w.config()).CombinedOutput()
				if err == nil || !strings.Contains(string(out), "a newer wxproxy wrote") {
					t.Errorf("check by the version before: got error %v, %s", err, out)
				}
				t.Logf("check by the version before: %s", out)
			}
			s := db.open(w)
			defer s.Close()
			err := s.List(t.Context(), "", "", func(key string, _ []byte) bool {
				kind, _, _ := strings.Cut(key, "/")
				if kind != "platform" && kind != "own" && kind != "key" {
					t.Errorf("got record %s, want only new names", key)
				}
				return true
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

//go:build unix

package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"wxproxy/internal/proctest"
	"wxproxy/sandbox"
	"wxproxy/tokens/store/bolt"
)

// command runs wxproxy and returns its output and whether it exited with 0.
func (w *testEnv) command(args ...string) (out string, ok bool) {
	w.t.Helper()
	cmd := proctest.Command(w.t, args...)
	cmd.Dir = w.dir
	b, err := cmd.CombinedOutput()
	return string(b), err == nil
}

// must runs wxproxy, which has to succeed, and returns its output.
func (w *testEnv) must(args ...string) string {
	w.t.Helper()
	out, ok := w.command(args...)
	if !ok {
		w.t.Fatalf("%s: %s", args, out)
	}
	return out
}

// fails runs wxproxy, which has to fail, with an error that has all parts.
func (w *testEnv) fails(args []string, parts ...string) {
	w.t.Helper()
	out, ok := w.command(args...)
	for _, part := range parts {
		if ok || !strings.Contains(out, part) {
			w.t.Errorf("%s: got success %v, %s, want an error with %q", args, ok, out, part)
		}
	}
}

func (w *testEnv) stop() {
	w.t.Helper()
	if code := w.end(syscall.SIGTERM); code != 0 {
		w.t.Errorf("exit code: got %d, want 0", code)
	}
}

// exporting returns the arguments for an export to a file in the folder of w.
func (w *testEnv) exporting(admin, file string) []string {
	return []string{"store", "export", "--admin", "http://" + admin, filepath.Join(w.dir, file)}
}

// importing returns the arguments for an import into the configured store.
func (w *testEnv) importing(file string, flags ...string) []string {
	return append([]string{"store", "import", "--config", w.config(), file}, flags...)
}

// export exports the store of the running wxproxy.
func (w *testEnv) export(file string) string {
	w.t.Helper()
	path := filepath.Join(w.dir, file)
	out := w.must("store", "export", "--admin", "http://"+w.admin, path)
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		w.t.Errorf("%s: got %v, %v, want mode 0600", path, info, err)
	}
	if !strings.Contains(out, "records exported to") {
		w.t.Errorf("export: got %s", out)
	}
	return path
}

// sealKey returns the key that onRedis uses for c.
func sealKey(c string) string {
	return base64.StdEncoding.EncodeToString([]byte(strings.Repeat(c, 32)))
}

// TestMoveBetweenFileAndRedis exports the file store of a wxproxy under load,
// imports it into Redis, and from there into another file. Each time all 40
// accounts work with the stored tokens: WeChat, which rotates refresh tokens, is
// asked for nothing because of the move. Afterwards every refresh token still
// works.
func TestMoveBetweenFileAndRedis(t *testing.T) {
	const many = 40
	r := startRedis(t)
	w := newTestEnv(t, sandbox.Config{Grace: -1, RotateRefreshTokens: true})
	var accounts []string
	for i := range many {
		appid := fmt.Sprintf("wx%016d", i)
		if err := w.wx.AddAccount(appid, sandbox.OfficialAccount); err != nil {
			t.Fatal(err)
		}
		accounts = append(accounts, appid)
	}
	w.storeExtra = fmt.Sprintf("key = %q", sealKey("k"))
	w.start().authorized(accounts...)
	standIn := w.standIn(accounts[0])

	var load sync.WaitGroup
	var done atomic.Bool
	for i := range 4 {
		load.Go(func() {
			for n := i; !done.Load(); n++ {
				w.call("/"+accounts[n%many]+userInfo, "")
			}
		})
	}
	first := w.export("first.export")
	done.Store(true)
	load.Wait()
	w.stop()

	serves := func(where string) {
		t.Helper()
		w.wx.ResetHistory()
		w.start()
		for _, a := range accounts {
			w.call("/"+a+userInfo, "miss")
		}
		w.call(userInfo+"&access_token="+standIn, "hit")
		for _, path := range []string{
			refreshPath, "/cgi-bin/component/api_component_token",
			"/cgi-bin/component/api_get_authorizer_list",
			"/cgi-bin/component/api_get_authorizer_info",
		} {
			if n := w.wx.Count(path); n != 0 {
				t.Errorf("%s: %s: got %d requests, want 0", where, path, n)
			}
		}
	}
	w.store, w.storeExtra = onRedis(r, "k"), ""
	out := w.must(w.importing(first)...)
	if !strings.Contains(out, "records imported, exported at 20") {
		t.Errorf("import: got %s", out)
	}
	serves("Redis")
	second := w.export("second.export")
	w.fails(w.importing(second, "--force"), "in use by another process")
	w.stop()
	w.fails(w.importing(second), "not empty", "--force replaces")

	w.store = fmt.Sprintf("url = %q\nkey = %q", "file:"+w.dir+"/other.db",
		sealKey("k"))
	w.must(w.importing(second)...)
	w.must(w.importing(second, "--force")...)
	out = w.must("store", "compact", "--config", w.config())
	if !strings.Contains(out, "before  ") {
		t.Errorf("compact: got %s", out)
	}
	serves("file")
	w.fails([]string{"store", "compact", "--config", w.config()}, "in use by another process")
	for _, a := range accounts {
		w.wx.Expire(a)
		w.call("/"+a+userInfo, "retried")
	}
	if n := w.wx.Count(refreshPath); n != many {
		t.Errorf("renewals: got %d, want one for each of %d accounts", n, many)
	}
}

// TestExportIsEncrypted: an export holds no token, no refresh token and no
// appsecret, and standard output gets the same as a file.
func TestExportIsEncrypted(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{}).start().authorized(accountA)
	b, err := os.ReadFile(w.export("a.export"))
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range append(w.wx.Secrets(), w.wx.CurrentToken(accountA)) {
		if strings.Contains(string(b), secret) {
			t.Errorf("the export contains a secret of %d bytes", len(secret))
		}
	}
	out := w.must("store", "export", "--admin", "http://"+w.admin)
	if !strings.HasPrefix(out, "wxproxy export 1\n") {
		t.Errorf("standard output: got %.40q", out)
	}
	w.fails([]string{"store", "export", "--admin", "http://" + w.admin, "a", "b"}, "extra argument")
	w.fails(w.exporting(w.callback, "b"), "is this the admin listener")
	w.fails(w.exporting(w.admin, "none/b"), "no such file")
	if _, err := os.Stat(w.dir + "/b"); err == nil {
		t.Error("a failed export left a file behind")
	}
}

// TestExportNeedsTheAdminKey, as everything on that listener does.
func TestExportNeedsTheAdminKey(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{})
	w.adminExtra = `key = "admin-key-0123456789abcdef"`
	w.start()
	w.fails(w.exporting(w.admin, "a"), "needs the key of [admin]")
	if status, body := w.get(w.admin, "/api/store/export"); status != http.StatusUnauthorized ||
		strings.Contains(body, "wxproxy export") {
		t.Errorf("without a key: got %d %s, want 401", status, body)
	}
}

// A store in memory is not encrypted, so it is not exported.
func TestMemoryIsNotExported(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{})
	w.store = `url = "memory:"`
	w.start()
	w.fails(w.exporting(w.admin, "a"), "not encrypted")
	w.fails([]string{"store", "compact", "--config", w.config()}, "not a file")
	w.fails(w.importing(w.dir+"/a"), "neither a file nor Redis")
}

// TestUnusableExports × truncated, a flipped bit, another key, a missing key
// file, a missing file, another file, a folder × into a missing or a filled
// store: the error says why, and the store is as it was.
func TestUnusableExports(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{})
	w.start().authorized(accountA)
	good, err := os.ReadFile(w.export("good"))
	if err != nil {
		t.Fatal(err)
	}
	w.stop()
	flipped := append([]byte{}, good...)
	flipped[len(flipped)/2] ^= 1
	w.file("truncated", string(good[:len(good)-10]))
	w.file("flipped", string(flipped))
	w.file("foreign", "SQLite format 3\x00")
	for _, filled := range []bool{false, true} {
		path := w.dir + "/wxproxy.db"
		if !filled {
			path = w.dir + "/empty.db"
			b, err := os.ReadFile(w.dir + "/wxproxy.db.key")
			if err != nil {
				t.Fatal(err)
			}
			w.file("empty.db.key", string(b))
		}
		w.store = fmt.Sprintf("url = %q", "file:"+path)
		before, _ := os.ReadFile(path)
		for file, want := range map[string]string{
			"truncated": "truncated", "flipped": "", "foreign": "does not begin like one",
			"missing": "no such file", ".": "not a regular file",
		} {
			args := w.importing(w.dir+"/"+file, "--force")
			w.fails(args, want)
		}
		key := w.storeExtra
		w.storeExtra = fmt.Sprintf("key = %q", sealKey("\x00"))
		args := w.importing(w.dir+"/good", "--force")
		w.fails(args, "sealed with another key than that of store.key")
		w.storeExtra = key
		after, err := os.ReadFile(path)
		changed := string(after) != string(before)
		if changed || filled != (err == nil) || !filled && !os.IsNotExist(err) {
			t.Errorf("filled %v: got error %v, changed %v, want the store as it was",
				filled, err, changed)
		}
		if filled {
			w.fails(w.importing(w.dir+"/good"), "not empty")
		}
	}
	w.store = fmt.Sprintf("url = %q", "file:"+w.dir+"/nokey.db")
	w.fails(w.importing(w.dir+"/good"), "nokey.db.key is missing")
	entries, err := fs.Glob(os.DirFS(w.dir), "*.new-*")
	if err != nil || len(entries) > 0 {
		t.Errorf("got %q, error %v, want no temporary files", entries, err)
	}
}

// A store whose key lies beside it is a warning, of each start and of check, and
// says what to do. With [store] key there is none, and none in the demo.
func TestKeyBesideTheStoreIsAWarning(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{})
	const want = "wxproxy.db.key, so a copy of the folder can be "
	for range 2 {
		w.out = &proctest.Output{}
		w.start()
		log := w.out.String()
		if strings.Count(log, want) != 1 || !strings.Contains(log, "set [store] key") {
			t.Errorf("got %s, want one warning about the key", log)
		}
		w.stop()
	}
	if out := w.must("check", "--config", w.config()); !strings.Contains(out, want) {
		t.Errorf("check: got %s, want a warning", out)
	}
	key, err := os.ReadFile(w.dir + "/wxproxy.db.key")
	if err != nil {
		t.Fatal(err)
	}
	w.storeExtra = fmt.Sprintf("key = %q", strings.TrimSpace(string(key)))
	w.out = &proctest.Output{}
	w.start()
	if log := w.out.String(); strings.Contains(log, "can be read") {
		t.Errorf("with [store] key: got %s, want no warning", log)
	}
}

// backupPage runs the commands of docs/backup.md with the paths of w.
type backupPage struct {
	w       *testEnv
	bin     string // folder with wxproxy
	entries map[string][]string
}

func newBackupPage(w *testEnv) *backupPage {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "backup.md"))
	if err != nil {
		w.t.Fatal(err)
	}
	p := &backupPage{w: w, bin: filepath.Join(w.dir, "bin"), entries: map[string][]string{}}
	heading, block, inside := "", "", false
	for line := range strings.Lines(string(text)) {
		switch trimmed := strings.TrimSpace(line); {
		case strings.HasPrefix(line, "## "):
			heading = strings.TrimSpace(line[3:])
		case trimmed == "```sh":
			block, inside = "", true
		case trimmed == "```" && inside:
			p.entries[heading], inside = append(p.entries[heading], block), false
		case inside:
			block += trimmed + "\n"
		}
	}
	binary, err := proctest.Binary()
	for _, dir := range []string{"bin", "secrets", "backup"} {
		err = errors.Join(err, os.Mkdir(filepath.Join(w.dir, dir), 0o700))
	}
	if err = errors.Join(err, os.Symlink(binary, filepath.Join(p.bin, "wxproxy"))); err != nil {
		w.t.Fatal(err)
	}
	return p
}

// run runs the next command below a heading.
func (p *backupPage) run(heading string) {
	p.w.t.Helper()
	if len(p.entries[heading]) == 0 {
		p.w.t.Fatalf("%s: no command is left", heading)
	}
	script := p.entries[heading][0]
	p.entries[heading] = p.entries[heading][1:]
	dir := p.w.dir
	script = strings.NewReplacer(
		"/var/lib/wxproxy/", dir+"/", "/etc/wxproxy/", dir+"/", "/secrets/", dir+"/secrets/",
		"/backup/", dir+"/backup/", "/tmp/drill", dir+"/drill", "127.0.0.1:8082", p.w.admin,
	).Replace(script)
	cmd := exec.Command("sh", "-e", "-c", script)
	cmd.Env = append(os.Environ(), "PATH="+p.bin+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		p.w.t.Fatalf("%s: %s: %v\n%s", heading, script, err, out)
	}
}

// TestBackupPage runs every command of docs/backup.md, in the order of the page,
// and does in between what its text says.
func TestBackupPage(t *testing.T) {
	r := startRedis(t)
	w := newTestEnv(t, sandbox.Config{Grace: -1, RotateRefreshTokens: true})
	p := newBackupPage(w)
	w.start().authorized(accountA, accountB)
	p.run("What to keep")
	p.run("Back up while wxproxy runs")
	p.run("Back up while wxproxy runs")
	w.stop()
	if err := os.Remove(w.dir + "/wxproxy.db"); err != nil {
		t.Fatal(err)
	}
	w.config()
	p.run("Restore")
	w.start()
	p.run("Restore")
	w.call("/"+accountA+userInfo, "")
	w.stop()
	p.run("Restore")

	// The drill needs the key of the other file.
	w.storeExtra = `key = "${file:` + w.dir + `/secrets/store_key}"`
	w.store = fmt.Sprintf("url = %q", "file:"+w.dir+"/drill/wxproxy.db")
	if err := os.Rename(w.config(), w.dir+"/drill.toml"); err != nil {
		t.Fatal(err)
	}
	p.run("Rehearse it")
	w.store = ""
	w.config()
	p.run("Make a store file smaller")

	url, _, _ := strings.Cut(onRedis(r, "k"), "\n")
	w.store = url
	w.config()
	p.run("Move between a file and Redis")
	w.wx.ResetHistory()
	w.start()
	w.call("/"+accountA+userInfo, "miss")
	w.call("/"+accountB+userInfo, "miss")
	if n := w.wx.Count(refreshPath); n != 0 {
		t.Errorf("renewals: got %d, want 0", n)
	}
	for heading, left := range p.entries {
		if len(left) > 0 {
			t.Errorf("%s: %d commands were not run", heading, len(left))
		}
	}
}

// editKey changes the record of the key that signs stand-ins, in the file store
// of w, which is stopped.
func (w *testEnv) editKey(change func(record map[string]any)) {
	w.t.Helper()
	s, err := bolt.OpenFile(w.t.Context(), w.dir+"/wxproxy.db", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	defer s.Close()
	err = s.Update(w.t.Context(), "key/standin", func(_ context.Context, b []byte) ([]byte, error) {
		record := map[string]any{}
		if err := json.Unmarshal(b, &record); err != nil {
			return nil, err
		}
		change(record)
		return json.Marshal(record)
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// The key that signs stand-ins is replaced after 30 days. A stand-in stays valid
// while the next key is known, after that one has begun to sign, and ends when
// the old key does. The times in the store are moved instead of waiting.
func TestStandInsOutliveTheirKey(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{})
	var keyBefore any
	w.start().authorized(accountA)
	old := w.standIn(accountA)
	w.stop()
	for _, c := range []struct {
		name   string
		change func(record map[string]any)
		valid  bool
	}{
		{"30 days later", func(r map[string]any) { keyBefore, r["since"] = r["key"], 1 }, true},
		{"the next key signs", func(r map[string]any) {
			if r["next"] == nil || r["current"] != nil {
				t.Errorf("got a record without a next key, or with another current one")
			}
			r["next_from"] = 1
		}, true},
		{"the old key ends", func(r map[string]any) {
			if r["current"] == nil || r["previous"] != keyBefore || r["key"] != keyBefore {
				t.Errorf("got no other current key, or another previous one")
			}
			r["previous_until"] = 1
		}, false},
	} {
		w.editKey(c.change)
		w.start()
		w.call(userInfo+"&access_token="+w.standIn(accountA), "")
		_, answer, _ := w.try("GET", userInfo+"&access_token="+old, "")
		if valid := !strings.Contains(answer, `"errcode":4`); valid != c.valid {
			t.Errorf("%s: the old stand-in: got %s, want it valid: %v", c.name, answer, c.valid)
		}
		w.stop()
	}
}

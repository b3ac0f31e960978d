package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/console"
	"wxproxy/internal/proctest"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

// fakeBackend keeps the accounts of a console in a map.
type fakeBackend struct {
	mu       sync.Mutex
	accounts map[string]tokens.Account
	imported map[string]string // refresh tokens, by appid
	pages    int               // how many lists were requested
	fail     error             // of all operations, if not nil
}

const (
	plainAccount   = "wxd000000000000001"
	revokedAccount = "wxd000000000000002"
	failingAccount = "wxd000000000000003"

	// hiddenToken must not occur in any output.
	hiddenToken = "refreshtoken@@@hidden"
)

// newFakeBackend returns a backend with the three accounts.
func newFakeBackend() *fakeBackend {
	now := time.Now()
	authorized := now.Add(-12*24*time.Hour - time.Hour)
	b := &fakeBackend{accounts: map[string]tokens.Account{}, imported: map[string]string{}}
	for _, a := range []tokens.Account{
		{
			AppID: plainAccount, Kind: tokens.Authorizer, State: tokens.Active,
			Name: "北京小面馆", Type: "official account", Token: "11112222", RefreshToken: "33334444",
			Issued: now.Add(-7*time.Minute - 30*time.Second), Expires: now.Add(112*time.Minute + 30*time.Second),
			Authorized: authorized,
		},
		{
			AppID: revokedAccount, Kind: tokens.Authorizer, State: tokens.Revoked,
			Name: "Tea & Co", Type: "mini program",
			Authorized: authorized, Revoked: now.Add(-3*time.Hour - time.Minute),
		},
		{
			AppID: failingAccount, Kind: tokens.Authorizer, State: tokens.Failing,
			Name: "evil\x1b[31m\u202ename, and a very long one at that", Token: "55556666", RefreshToken: "77778888",
			Issued: now.Add(-3 * time.Hour), Expires: now.Add(-3*time.Minute - 30*time.Second),
			Failures: 4, Failure: "the refresh token is refused\n(authorize again)",
		},
	} {
		b.accounts[a.AppID] = a
	}
	return b
}

func (b *fakeBackend) Account(_ context.Context, appid string) (tokens.Account, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a, ok := b.accounts[appid]
	if !ok {
		return a, tokens.ErrUnknownAccount
	}
	return a, b.fail
}

func (b *fakeBackend) List(
	_ context.Context, offset, limit int, filter tokens.AccountFilter,
) ([]tokens.Account, int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pages++
	var all []tokens.Account
	for _, appid := range slices.Sorted(maps.Keys(b.accounts)) {
		a := b.accounts[appid]
		if strings.Contains(strings.ToLower(appid+"\n"+a.Name), strings.ToLower(filter.Query)) &&
			(filter.State == "" || filter.State == a.State) {
			all = append(all, a)
		}
	}
	from := min(offset, len(all))
	return all[from:min(from+limit, len(all))], len(all), b.fail
}

func (b *fakeBackend) Refresh(ctx context.Context, appid string) (tokens.Account, error) {
	a, err := b.Account(ctx, appid)
	now := time.Now()
	a.Token, a.Issued, a.Expires = "9999aaaa", now, now.Add(2*time.Hour+30*time.Second)
	return a, err
}

func (b *fakeBackend) Forget(ctx context.Context, appid string) error {
	a, _ := b.Account(ctx, appid)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail == nil {
		b.accounts[appid] = tokens.Account{
			AppID: appid, Kind: tokens.Authorizer, State: tokens.Forgotten, Name: a.Name,
			Forgotten: time.Now().Add(-time.Hour - time.Second),
		}
	}
	return b.fail
}

// forgotten returns how many accounts are forgotten.
func (b *fakeBackend) forgotten() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range b.accounts {
		if a.State == tokens.Forgotten {
			n++
		}
	}
	return n
}

func (b *fakeBackend) Sync(_ context.Context, o tokens.SyncOptions) (tokens.SyncResult, error) {
	const took = 2345678 * time.Microsecond
	got := tokens.SyncResult{
		Listed: 10000, Added: 12, Recovered: 1, Unchanged: 9987, Held: 600, Took: took,
	}
	if o.Restore {
		got.Recovered += 20
	}
	if o.Confirm {
		got.Revoked, got.Held = 603, 0
	}
	return got, b.fail
}

func (b *fakeBackend) Import(_ context.Context, appid string, refresh wechat.Secret) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return false, b.fail
	}
	if _, found := b.imported[appid]; found {
		return false, nil
	}
	b.imported[appid] = refresh.Reveal()
	return true, nil
}

// fakeStats contains the other values that a console needs.
type fakeStats struct{}

func (fakeStats) Component() string                      { return "wxcccccccccccccccc" }
func (fakeStats) TicketAge() (time.Duration, bool)       { return 0, false }
func (fakeStats) ComponentExpiry() (time.Duration, bool) { return 0, false }
func (fakeStats) AccountCounts() (tokens.AccountCounts, bool) {
	return tokens.AccountCounts{Active: 1, Revoked: 1, Failing: 1}, true
}
func (fakeStats) Comparison() (tokens.Comparison, bool) { return tokens.Comparison{}, false }

// fakeExplain explains every request in the same way.
func fakeExplain(appid, method, path, _ string) (console.Explanation, error) {
	return console.Explanation{
		AppID: appid, Method: method, Path: path,
		Credential: "authorizer", Parameter: "access_token", Holder: appid,
		Removes: []string{"access_token"}, Rule: console.Rule{Path: "*", Source: "default"},
	}, nil
}

// adminTest runs commands against a real console, over TCP, with a backend that
// is not real.
type adminTest struct {
	*fakeBackend
	t        *testing.T
	url      string // of the console
	env      map[string]string
	stdin    string
	terminal bool
}

// newAdminTest starts a console. change, if not nil, can change its
// configuration.
func newAdminTest(t *testing.T, change func(*console.Config)) *adminTest {
	t.Helper()
	a := &adminTest{fakeBackend: newFakeBackend(), t: t, env: map[string]string{}}
	c := console.Config{Accounts: a.fakeBackend, Stats: fakeStats{}, Loopback: true, Explain: fakeExplain}
	if change != nil {
		change(&c)
	}
	srv := httptest.NewServer(console.New(c))
	t.Cleanup(srv.Close)
	a.url = srv.URL
	return a
}

// run runs a command, with --admin added, and checks that its output contains
// neither a token nor characters that a terminal would interpret.
func (a *adminTest) run(args ...string) ran {
	a.t.Helper()
	var out, errs bytes.Buffer
	e := &env{
		stdout: &out, stderr: &errs, stdin: strings.NewReader(a.stdin), terminal: a.terminal,
		getenv: func(name string) (string, bool) { v, ok := a.env[name]; return v, ok },
	}
	args = append(slices.Clip(args), "--admin", a.url)
	code := execute(a.t.Context(), args, e)
	all := out.String() + errs.String()
	if strings.Contains(all, "hidden") || strings.ContainsAny(all, "\x1b\u202e") {
		a.t.Errorf("wxproxy %v: a token or a control character was printed:\n%q\n%q", args, out.String(), errs.String())
	}
	return ran{code, out.String(), errs.String()}
}

// want runs a command and compares the result. In errors, ADMIN stands for the
// address of the console.
func (a *adminTest) want(args string, want ran) {
	a.t.Helper()
	got := a.run(strings.Fields(args)...)
	got.errors = strings.ReplaceAll(got.errors, a.url, "ADMIN")
	got.check(a.t, args, want)
}

// failsWith is a run that fails with these errors.
func failsWith(errors ...string) ran {
	want := ran{code: exitFailed}
	for _, e := range errors {
		want.errors += "wxproxy: " + e + "\n"
	}
	return want
}

// wrongUsage is a run of a command, or of wxproxy itself if command is "", with
// a wrong command line.
func wrongUsage(command, message string) ran {
	path := strings.TrimSpace("wxproxy " + command)
	return ran{code: exitUsage, errors: "wxproxy: " + message + "; see " + path + " --help\n"}
}

func TestAdminKey(t *testing.T) {
	a := newAdminTest(t, func(c *console.Config) { c.Key = wechat.NewSecret("hidden key") })
	a.want("accounts sync", failsWith("ADMIN needs the key of [admin]: set WXPROXY_ADMIN_KEY, or use --key"))
	wrongKey := failsWith("ADMIN does not accept this key: WXPROXY_ADMIN_KEY or --key must be the key of [admin]")
	a.want("accounts sync --key wrong", wrongKey)
	a.env[adminKeyVariable] = "hidden key"
	if got := a.run("accounts", "sync", "--json"); got.code != exitDone {
		t.Errorf("accounts sync with the key in the environment: got %+v, want success", got)
	}
	a.want("accounts sync --key wrong", wrongKey) // the flag comes first
	a.env[adminKeyVariable] = "hidden key\n"
	a.want("accounts sync", wrongUsage("accounts sync",
		"the admin key contains control characters, perhaps a line break at its end"))
	a.env = nil
	if got := a.run("accounts", "sync", "--key", "hidden key"); got.code != exitDone {
		t.Errorf("accounts sync --key: got %+v, want success", got)
	}
}

// The address may belong to another server, or to none.
func TestAdminIsNotWxproxy(t *testing.T) {
	a := newAdminTest(t, nil)
	var respond func(http.ResponseWriter)
	var paths []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.URL.Path)
		respond(w)
	}))
	defer srv.Close()
	a.url = srv.URL
	for _, c := range []struct {
		status       int
		body, quoted string
	}{
		{200, "<html>hidden\x1b[31m", "200 OK"},
		{404, "not found", "404 Not Found"},
		{404, `{"errcode":-404,"errmsg":"wxproxy: …"}`, "404 Not Found"},
		{307, "", "307 Temporary Redirect"},
		{500, `["hidden"]`, "500 Internal Server Error"},
	} {
		respond = func(w http.ResponseWriter) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(c.status)
			fmt.Fprint(w, c.body)
		}
		a.want("accounts sync", failsWith("unexpected response "+c.quoted+
			" from ADMIN: is this the admin listener of wxproxy? --admin sets another address"))
	}
	if slices.Contains(paths, "/elsewhere") {
		t.Error("the key was sent to the target of a redirect")
	}
	respond = func(w http.ResponseWriter) { fmt.Fprint(w, "{}") }
	for _, args := range []string{"accounts list", "accounts show " + plainAccount, "explain - GET /a"} {
		got := a.run(strings.Fields(args)...)
		if got.code != exitFailed || !strings.Contains(got.errors, "is this the admin listener of wxproxy?") &&
			!strings.Contains(got.errors, "may have another version") {
			t.Errorf("%s with an empty response: got %+v, want a failure that explains it", args, got)
		}
	}
	a.url = "http://" + proctest.FreeAddr(t)
	a.want("accounts sync", failsWith("no response from ADMIN: connect: connection refused "+
		"(is wxproxy running? --admin sets another address)"))
	for _, url := range []string{
		"127.0.0.1:8082", "ftp://127.0.0.1", "http://", "http://user:hidden@127.0.0.1", "http://127.0.0.1/?a=b", "%",
	} {
		a.url = url
		a.run("accounts", "sync").check(t, "accounts sync --admin "+url,
			wrongUsage("accounts sync", "--admin is not a URL such as http://127.0.0.1:8082"))
	}
}

func TestPlainJSON(t *testing.T) {
	for in, want := range map[string]string{
		"{\"a\":\n\t\"北京\"}\n":           `{"a":  "北京"}`,
		"\"\u009b\u202e\U000e0041\xff\"": `"\u009b\u202e\udb40\udc41` + "\ufffd" + `"`,
	} {
		if got := plainJSON([]byte(in)); got != want {
			t.Errorf("plainJSON(%q): got %s, want %s", in, got, want)
		}
	}
}

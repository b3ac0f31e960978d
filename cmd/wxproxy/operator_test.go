package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
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

// The tests below run the commands before a real console, over TCP; only what stands behind the console is
// made up.

// office keeps accounts in a map.
type office struct {
	mu       sync.Mutex
	accounts map[string]tokens.Account
	imported map[string]string
	pages    int // lists that were asked for
	fail     error
}

const (
	revokedAccount = "wxd000000000000002"
	failingAccount = "wxd000000000000003"
	plainAccount   = "wxd000000000000001"
	// hiddenToken must not occur in any output.
	hiddenToken = "refreshtoken@@@hidden"
)

func newOffice() *office {
	now := time.Now()
	authorized := now.Add(-12*24*time.Hour - time.Hour)
	o := &office{accounts: map[string]tokens.Account{}, imported: map[string]string{}}
	for _, a := range []tokens.Account{
		{AppID: plainAccount, Kind: tokens.Authorizer, State: tokens.Active, Name: "北京小面馆", Type: "official account", Token: "11112222", RefreshToken: "33334444",
			Issued: now.Add(-7*time.Minute - 30*time.Second), Expires: now.Add(112*time.Minute + 30*time.Second), Authorized: authorized},
		{AppID: revokedAccount, Kind: tokens.Authorizer, State: tokens.Revoked, Name: "Tea & Co", Type: "mini program", Authorized: authorized, Revoked: now.Add(-3*time.Hour - time.Minute)},
		{AppID: failingAccount, Kind: tokens.Authorizer, State: tokens.Failing, Name: "evil\x1b[31m\u202ename, and a very long one at that", Token: "55556666", RefreshToken: "77778888",
			Issued: now.Add(-3 * time.Hour), Expires: now.Add(-3*time.Minute - 30*time.Second), Failures: 4, Failure: "the refresh token is refused\n(authorize again)"},
	} {
		o.accounts[a.AppID] = a
	}
	return o
}

func (o *office) Account(_ context.Context, appid string) (tokens.Account, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	a, ok := o.accounts[appid]
	if !ok {
		return a, tokens.ErrUnknownAccount
	}
	return a, o.fail
}

func (o *office) List(_ context.Context, offset, limit int, q string) ([]tokens.Account, int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pages++
	var all []tokens.Account
	for _, appid := range slices.Sorted(maps.Keys(o.accounts)) {
		if strings.Contains(strings.ToLower(appid+"\n"+o.accounts[appid].Name), strings.ToLower(q)) {
			all = append(all, o.accounts[appid])
		}
	}
	from := min(offset, len(all))
	return all[from:min(from+limit, len(all))], len(all), o.fail
}

func (o *office) Refresh(ctx context.Context, appid string) (tokens.Account, error) {
	a, err := o.Account(ctx, appid)
	now := time.Now()
	a.Token, a.Issued, a.Expires = "9999aaaa", now, now.Add(2*time.Hour+30*time.Second)
	return a, err
}

func (o *office) Forget(ctx context.Context, appid string) error {
	_, err := o.Account(ctx, appid)
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.accounts, appid)
	return err
}

func (o *office) Sync(context.Context) (tokens.SyncResult, error) {
	return tokens.SyncResult{Listed: 10000, Added: 12, Recovered: 1, Revoked: 3, Unchanged: 9987, Took: 2345678 * time.Microsecond}, o.fail
}

func (o *office) Import(_ context.Context, appid string, refresh wechat.Secret) (bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fail != nil {
		return false, o.fail
	}
	if _, there := o.imported[appid]; there {
		return false, nil
	}
	o.imported[appid] = refresh.Reveal()
	return true, nil
}

// officeStats are what a console needs besides.
type officeStats struct{}

func (officeStats) Component() string                      { return "wxcccccccccccccccc" }
func (officeStats) TicketAge() (time.Duration, bool)       { return 0, false }
func (officeStats) ComponentExpiry() (time.Duration, bool) { return 0, false }
func (officeStats) Accounts() (int, int, int, bool)        { return 1, 1, 1, true }

// desk is a console before an office, and somebody who types commands.
type desk struct {
	*office
	t        *testing.T
	url      string
	env      map[string]string
	stdin    string
	terminal bool
}

func newDesk(t *testing.T, change func(*console.Config)) *desk {
	t.Helper()
	d := &desk{office: newOffice(), t: t, env: map[string]string{}}
	c := console.Config{Accounts: d.office, Stats: officeStats{}, Loopback: true, Explain: func(appid, method, path, caller string) (console.Explanation, error) {
		return console.Explanation{AppID: appid, Method: method, Path: path, Credential: "authorizer", Parameter: "access_token", Holder: appid,
			Removes: []string{"access_token"}, Rule: console.Rule{Path: "*", Source: "default"}}, nil
	}}
	if change != nil {
		change(&c)
	}
	srv := httptest.NewServer(console.New(c))
	t.Cleanup(srv.Close)
	d.url = srv.URL
	return d
}

// run types a command; --admin is added.
func (d *desk) run(args ...string) ran {
	d.t.Helper()
	var out, errs bytes.Buffer
	e := &env{stdout: &out, stderr: &errs, stdin: strings.NewReader(d.stdin), terminal: d.terminal,
		getenv: func(name string) (string, bool) { v, ok := d.env[name]; return v, ok }}
	args = append(slices.Clip(args), "--admin", d.url)
	code := execute(d.t.Context(), args, e)
	if strings.Contains(out.String()+errs.String(), "hidden") || strings.ContainsAny(out.String()+errs.String(), "\x1b\u202e") {
		d.t.Errorf("%v: a token, or what a terminal would obey, was printed:\n%q\n%q", args, out.String(), errs.String())
	}
	return ran{code, out.String(), errs.String()}
}

// want compares a run with what it should be; errors of the console's address are read as ADMIN.
func (d *desk) want(args string, want ran) {
	d.t.Helper()
	got := d.run(strings.Fields(args)...)
	got.errors = strings.ReplaceAll(got.errors, d.url, "ADMIN")
	if got != want {
		d.t.Errorf("%s\ngot  %d\n%s\n%s\nwant %d\n%s\n%s", args, got.code, got.out, got.errors, want.code, want.out, want.errors)
	}
}

const listed = `APPID               NAME                      TYPE              STATE    EXPIRES      AUTHORIZED
wxd000000000000001  北京小面馆                official account  active   in 1h52m     12d ago
wxd000000000000002  Tea & Co                  mini program      revoked  -            12d ago
wxd000000000000003  evil?[31m?name, and a v…  authorizer        failing  over for 3m  -           the refresh token is refused (authorize again)
`

func TestAccountsList(t *testing.T) {
	d := newDesk(t, nil)
	d.want("accounts list", ran{out: listed})
	d.want("accounts list --q TEA", ran{out: "APPID               NAME      TYPE          STATE    EXPIRES  AUTHORIZED\n" +
		"wxd000000000000002  Tea & Co  mini program  revoked  -        12d ago\n"})
	d.want("accounts list --q nothing", ran{out: "APPID  NAME  TYPE  STATE  EXPIRES  AUTHORIZED\n"})
	d.want("accounts list --q wxd --limit 1", ran{errors: "wxproxy: 1 of 3 accounts listed\n",
		out: "APPID               NAME        TYPE              STATE   EXPIRES   AUTHORIZED\nwxd000000000000001  北京小面馆  official account  active  in 1h52m  12d ago\n"})
	d.want("accounts list --limit -1", ran{code: 2, errors: "wxproxy: --limit is negative; see wxproxy accounts list --help\n"})
	d.want("accounts list x", ran{code: 2, errors: "wxproxy: list takes flags only, and there is an extra argument; see wxproxy accounts list --help\n"})
}

// Thousands come page by page, each once.
func TestAccountsListPages(t *testing.T) {
	d := newDesk(t, nil)
	for i := range 1234 {
		appid := fmt.Sprintf("wxe%015d", i)
		d.accounts[appid] = tokens.Account{AppID: appid, State: tokens.Active}
	}
	got := d.run("accounts", "list")
	lines := strings.Split(strings.TrimSpace(got.out), "\n")
	if got.code != 0 || len(lines) != 1+1237 || d.pages != 3 || !strings.HasPrefix(lines[1237], "wxe000000000001233") {
		t.Errorf("%d, %d lines, %d pages, %s", got.code, len(lines), d.pages, got.errors)
	}
	for _, c := range []struct {
		limit string
		want  int
	}{{"0", 1237}, {"700", 700}, {"1237", 1237}, {"5000", 1237}} {
		got = d.run("accounts", "list", "--json", "--limit", c.limit)
		var all struct {
			Total, Offset int
			Accounts      []accountView
		}
		if err := json.Unmarshal([]byte(got.out), &all); err != nil || all.Total != 1237 || len(all.Accounts) != c.want {
			t.Errorf("--limit %s: %v, %d of %d", c.limit, err, len(all.Accounts), all.Total)
		}
	}
}

func TestAccountsShow(t *testing.T) {
	d := newDesk(t, nil)
	got := d.run("accounts", "show", plainAccount)
	when := regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:]{8}Z`)
	const want = `appid          wxd000000000000001
name           北京小面馆
type           official account
state          active
token          11112222, issued 7m ago, expires in 1h52m
refresh token  33334444
authorized     WHEN, 12d ago
`
	if out := when.ReplaceAllString(got.out, "WHEN"); got.code != 0 || out != want {
		t.Errorf("%d\n%s%s", got.code, out, got.errors)
	}
	got = d.run("accounts", "show", failingAccount)
	for _, line := range []string{`name           evil?[31m?name, and a very long one at that`, "token          55556666, issued 3h ago, over for 3m",
		"failures       4 since the last good renewal", `the last one   the refresh token is refused (authorize again)`} {
		if !strings.Contains(got.out, line+"\n") {
			t.Errorf("no line %q in\n%s", line, got.out)
		}
	}
	got = d.run("accounts", "show", "--json", failingAccount)
	var a accountView
	if err := json.Unmarshal([]byte(got.out), &a); err != nil || a.Name != d.accounts[failingAccount].Name || strings.Count(got.out, "\n") != 1 {
		t.Errorf("%v: %s", err, got.out)
	}
	d.want("accounts show "+accountA, ran{code: 1, errors: "wxproxy: unknown account " + accountA + " (an account is known from its authorization on; POST /api/sync reads the authorizers from WeChat)\n"})
	d.want("accounts show wxABC", ran{code: 2, errors: "wxproxy: APPID is not an appid: an appid is wx and 16 lower-case letters or digits; see wxproxy accounts show --help\n"})
	d.want("accounts show", ran{code: 2, errors: "wxproxy: show needs APPID; see wxproxy accounts show --help\n"})
	d.want("accounts show --json "+accountA+" --key k more", ran{code: 2, errors: "wxproxy: show takes APPID, and there is an extra argument; see wxproxy accounts show --help\n"})
}

func TestAccountsRefresh(t *testing.T) {
	d := newDesk(t, nil)
	if got := d.run("accounts", "refresh", plainAccount); got.code != 0 || !strings.Contains(got.out, "token          9999aaaa, issued 0s ago, expires in 2h\n") {
		t.Errorf("%+v", got)
	}
	d.fail = tokens.ErrThrottled
	d.want("accounts refresh "+plainAccount, ran{code: 1, errors: "wxproxy: " + tokens.ErrThrottled.Error() + " (find the cause of the rejections: requests with the wrong kind of token, or another program that renews tokens)\n"})
	d.fail = fmt.Errorf("%w: no ticket", tokens.ErrUnavailable)
	d.want("accounts refresh "+plainAccount, ran{code: 1, errors: "wxproxy: no token available: no ticket (try again after 1 s)\n"})
}

func TestAccountsForget(t *testing.T) {
	d := newDesk(t, nil)
	d.want("accounts forget "+plainAccount, ran{code: 2, errors: "wxproxy: there is no terminal to ask for confirmation: use --yes; see wxproxy accounts forget --help\n"})
	d.terminal = true
	for _, answer := range []string{"n\n", "\n", "", "maybe\n"} {
		d.stdin = answer
		d.want("accounts forget "+plainAccount, ran{code: 1, errors: "Forget wxd000000000000001 (北京小面馆), active, with its refresh token? [y/N] wxproxy: canceled: no account was forgotten\n"})
	}
	if len(d.accounts) != 3 {
		t.Fatal("forgotten all the same")
	}
	d.stdin = "Y\n"
	d.want("accounts forget "+plainAccount, ran{out: plainAccount + " is forgotten\n", errors: "Forget wxd000000000000001 (北京小面馆), active, with its refresh token? [y/N] "})
	d.terminal = false
	d.want("accounts forget --yes --json "+failingAccount, ran{out: `{"appid":"wxd000000000000003","forgotten":true}` + "\n"})
	if len(d.accounts) != 1 {
		t.Errorf("%d are left", len(d.accounts))
	}
}

// Somebody who interrupts the question has not agreed.
func TestForgetInterrupted(t *testing.T) {
	d := newDesk(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs proctest.Output
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	defer read.Close()
	done := make(chan int)
	go func() {
		done <- execute(ctx, []string{"accounts", "forget", plainAccount, "--admin", d.url},
			&env{stdout: &out, stderr: &errs, stdin: read, terminal: true, getenv: noEnv})
	}()
	proctest.Eventually(t, func() bool { return strings.Contains(errs.String(), "[y/N]") })
	cancel()
	if code := <-done; code != 1 || len(d.accounts) != 3 {
		t.Errorf("%d, %d accounts", code, len(d.accounts))
	}
}

func TestAccountsSync(t *testing.T) {
	d := newDesk(t, nil)
	d.want("accounts sync", ran{out: `on WeChat's list  10000
added             12      not known here before
recovered         1       the stored refresh token was outdated
withdrawn         3       known here, and no longer on the list
unchanged         9987
took              2.346s
`})
	d.want("accounts sync --json", ran{out: `{"listed":10000,"added":12,"recovered":1,"revoked":3,"unchanged":9987,"took":2.346}` + "\n"})
}

func TestExplainCommand(t *testing.T) {
	d := newDesk(t, func(c *console.Config) {
		inner := c.Explain
		c.Explain = func(appid, method, path, caller string) (console.Explanation, error) {
			e, err := inner(appid, method, path, caller)
			if caller != "" {
				e.Caller = &console.Verdict{Name: caller, Reason: "its paths do not have this one"}
			}
			if appid == "" {
				e = console.Explanation{Method: method, Credential: "refused", Refusal: &console.Refusal{Status: 400, Error: "wxproxy: for which account?", Hint: "name one"}}
			}
			return e, err
		}
	})
	d.want("explain "+plainAccount+" get /cgi-bin/user/info?a=b", ran{out: `call        GET /cgi-bin/user/info?a=b, for wxd000000000000001
credential  the token of the authorizer wxd000000000000001
parameter   access_token
taken out   access_token, if the caller sends them
rule        the default: no row names this path, so it takes the account's token
account     wxd000000000000001 (北京小面馆), active
token       11112222, issued 7m ago, expires in 1h52m
`})
	d.want("explain "+revokedAccount+" POST /a --caller orders", ran{out: `call        POST /a, for wxd000000000000002
answer      410 by wxproxy itself, WeChat is not called
            wxproxy: account wxd000000000000002 has revoked its authorization
            the merchant has to authorize again
credential  the token of the authorizer wxd000000000000002
parameter   access_token
taken out   access_token, if the caller sends them
rule        the default: no row names this path, so it takes the account's token
account     wxd000000000000002 (Tea & Co), revoked
token       none at the moment
caller      orders may not make this call: its paths do not have this one
`})
	d.want("explain - GET /a", ran{out: `call        GET (a path that cannot be read), for no account in particular
answer      400 by wxproxy itself, WeChat is not called
            wxproxy: for which account?
            name one
credential  none: the call is not forwarded
rule        none was reached
`})
	if got := d.run("explain", plainAccount, "GET", "/a", "--json"); got.code != 0 || !strings.HasPrefix(got.out, `{"appid":"`+plainAccount+`","method":"GET","path":"/a",`) {
		t.Errorf("%+v", got)
	}
	d.want("explain "+plainAccount+" GET", ran{code: 2, errors: "wxproxy: explain needs APPID METHOD PATH; see wxproxy explain --help\n"})
	d.want("explain orders GET /a", ran{code: 2, errors: "wxproxy: APPID is not an appid: an appid is wx and 16 lower-case letters or digits, or \"-\" for none; see wxproxy explain --help\n"})
	d.want("explain - GET cgi-bin/a", ran{code: 2, errors: "wxproxy: PATH does not start with a slash; see wxproxy explain --help\n"})
}

func TestAdminKey(t *testing.T) {
	d := newDesk(t, func(c *console.Config) { c.Key = wechat.NewSecret("hidden key") })
	d.want("accounts sync", ran{code: 1, errors: "wxproxy: ADMIN needs the key of [admin]: set WXPROXY_ADMIN_KEY, or use --key\n"})
	d.want("accounts sync --key wrong", ran{code: 1, errors: "wxproxy: ADMIN does not accept this key: WXPROXY_ADMIN_KEY or --key must be the key of [admin]\n"})
	d.env[adminKeyVariable] = "hidden key"
	if got := d.run("accounts", "sync", "--json"); got.code != 0 {
		t.Errorf("%+v", got)
	}
	// What is typed counts before what lies about.
	if got := d.run("accounts", "sync", "--key", "wrong"); got.code != 1 {
		t.Errorf("%+v", got)
	}
	d.env[adminKeyVariable] = "hidden key\n"
	d.want("accounts sync", ran{code: 2, errors: "wxproxy: the admin key contains control characters, perhaps a line break at its end; see wxproxy accounts sync --help\n"})
	d.env = nil
	if got := d.run("accounts", "sync", "--key", "hidden key"); got.code != 0 {
		t.Errorf("%+v", got)
	}
}

// What answers may be anything, or nothing.
func TestAdminIsSomethingElse(t *testing.T) {
	d := newDesk(t, nil)
	var answer func(http.ResponseWriter)
	var seen []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.URL.Path)
		answer(w)
	}))
	defer srv.Close()
	d.url = srv.URL
	not := func(status string) ran {
		return ran{code: 1, errors: "wxproxy: unexpected response " + status + " from ADMIN: is this the admin listener of wxproxy? --admin sets another address\n"}
	}
	f := func(status int, body, words string) {
		t.Helper()
		answer = func(w http.ResponseWriter) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}
		d.want("accounts sync", not(words))
	}
	f(200, "<html>hidden\x1b[31m", "200 OK")
	f(404, "not found", "404 Not Found")
	f(404, `{"errcode":-404,"errmsg":"wxproxy: …"}`, "404 Not Found")
	f(307, "", "307 Temporary Redirect")
	f(500, `["hidden"]`, "500 Internal Server Error")
	if slices.Contains(seen, "/elsewhere") {
		t.Error("a redirect was followed")
	}
	answer = func(w http.ResponseWriter) { fmt.Fprint(w, "{}") }
	for _, args := range []string{"accounts list", "accounts show " + plainAccount, "explain - GET /a"} {
		if got := d.run(strings.Fields(args)...); got.code != 1 || !strings.Contains(got.errors, "is this the admin listener of wxproxy?") && !strings.Contains(got.errors, "may have another version") {
			t.Errorf("%s: %+v", args, got)
		}
	}
	d.url = "http://" + proctest.FreeAddr(t)
	d.want("accounts sync", ran{code: 1, errors: "wxproxy: no response from ADMIN: connect: connection refused (is wxproxy running? --admin sets another address)\n"})
	for _, bad := range []string{"127.0.0.1:8082", "ftp://127.0.0.1", "http://", "http://user:hidden@127.0.0.1", "http://127.0.0.1/?a=b", "%"} {
		d.url = bad
		if got := d.run("accounts", "sync"); got.code != 2 || got.errors != "wxproxy: --admin is not a URL such as http://127.0.0.1:8082; see wxproxy accounts sync --help\n" {
			t.Errorf("%s: %+v", bad, got)
		}
	}
}

func TestImportCommand(t *testing.T) {
	dir := t.TempDir()
	f := func(text string, want ran) *desk {
		t.Helper()
		d := newDesk(t, nil)
		d.imported[accountB] = "there already"
		path := filepath.Join(dir, "file")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got := d.run("accounts", "import", path)
		got.errors = strings.ReplaceAll(got.errors, path, "FILE")
		if got != want {
			t.Errorf("%.300q\ngot  %d\n%s\n%s\nwant %d\n%s\n%s", text, got.code, got.out, got.errors, want.code, want.out, want.errors)
		}
		if strings.Contains(want.out, "1 added") && d.imported[accountA] != hiddenToken {
			t.Errorf("%.300q: imported %q", text, d.imported[accountA])
		}
		return d
	}
	one := ran{out: "1 added, 0 kept as they were, 0 not imported\n"}
	f("", ran{out: "0 added, 0 kept as they were, 0 not imported\n"})
	f(accountA+","+hiddenToken, one)
	f("\ufeffappid,refresh_token\r\n"+accountA+","+hiddenToken+"\r\n", one)
	f("note,Refresh_Token,AppID\n\"a, b\","+hiddenToken+", "+accountA+"\n", one)
	f("\n\n"+`{"appid":"`+accountA+`","refresh_token":"`+hiddenToken+`","more":1}`+"\n", one)
	f(accountA+","+hiddenToken+"\n"+accountB+","+hiddenToken+"\n", ran{out: "1 added, 1 kept as they were, 0 not imported\n"})
	f("\nappid,refresh_token\n"+accountA+","+hiddenToken+"\n"+hiddenToken+","+accountA+"\n"+accountB+"\n"+accountB+",\n"+accountB+",\"hidden\x1b\"\n\"a\"b,"+hiddenToken+"\n", ran{code: 1,
		out: "1 added, 0 kept as they were, 5 not imported\n",
		errors: "wxproxy: FILE:4: not an appid: an appid is wx and 16 lower-case letters or digits\n" +
			"wxproxy: FILE:5: not the columns appid and refresh_token, separated by a comma\n" +
			"wxproxy: FILE:6: " + accountB + ": no refresh token\n" +
			"wxproxy: FILE:8: the quotes do not match\n" +
			"wxproxy: FILE:7: " + accountB + ": invalid refresh_token: too long, or characters that tokens do not have\n" +
			"wxproxy: FILE: 5 of 6 entries were not imported\n"})
	f(`{"appid":"`+accountA+`","refresh_token":"`+hiddenToken+"\"}\n\n{\"hidden\"\n"+`{"appid":1,"refresh_token":"`+hiddenToken+`"}`, ran{code: 1,
		out: "1 added, 0 kept as they were, 2 not imported\n",
		errors: "wxproxy: FILE:3: not of the form {\"appid\":\"wx…\",\"refresh_token\":\"…\"}\nwxproxy: FILE:4: not of the form {\"appid\":\"wx…\",\"refresh_token\":\"…\"}\n" +
			"wxproxy: FILE: 2 of 3 entries were not imported\n"})
	none := "0 added, 0 kept as they were, 0 not imported\n"
	f("appid,token\n"+accountA+","+hiddenToken, ran{code: 1, out: none, errors: "wxproxy: FILE: the header has no column refresh_token\n"})
	f("[{}]", ran{code: 1, out: none, errors: "wxproxy: FILE: this is a JSON array, not JSON lines (jq -c '.[]' converts it)\n"})
	f("{"+strings.Repeat("x", 70<<10), ran{code: 1, out: none, errors: "wxproxy: FILE: a line is longer than 64 KiB\n"})

	var many strings.Builder
	for i := range 1234 {
		fmt.Fprintf(&many, "wxe%015d,%s\n", i, hiddenToken)
	}
	if d := f(many.String()+"wrong,x\n", ran{code: 1, out: "1234 added, 0 kept as they were, 1 not imported\n",
		errors: "wxproxy: FILE:1235: not an appid: an appid is wx and 16 lower-case letters or digits\nwxproxy: FILE: 1 of 1235 entries were not imported\n"}); len(d.imported) != 1235 {
		t.Errorf("%d imported", len(d.imported))
	}

	d := newDesk(t, nil)
	d.stdin = accountA + "," + hiddenToken + "\nx,y\n"
	d.want("accounts import - --json", ran{code: 1, out: `{"read":2,"added":1,"kept":0,"failed":1,"faults":[{"line":2,"error":"not an appid: an appid is wx and 16 lower-case letters or digits"}]}` + "\n",
		errors: "wxproxy: standard input: 1 of 2 entries were not imported\n"})
	d.fail = fmt.Errorf("%w: the store is away", tokens.ErrUnavailable)
	d.want("accounts import -", ran{code: 1, out: "0 added, 0 kept as they were, 1 not imported\n",
		errors: "wxproxy: standard input:2: not an appid: an appid is wx and 16 lower-case letters or digits\n" +
			"wxproxy: standard input: stopped in the batch that starts at line 1 (imported entries stay, and the whole file can be imported again): no token available: the store is away (try again after 1 s)\n"})
	d.want("accounts import /nonexistent/file", ran{code: 1, errors: "wxproxy: reading \"/nonexistent/file\": no such file or directory\n"})
}

func TestKeyCommand(t *testing.T) {
	run := func(args ...string) ran { return runArgs(t.Context(), args...) }
	got := run("key", "orders-1.test")
	lines := strings.Split(strings.TrimSuffix(got.out, "\n"), "\n")
	key := lines[len(lines)-1]
	if got.code != 0 || got.errors != "" || !regexp.MustCompile(`^wxk_[A-Za-z0-9_-]{43}$`).MatchString(key) {
		t.Fatalf("%+v", got)
	}
	sum := sha256.Sum256([]byte(key))
	if block := "[[caller]]\nname = \"orders-1.test\"\nkey_sha256 = \"" + hex.EncodeToString(sum[:]) + "\"\n"; !strings.Contains(got.out, block) || strings.Count(got.out, key) != 1 {
		t.Errorf("no block\n%s in\n%s", block, got.out)
	}
	var told struct{ Name, Key, Key_SHA256 string }
	got = run("key", "--json", "orders")
	if err := json.Unmarshal([]byte(got.out), &told); err != nil || told.Name != "orders" || told.Key == key {
		t.Errorf("%v: %s", err, got.out)
	}
	if sum := sha256.Sum256([]byte(told.Key)); told.Key_SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("%s", got.out)
	}
	for _, name := range []string{"", "Orders", "a b", "a\"b", ".a", "商城", strings.Repeat("x", 65), "a\n"} {
		if got := run("key", name); got.code != 2 || got.out != "" || !strings.Contains(got.errors, "not a caller's name") {
			t.Errorf("%q: %+v", name, got)
		}
	}
	if got := run("key"); got.code != 2 || got.errors != "wxproxy: key needs NAME; see wxproxy key --help\n" {
		t.Errorf("%+v", got)
	}
}

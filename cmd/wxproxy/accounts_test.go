package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"wxproxy/internal/proctest"
	"wxproxy/tokens"
)

const accountsTableText = `APPID               NAME                      TYPE              STATE    EXPIRES         AUTHORIZED
wxd000000000000001  北京小面馆                official account  active   in 1h52m        12d ago
wxd000000000000002  Tea & Co                  mini program      revoked  -               12d ago
wxd000000000000003  evil?[31m?name, and a v…  authorizer        failing  expired 3m ago  -           the refresh token is refused (authorize again)
`

func TestAccountsList(t *testing.T) {
	a := newAdminTest(t, nil)
	a.want("accounts list", ran{out: accountsTableText})
	a.want("accounts list --q TEA", ran{out: "" +
		"APPID               NAME      TYPE          STATE    EXPIRES  AUTHORIZED\n" +
		"wxd000000000000002  Tea & Co  mini program  revoked  -        12d ago\n"})
	a.want("accounts list --q nothing", ran{out: "APPID  NAME  TYPE  STATE  EXPIRES  AUTHORIZED\n"})
	a.want("accounts list --q wxd --limit 1", ran{
		out: "" +
			"APPID               NAME        TYPE              STATE   EXPIRES   AUTHORIZED\n" +
			"wxd000000000000001  北京小面馆  official account  active  in 1h52m  12d ago\n",
		errors: "wxproxy: 1 of 3 accounts listed\n",
	})
	a.want("accounts list --limit -1", wrongUsage("accounts list", "--limit is negative"))
	a.want("accounts list x", wrongUsage("accounts list", "list takes flags only, and there is an extra argument"))
}

// Thousands of accounts are fetched page by page, each once.
func TestAccountsListPages(t *testing.T) {
	a := newAdminTest(t, nil)
	for i := range 1234 {
		appid := fmt.Sprintf("wxe%015d", i)
		a.accounts[appid] = tokens.Account{AppID: appid, State: tokens.Active}
	}
	got := a.run("accounts", "list")
	lines := strings.Split(strings.TrimSpace(got.out), "\n")
	if got.code != exitDone || len(lines) != 1+1237 || a.pages != 2 ||
		!strings.HasPrefix(lines[1237], "wxe000000000001233") {
		t.Errorf("accounts list: got exit code %d, %d lines and %d pages, want 0, 1238 and 2\n%s",
			got.code, len(lines), a.pages, got.errors)
	}
	for limit, want := range map[string]int{"0": 1237, "700": 700, "1237": 1237, "5000": 1237} {
		got = a.run("accounts", "list", "--json", "--limit", limit)
		var all struct {
			Total, Offset int
			Accounts      []accountView
		}
		err := json.Unmarshal([]byte(got.out), &all)
		if err != nil || all.Total != 1237 || len(all.Accounts) != want {
			t.Errorf("accounts list --limit %s: got %d of %d accounts, %v, want %d of 1237",
				limit, len(all.Accounts), all.Total, err, want)
		}
	}
}

func TestAccountsShow(t *testing.T) {
	a := newAdminTest(t, nil)
	got := a.run("accounts", "show", plainAccount)
	got.out = regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:]{8}Z`).ReplaceAllString(got.out, "TIME")
	got.check(t, "accounts show", ran{out: `appid          wxd000000000000001
name           北京小面馆
type           official account
state          active
token          11112222, issued 7m ago, expires in 1h52m
refresh token  33334444
authorized     TIME, 12d ago
`})
	got = a.run("accounts", "show", failingAccount)
	for _, line := range []string{
		"name           evil?[31m?name, and a very long one at that",
		"token          55556666, issued 3h ago, expired 3m ago",
		"failures       4 since the last good renewal",
		"the last one   the refresh token is refused (authorize again)",
	} {
		if !strings.Contains(got.out, line+"\n") {
			t.Errorf("accounts show %s: got no line %q in\n%s", failingAccount, line, got.out)
		}
	}
	got = a.run("accounts", "show", "--json", failingAccount)
	var view accountView
	err := json.Unmarshal([]byte(got.out), &view)
	if err != nil || view.Name != a.accounts[failingAccount].Name || strings.Count(got.out, "\n") != 1 {
		t.Errorf("accounts show --json: got %v, %s, want the unchanged name on one line", err, got.out)
	}
	a.want("accounts show "+accountA, failsWith("unknown account "+accountA+
		" (an account is known from its authorization on; POST /api/sync reads the authorizers from WeChat)"))
	a.want("accounts show wxABC", wrongUsage("accounts show", "APPID is not an appid: "+appIDForm))
	a.want("accounts show", wrongUsage("accounts show", "show needs APPID"))
	a.want("accounts show --json "+accountA+" --key k more",
		wrongUsage("accounts show", "show takes APPID, and there is an extra argument"))
}

func TestAccountsRefresh(t *testing.T) {
	a := newAdminTest(t, nil)
	got := a.run("accounts", "refresh", plainAccount)
	if got.code != exitDone || !strings.Contains(got.out, "token          9999aaaa, issued 0s ago, "+
		"expires in 2h\n") {
		t.Errorf("accounts refresh: got %+v, want the new token", got)
	}
	a.fail = tokens.ErrThrottled
	a.want("accounts refresh "+plainAccount, failsWith(tokens.ErrThrottled.Error()+
		" (find the cause of the rejections: requests with the wrong kind of token, "+
		"or another program that renews tokens)"))
	a.fail = fmt.Errorf("%w: no ticket", tokens.ErrUnavailable)
	a.want("accounts refresh "+plainAccount, failsWith("no token available: no ticket (try again after 1 s)"))
}

func TestAccountsForget(t *testing.T) {
	a := newAdminTest(t, nil)
	a.want("accounts forget "+plainAccount,
		wrongUsage("accounts forget", "there is no terminal to ask for confirmation: use --yes"))
	a.terminal = true
	const question = "Forget wxd000000000000001 (北京小面馆), active, with its refresh token? [y/N] "
	for _, a.stdin = range []string{"n\n", "\n", "", "maybe\n"} {
		canceled := failsWith("canceled: no account was forgotten")
		canceled.errors = question + canceled.errors
		a.want("accounts forget "+plainAccount, canceled)
	}
	if n := a.forgotten(); n != 0 {
		t.Fatalf("forgotten accounts after canceled commands: got %d, want 0", n)
	}
	a.stdin = "Y\n"
	a.want("accounts forget "+plainAccount, ran{out: plainAccount + " is forgotten\n", errors: question})
	a.terminal = false
	a.want("accounts forget --yes --json "+failingAccount,
		ran{out: `{"appid":"wxd000000000000003","forgotten":true}` + "\n"})
	if n := a.forgotten(); n != 2 {
		t.Errorf("forgotten accounts: got %d, want 2", n)
	}
	// An account that is not known can be forgotten, too.
	a.terminal, a.stdin = true, "y\n"
	const unknown = "wx0000000000000000"
	a.want("accounts forget "+unknown, ran{out: unknown + " is forgotten\n",
		errors: "Forget " + unknown + ", not known here, with its refresh token? [y/N] "})
	a.want("accounts list --state forgotten --limit 1 --q wx00", ran{out: "" +
		"APPID               NAME  TYPE        STATE      EXPIRES  AUTHORIZED\n" +
		unknown + "  -     authorizer  forgotten  -        -\n"})
	a.want("accounts list --state none", wrongUsage("accounts list",
		"--state is not active, failing, revoked or forgotten"))
	a.fail = fmt.Errorf("%w: no ticket", tokens.ErrUnavailable)
	a.want("accounts forget "+unknown, failsWith("no token available: no ticket (try again after 1 s)"))
}

// An interrupt while the question is open means no.
func TestInterruptedForget(t *testing.T) {
	a := newAdminTest(t, nil)
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
		args := []string{"accounts", "forget", plainAccount, "--admin", a.url}
		done <- execute(ctx, args, &env{stdout: &out, stderr: &errs, stdin: read, terminal: true, getenv: noEnv})
	}()
	proctest.Eventually(t, func() bool { return strings.Contains(errs.String(), "[y/N]") })
	cancel()
	if code, n := <-done, a.forgotten(); code != exitFailed || n != 0 {
		t.Errorf("interrupted accounts forget: got exit code %d and %d forgotten accounts, "+
			"want 1 and 0", code, n)
	}
}

func TestAccountsSync(t *testing.T) {
	a := newAdminTest(t, nil)
	a.want("accounts sync", ran{out: `on WeChat's list  10000
added             12      not known here before
recovered         1       the stored refresh token was outdated
withdrawn         0       known here, and no longer on the list
unchanged         9987
held              600     unknown to WeChat, but too many to mark as withdrawn without --confirm
took              2.346s
`})
	a.want("accounts sync --confirm", ran{out: `on WeChat's list  10000
added             12      not known here before
recovered         1       the stored refresh token was outdated
withdrawn         603     known here, and no longer on the list
unchanged         9987
took              2.346s
`})
	a.want("accounts sync --restore --json", ran{
		out: `{"listed":10000,"added":12,"recovered":21,"revoked":0,"unchanged":9987,"held":600,"took":2.346}` + "\n",
	})
	a.want("accounts sync --json", ran{
		out: `{"listed":10000,"added":12,"recovered":1,"revoked":0,"unchanged":9987,"held":600,"took":2.346}` + "\n",
	})
}

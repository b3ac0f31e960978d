package conformance_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"text/tabwriter"

	"wxproxy/sandbox"
)

// enabled: the SDKs are installed. `make conformance` sees to it.
var enabled = os.Getenv("WXPROXY_CONFORMANCE") == "1"

// exchanges: wxproxy answers api_query_auth. Without it the accounts of the third-party mode are had by refresh token.
const exchanges = true

// sdk is one folder.
type sdk struct {
	name     string
	node     bool // main.js; otherwise a Go module
	code     bool // it has mini program codes
	platform bool // it has a third-party mode
	mini     bool // it has a client for mini programs of its own, with a token of its own
	only     bool // it has that client only
	forgets  bool // of api_query_auth's answer it keeps the refresh token only, and asks for an access token
}

var sdks = []sdk{
	{name: "co-wechat-api", node: true, code: true, mini: true},
	{name: "wechat-api", node: true},
	{name: "node-easywechat", node: true, code: true, mini: true, platform: true},
	{name: "silenceper", code: true, mini: true, platform: true, forgets: true},
	{name: "chanxuehong"},
	{name: "fastwego", code: true, mini: true, platform: true},
	{name: "weapp", code: true, mini: true, only: true},
}

// mode is a way to point an SDK at wxproxy.
type mode struct {
	name string
	own  bool   // the accounts are own ones, whose secrets wxproxy has
	env  string // what the program is told: MODE
}

var modes = []mode{
	{name: "plain", env: "plain"},
	{name: "own", env: "plain", own: true},
	{name: "prefix", env: "prefix"},
	{name: "platform", env: "platform"},
	{name: "refused", env: "refused"},
}

// Every SDK in every mode: what its users do, through an expiry, a renewal by somebody else and an outage, of which it
// sees nothing but the outage.
func TestSDKs(t *testing.T) {
	if !enabled {
		t.Skip("make conformance installs the SDKs and runs this")
	}
	var table bytes.Buffer
	tw := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprint(tw, "SDK")
	for _, m := range modes {
		fmt.Fprint(tw, "\t", m.name)
	}
	fmt.Fprintln(tw)
	for _, s := range sdks {
		fmt.Fprint(tw, s.name)
		command := s.command(t)
		for _, m := range modes {
			if m.env == "platform" && !s.platform {
				fmt.Fprint(tw, "\t-")
				continue
			}
			word := "FAILED"
			if t.Run(s.name+"/"+m.name, func(t *testing.T) { s.run(t, m, command) }) {
				word = "ok"
			}
			fmt.Fprint(tw, "\t", word)
		}
		fmt.Fprintln(tw)
	}
	tw.Flush()
	fmt.Printf("\n%s\n", &table)
}

// command gives what runs the SDK's program.
func (s sdk) command(t *testing.T) []string {
	t.Helper()
	dir, err := filepath.Abs(s.name)
	if err != nil {
		t.Fatal(err)
	}
	if s.node {
		node, err := exec.LookPath("node")
		if err != nil {
			t.Fatal(err)
		}
		return []string{node, filepath.Join(dir, "main.js")}
	}
	program := filepath.Join(t.TempDir(), s.name)
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return []string{program}
}

func (s sdk) run(t *testing.T, m mode, command []string) {
	w := newWorld(t, m.own)
	r := newRelay(t, w.proxy)
	dir := t.TempDir()
	picture := make([]byte, 300_000)
	rand.Read(picture)
	file := filepath.Join(dir, "picture.jpg")
	if err := os.WriteFile(file, picture, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = dir // some keep files there
	var out output
	cmd.Stdout, cmd.Stderr = &out, &out
	// Nothing of this process's environment: no proxies, no settings.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir,
		"MODE=" + m.env, "BASE_URL=http://" + r.addr, "CONTROL_URL=" + w.wxURL, "FILE=" + file,
		"APPID=" + appid, "MINI_APPID=" + miniAppid, "COMPONENT_APPID=" + sandbox.DefaultComponentAppID, "SECRET=" + callerKey}
	if exchanges {
		cmd.Env = append(cmd.Env, "EXCHANGE=1")
	}
	if err := cmd.Run(); err != nil || !strings.HasSuffix(strings.TrimSpace(out.String()), "\ndone") {
		t.Errorf("the program ended with %v (%v):\n%s", err, ctx.Err(), &out)
		return
	}
	asked, answered := r.asked(), r.answered()
	w.clean(map[string]string{"what the SDK got": answered, "what the SDK sent": asked, "what the SDK printed": out.String()})
	if m.env == "refused" {
		// One question for each secret, and no call.
		if n, calls := r.count("/cgi-bin/token")+r.count("/cgi-bin/stable_token"), len(w.wx.History()); n != 2 || calls != 0 {
			t.Errorf("%d requests of a token, %d calls to WeChat:\n%s", n, calls, asked)
		}
		return
	}
	// It never saw that a token was refused, and so never asked for another one than the first.
	if bad := regexp.MustCompile(`"errcode":\s*(40001|40014|42001)`).FindString(answered); bad != "" {
		t.Errorf("the SDK got %s", bad)
	}
	want := map[string]int{"/cgi-bin/token": 1, "/cgi-bin/component/api_component_token": 0, "/cgi-bin/component/api_query_auth": 0, "/cgi-bin/component/api_authorizer_token": 0}
	if s.mini && !s.only {
		want["/cgi-bin/token"]++
	}
	if m.env == "platform" {
		want = map[string]int{"/cgi-bin/token": 0, "/cgi-bin/component/api_component_token": 1, "/cgi-bin/component/api_query_auth": 0, "/cgi-bin/component/api_authorizer_token": 2}
		if exchanges {
			want["/cgi-bin/component/api_query_auth"], want["/cgi-bin/component/api_authorizer_token"] = 1, 1
			if s.forgets {
				want["/cgi-bin/component/api_authorizer_token"]++
			}
		}
	}
	for path, n := range want {
		got := r.count(path)
		if path == "/cgi-bin/token" {
			got += r.count("/cgi-bin/stable_token")
		}
		if got != n {
			t.Errorf("the SDK asked %s %d times, want %d", path, got, n)
		}
	}
	s.renewals(t, w, m)
}

// renewals: one for each time that a token was spoilt, and none more.
func (s sdk) renewals(t *testing.T, w *world, m mode) {
	t.Helper()
	renewed := map[string]int{}
	for _, c := range w.wx.History() {
		switch c.Path {
		case "/cgi-bin/component/api_authorizer_token", "/cgi-bin/stable_token":
			for _, id := range []string{appid, miniAppid} {
				if bytes.Contains(c.Body, []byte(id)) {
					renewed[id]++
				}
			}
		case "/cgi-bin/component/api_component_token":
			renewed["component"]++
		case "/cgi-bin/token":
			t.Errorf("wxproxy asked WeChat for a token that kills others")
		}
	}
	want := map[string]int{appid: 2, miniAppid: 0, "component": 0} // expired, and superseded
	if s.code {
		want[miniAppid] = 1
	}
	if m.own { // nobody had asked for one before
		want[appid]++
		if s.code {
			want[miniAppid]++
		}
	}
	if s.only {
		want[appid] = 0
	}
	if m.env == "platform" {
		want["component"] = 1
	}
	for id, n := range want {
		if renewed[id] != n {
			t.Errorf("%s: %d renewals, want %d", id, renewed[id], n)
		}
	}
}

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

	"wxproxy/internal/proctest"
	"wxproxy/sandbox"
)

// enabled says that the SDKs are installed, which `make conformance` does.
var enabled = os.Getenv("WXPROXY_CONFORMANCE") == "1"

// sdk is an SDK and the folder with its program.
type sdk struct {
	name     string
	node     bool // main.js; otherwise a Go module
	code     bool // it can create mini program codes
	platform bool // it has a mode for third-party platforms
	mini     bool // it has a client for mini programs, with a token of its own
	only     bool // it has no other client

	// refetches says that it keeps only the refresh token of api_query_auth,
	// and requests an access token again.
	refetches bool
}

var sdks = []sdk{
	{name: "co-wechat-api", node: true, code: true, mini: true},
	{name: "wechat-api", node: true},
	{name: "node-easywechat", node: true, code: true, mini: true, platform: true},
	{name: "silenceper", code: true, mini: true, platform: true, refetches: true},
	{name: "chanxuehong"},
	{name: "fastwego", code: true, mini: true, platform: true},
	{name: "weapp", code: true, mini: true, only: true},
}

// mode is a way to configure an SDK for wxproxy.
type mode struct {
	name string
	own  bool   // wxproxy has the app secrets of the accounts
	env  string // the environment variable MODE of the program
}

var modes = []mode{
	{name: "plain", env: "plain"},
	{name: "own", env: "plain", own: true},
	{name: "prefix", env: "prefix"},
	{name: "platform", env: "platform"},
	{name: "refused", env: "refused"},
}

// TestSDKs runs every SDK in every mode through an expired token, a token
// renewed by another program, and an outage. The SDK must notice nothing but
// the outage.
func TestSDKs(t *testing.T) {
	if !enabled {
		t.Skip("run make conformance, which installs the SDKs")
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

// command returns the command line of the SDK's program.
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
		t.Fatalf("building %s: %v: %s", s.name, err, out)
	}
	return []string{program}
}

// run runs the program in one mode and checks what it sent and received.
func (s sdk) run(t *testing.T, m mode, command []string) {
	w := newEnv(t, m.own)
	r := newRelay(t, w.proxy)
	dir := t.TempDir()
	picture := make([]byte, 300_000)
	rand.Read(picture)
	file := filepath.Join(dir, "picture.jpg")
	if err := os.WriteFile(file, picture, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), programTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = dir // some write files there
	var out proctest.Output
	cmd.Stdout, cmd.Stderr = &out, &out
	// A clean environment: no HTTP proxies, no settings of SDKs.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir,
		"MODE=" + m.env, "BASE_URL=http://" + r.addr, "CONTROL_URL=" + w.wxURL, "FILE=" + file,
		"APPID=" + appid, "MINI_APPID=" + miniAppid,
		"COMPONENT_APPID=" + sandbox.DefaultComponentAppID, "SECRET=" + callerKey, "EXCHANGE=1"}
	if err := cmd.Run(); err != nil || !strings.HasSuffix(strings.TrimSpace(out.String()), "\ndone") {
		t.Errorf("program: got exit %v (%v), want 0 after \"done\":\n%s", err, ctx.Err(), &out)
		return
	}
	requests, responses := r.requests(), r.responses()
	w.checkSecrets(map[string]string{"responses to the SDK": responses,
		"requests of the SDK": requests, "output of the SDK": out.String()})
	if m.env == "refused" {
		// One token request for each wrong credential. WeChat is asked once
		// whether the unknown account authorizes the component.
		n := r.count("/cgi-bin/token") + r.count("/cgi-bin/stable_token")
		all, asked := len(w.wx.History()), w.wx.Count("/cgi-bin/component/api_get_authorizer_info")
		if n != 2 || all != 1 || asked != 1 {
			t.Errorf("got %d token requests and %d requests to WeChat, %d of them questions about "+
				"the account, want 2, 1 and 1:\n%s", n, all, asked, requests)
		}
		return
	}
	// It never saw a rejected token, so it never requested another one.
	if bad := regexp.MustCompile(`"errcode":\s*(40001|40014|42001)`).FindString(responses); bad != "" {
		t.Errorf("response to the SDK: got %s, want no rejected token", bad)
	}
	want := map[string]int{
		"/cgi-bin/token":                          1,
		"/cgi-bin/component/api_component_token":  0,
		"/cgi-bin/component/api_query_auth":       0,
		"/cgi-bin/component/api_authorizer_token": 0,
	}
	if s.mini && !s.only {
		want["/cgi-bin/token"]++
	}
	if m.env == "platform" {
		want = map[string]int{
			"/cgi-bin/token":                          0,
			"/cgi-bin/component/api_component_token":  1,
			"/cgi-bin/component/api_query_auth":       1,
			"/cgi-bin/component/api_authorizer_token": 1,
		}
		if s.refetches {
			want["/cgi-bin/component/api_authorizer_token"]++
		}
	}
	for path, n := range want {
		got := r.count(path)
		if path == "/cgi-bin/token" {
			got += r.count("/cgi-bin/stable_token")
		}
		if got != n {
			t.Errorf("requests of %s: got %d, want %d", path, got, n)
		}
	}
	s.checkRenewals(t, w, m)
}

// checkRenewals checks that wxproxy renewed a token once for each time that it
// became invalid.
func (s sdk) checkRenewals(t *testing.T, w *env, m mode) {
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
			t.Errorf("wxproxy requested /cgi-bin/token, which invalidates other tokens")
		}
	}
	want := map[string]int{appid: 2, miniAppid: 0, "component": 0} // expired, and superseded
	if s.code {
		want[miniAppid] = 1
	}
	if m.own { // the first token of an own account is fetched on demand
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
			t.Errorf("renewals of %s: got %d, want %d", id, renewed[id], n)
		}
	}
}

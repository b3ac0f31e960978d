package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"wxproxy/internal/proctest"
	"wxproxy/sandbox"
)

// The command lines that the demo prints work when they are pasted.
func TestDemo(t *testing.T) {
	var out proctest.Output
	addrs := map[string]string{}
	args := []string{"demo"}
	for _, name := range []string{"proxy", "callback", "admin", "sandbox"} {
		addrs[name] = proctest.FreeAddr(t)
		args = append(args, "--"+name, addrs[name])
	}
	cmd := proctest.Command(t, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	proctest.Eventually(t, func() bool { return strings.Contains(out.String(), "Press Ctrl-C to stop") })

	var answers []string
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, "#") && strings.ContainsAny(line, "'\"`()$&|;<>") {
			t.Errorf("comment to paste: got %q, want none of the characters that zsh would interpret", line)
		}
		if !strings.HasPrefix(line, "curl ") && !strings.HasPrefix(line, "echo ") {
			continue
		}
		b, err := exec.Command("bash", "-o", "pipefail", "-c", line).Output()
		if err != nil {
			t.Fatalf("%s: %v (.ci/tools.sh installs curl)", line, err)
		}
		answers = append(answers, string(b))
	}
	for i, want := range [][]string{
		{"200 OK", "X-Wxproxy-Token: hit", `"openid":"oSandboxUser0000000000000001"`},
		{"200 OK", "X-Wxproxy-Token: hit", `"template_list":`},
		{"200 OK", "X-Wxproxy-Token: hit", `"media_id":"`},
		{"true"},
		{"200 OK", "X-Wxproxy-Token: retried", `"openid":"oSandboxUser0000000000000001"`},
		{`wxproxy_retries_total{credential="authorizer",errcode="42001",result="ok"} 1`},
	} {
		if i >= len(answers) {
			t.Fatalf("lines to paste: got %d in\n%s", len(answers), out.String())
		}
		for _, w := range want {
			if !strings.Contains(answers[i], w) {
				t.Errorf("output of line %d: got no %q in\n%s", i+1, w, answers[i])
			}
		}
	}
	if s := out.String(); !strings.Contains(s, "token retried") || !strings.Contains(s, "errcode 42001") ||
		strings.Contains(s, "\x1b[") {
		t.Errorf("output of the demo: got no retry, no errcode 42001, or colors in a file:\n%s", s)
	}
	resp, err := http.Get("http://" + addrs["callback"] + "/authorize")
	if err != nil {
		t.Fatal(err)
	}
	page, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	for _, way := range []string{"/cgi-bin/componentloginpage?", "/wxaopen/safe/bindcomponent?"} {
		if !bytes.Contains(page, []byte(`href="http://`+addrs["sandbox"]+way)) ||
			!strings.Contains(out.String(), "  http://"+addrs["callback"]+"/authorize ") {
			t.Errorf("page /authorize: got no link to %s of the sandbox", way)
		}
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, first, _ := strings.Cut(out.String(), "\ncurl -i ")
	first, _, _ = strings.Cut(strings.Replace(first, addrs["proxy"], "127.0.0.1:8080", 1), "\n")
	if !bytes.Contains(readme, []byte("curl -i "+first)) {
		t.Errorf("README.md: got no line %q, which is the first request of the demo", "curl -i "+first)
	}
	cmd.Process.Signal(syscall.SIGINT)
	if err := cmd.Wait(); err != nil {
		t.Errorf("exit after SIGINT: got %v, want success", err)
	}
}

// SIGTERM ends the demo and the sandbox with exit code 0, also while a request
// is in flight that takes longer than the program waits.
func TestDemoAndSandboxStopWithSlowRequest(t *testing.T) {
	const fault = `{"path":"/cgi-bin/user/info","delay":"10m"}`
	for _, command := range []string{"demo", "sandbox"} {
		var out proctest.Output
		wx := proctest.FreeAddr(t)
		args, target, ready := []string{command, "--listen", wx}, wx+userInfo, "[proxy]"
		if command == "demo" {
			proxy := proctest.FreeAddr(t)
			target, ready = proxy+"/"+demoOfficialAccount+userInfo, "Press Ctrl-C to stop"
			args = []string{command, "--sandbox", wx, "--proxy", proxy,
				"--callback", proctest.FreeAddr(t), "--admin", proctest.FreeAddr(t)}
		}
		cmd := proctest.Linked(t, linkedStop, args...)
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer cmd.Process.Kill()
		proctest.Eventually(t, func() bool { return strings.Contains(out.String(), ready) })
		url := "http://" + wx + "/sandbox/faults"
		resp, err := http.Post(url, "application/json", strings.NewReader(fault))
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("POST /sandbox/faults: got %v, %v, want 200", resp, err)
		}
		status := make(chan int, 1)
		go func() {
			resp, err := http.Get("http://" + target)
			if err != nil {
				status <- 0
				return
			}
			resp.Body.Close()
			status <- resp.StatusCode
		}()
		proctest.Eventually(t, func() bool {
			resp, err := http.Get("http://" + wx + "/sandbox/history")
			if err != nil {
				return false
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			return strings.Contains(string(b), "/cgi-bin/user/info")
		})
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: exit after SIGTERM: got %v, want success\n%s", command, err, out.String())
		}
		if got := <-status; got == 200 {
			t.Errorf("%s: got %d, want no response of WeChat: it takes ten minutes", command, got)
		}
	}
}

// The sandbox command prints a configuration for wxproxy, and pushes to --push.
func TestSandboxCommand(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{}) // its own sandbox is not used
	addr := proctest.FreeAddr(t)
	var out proctest.Output
	cmd := proctest.Command(t, "sandbox", "--listen", addr, "--push", "http://"+w.callback)
	w.wxURL = "http://" + addr
	w.start()
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	proctest.Eventually(t, func() bool { status, _ := w.get(w.admin, "/readyz"); return status == 200 })
	if !strings.Contains(out.String(), fmt.Sprintf("appid = %q", sandbox.DefaultComponentAppID)) ||
		!strings.Contains(out.String(), "http://"+addr+"/sandbox/") {
		t.Errorf("output of sandbox: got no appid and address in\n%s", out.String())
	}
	resp, err := http.Post("http://"+addr+"/sandbox/authorize?appid="+accountA, "", nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("POST /sandbox/authorize: got %v, %v, want 200", resp, err)
	}
	proctest.Eventually(t, func() bool {
		status, _, _ := w.try("GET", "/"+accountA+userInfo, "")
		return status == 200
	})
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("exit after SIGTERM: got %v, want success", err)
	}
}

// The certificate of WeChat is verified with upstream_ca_file.
func TestUpstreamTLS(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{})
	cert, pem, err := sandbox.NewCertificate("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(w.wx)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	srv.StartTLS()
	defer srv.Close()
	w.wxURL = srv.URL
	w.extra = fmt.Sprintf("upstream_ca_file = %q", w.file("ca.pem", string(pem)))
	w.start().authorized(accountA)
	w.call("/"+accountA+userInfo, "hit")
	w.wx.Expire(accountA)
	w.call("/"+accountA+userInfo, "retried")
	w.end(syscall.SIGTERM)

	w.extra = "" // the certificate is not trusted any more
	w.start()
	status, answer, _ := w.try("GET", "/"+accountA+userInfo, "")
	if status != 502 || !strings.Contains(answer, "certificate") {
		t.Errorf("request with an untrusted upstream: got %d %s, want 502", status, answer)
	}
	if v := w.wx.Violations(); len(v) > 0 {
		t.Errorf("violations of WeChat's protocol: got %q, want none", v)
	}
}

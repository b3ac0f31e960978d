package console_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"wxproxy/console"
	"wxproxy/tokens"
)

// secret must not appear in any response or log.
const secret = "refreshtoken@@@hidden"

func entry(appid string) string { return `{"appid":"` + appid + `","refresh_token":"` + secret + `"}` }

func TestImport(t *testing.T) {
	const invalidToken = "invalid refresh_token: too long, or characters that tokens do not have"
	var logged logBuffer
	f := func(body string, status int, want string) {
		t.Helper()
		o := newBackend()
		o.imported[accountB] = "known already"
		o.fails[component] = errors.New("this is the component")
		c := o.config()
		c.Log = logged.logger()
		got := ask(t, start(t, c), "POST", "/api/accounts/import", body)
		if strings.Contains(got.body+logged.String(), "hidden") {
			t.Errorf("got a token in the response or log: %s", got.body)
		}
		if got.status != status || got.body != want+"\n" {
			t.Errorf("%.200q\ngot  %d %s\nwant %d %s", body, got.status, got.body, status, want)
		}
		if o.imported[accountB] != "known already" {
			t.Errorf("%s: got %q, want its token kept", accountB, o.imported[accountB])
		}
		if strings.Contains(want, `"added":1`) && o.imported[accountA] != secret {
			t.Errorf("%s: got %q imported, want %q", accountA, o.imported[accountA], secret)
		}
	}
	f("", 200, `{"read":0,"added":0,"kept":0,"failed":0,"faults":[]}`)
	f(entry(accountA), 200, `{"read":1,"added":1,"kept":0,"failed":0,"faults":[]}`)
	f("\r\n"+entry(accountA)+"\r\n\n  "+entry(accountB)+"\n"+entry(accountA), 200,
		`{"read":3,"added":1,"kept":2,"failed":0,"faults":[]}`)
	f(" \t["+entry(accountA)+",\n"+entry(accountB)+"]\n", 200, `{"read":2,"added":1,"kept":1,"failed":0,"faults":[]}`)
	f("[]", 200, `{"read":0,"added":0,"kept":0,"failed":0,"faults":[]}`)
	f(`{"appid":"`+accountA+`","refresh_token":"`+secret+`","note":"more than needed"}`, 200,
		`{"read":1,"added":1,"kept":0,"failed":0,"faults":[]}`)
	f(strings.Join([]string{"", "hidden", entry("wxHIDDEN"), entry(component),
		`{"appid":"` + accountA + `"}`,
		`{"appid":"` + accountA + `","refresh_token":1234}`,
		`{"appid":"` + accountA + `","refresh_token":"hidden token"}`,
		`{"appid":"` + accountA + `","refresh_token":"` + strings.Repeat("x", 2000) + `"}`,
		entry(accountA)}, "\n"), 200,
		`{"read":8,"added":1,"kept":0,"failed":7,"faults":[`+
			`{"line":2,"error":"not a JSON object such as {\"appid\":\"wx…\",\"refresh_token\":\"…\"}"},`+
			`{"line":3,"error":"invalid appid: want wx and 16 lower-case letters or digits"},`+
			`{"line":4,"appid":"`+component+`","error":"this is the component"},`+
			`{"line":5,"appid":"`+accountA+`","error":"no refresh_token"},`+
			`{"line":6,"error":"not a JSON object such as {\"appid\":\"wx…\",\"refresh_token\":\"…\"}"},`+
			`{"line":7,"appid":"`+accountA+`","error":"`+invalidToken+`"},`+
			`{"line":8,"appid":"`+accountA+`","error":"`+invalidToken+`"}]}`)
	f("["+entry(accountA)+`,"hidden`, 400,
		`{"read":1,"added":1,"kept":0,"failed":0,"faults":[],`+
			`"error":"invalid JSON array after this entry","hint":"send entries such as {\"appid\":\"wx…\",\"refresh_token\":\"…\"}"}`)
	f("["+entry(accountA)+`]hidden`, 400,
		`{"read":1,"added":1,"kept":0,"failed":0,"faults":[],`+
			`"error":"invalid JSON array after this entry","hint":"send entries such as {\"appid\":\"wx…\",\"refresh_token\":\"…\"}"}`)
	f(entry(accountA)+"\n"+strings.Repeat("x", 70<<10), 400,
		`{"read":1,"added":1,"kept":0,"failed":0,"faults":[],`+
			`"error":"line longer than 64 KiB","hint":"send JSON lines, or a JSON array"}`)
}

// An unavailable store ends the import, because the rest would fail as well.
func TestImportStopsWithoutStore(t *testing.T) {
	o := newBackend()
	o.fails[accountB] = fmt.Errorf("%w: the store does not answer", tokens.ErrUnavailable)
	got := ask(t, start(t, o.config()), "POST", "/api/accounts/import",
		entry(accountA)+"\n"+entry(accountB)+"\n"+entry(component))
	if m := got.fields(t); got.status != 503 || got.header.Get("Retry-After") != "1" || m["added"] != 1.0 ||
		m["read"] != 1.0 || !strings.Contains(m["error"].(string), "does not answer") {
		t.Errorf("got %d %s, want 503 after one entry", got.status, got.body)
	}
	if _, there := o.imported[component]; there {
		t.Errorf("got %s imported after the store failed", component)
	}
}

func TestImportIsBounded(t *testing.T) {
	o := newBackend()
	address := start(t, o.config())
	many := strings.Repeat(entry("no appid")+"\n", 3000)
	got := ask(t, address, "POST", "/api/accounts/import", many)
	m := got.fields(t)
	if got.status != 200 || len(m["faults"].([]any)) != 1000 || m["failed"] != 3000.0 {
		t.Errorf("3000 faults: got %d %.200s, want 1000 of them reported", got.status, got.body)
	}
	line := entry(accountA) + strings.Repeat(" ", 50<<10) + "\n"
	body := strings.NewReader(strings.Repeat(line, 17<<20/len(line)+1))
	resp, err := http.Post("http://"+address+"/api/accounts/import", "", io.NopCloser(body))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestEntityTooLarge || o.imported[accountA] != secret {
		t.Errorf("17 MiB: got %d, want 413 after the first entry", resp.StatusCode)
	}
}

// Importing waits for a write per line, and for a slow client: the second entry
// is sent after the first was imported.
func TestImportExtendsDeadlines(t *testing.T) {
	o := newBackend()
	address, conns := serveWithDeadlines(t, console.NewServer(console.New(o.config()), nil))
	body, client := io.Pipe()
	first := true
	o.imports = func() {
		if !first {
			return
		}
		first = false
		if r, w := conns.remaining(); r < 20*time.Minute || w < 20*time.Minute {
			t.Errorf("deadlines: got %v for reading and %v for writing, want at least 20m", r, w)
		}
		go func() {
			io.WriteString(client, entry(accountB)+"\n")
			client.Close()
		}()
	}
	go io.WriteString(client, entry(accountA)+"\n")
	resp, err := http.Post("http://"+address+"/api/accounts/import", "", body)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 || !strings.Contains(string(b), `"added":2`) {
		t.Errorf("got %d %s, want 200 with 2 added", resp.StatusCode, b)
	}
}

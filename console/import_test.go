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

// secret is what must never come back, in any answer or log.
const secret = "refreshtoken@@@hidden"

func entry(appid string) string { return `{"appid":"` + appid + `","refresh_token":"` + secret + `"}` }

func TestImport(t *testing.T) {
	var said log
	f := func(body string, status int, want string) {
		t.Helper()
		o := newOffice()
		o.imported[accountB] = "known already"
		o.fails[component] = errors.New("this is the component")
		c := o.config()
		c.Log = said.logger()
		got := ask(t, start(t, c), "POST", "/api/accounts/import", body)
		if strings.Contains(got.body+said.String(), "hidden") {
			t.Errorf("the token is told: %s", got.body)
		}
		if got.status != status || got.body != want+"\n" {
			t.Errorf("%.200q\ngot  %d %s\nwant %d %s", body, got.status, got.body, status, want)
		}
		if o.imported[accountB] != "known already" {
			t.Error("what was there was replaced")
		}
		if strings.Contains(want, `"added":1`) && o.imported[accountA] != secret {
			t.Errorf("imported as %q", o.imported[accountA])
		}
	}
	f("", 200, `{"read":0,"added":0,"kept":0,"failed":0,"faults":[]}`)
	f(entry(accountA), 200, `{"read":1,"added":1,"kept":0,"failed":0,"faults":[]}`)
	f("\r\n"+entry(accountA)+"\r\n\n  "+entry(accountB)+"\n"+entry(accountA), 200, `{"read":3,"added":1,"kept":2,"failed":0,"faults":[]}`)
	f(" \t["+entry(accountA)+",\n"+entry(accountB)+"]\n", 200, `{"read":2,"added":1,"kept":1,"failed":0,"faults":[]}`)
	f("[]", 200, `{"read":0,"added":0,"kept":0,"failed":0,"faults":[]}`)
	f(`{"appid":"`+accountA+`","refresh_token":"`+secret+`","note":"more than asked for"}`, 200, `{"read":1,"added":1,"kept":0,"failed":0,"faults":[]}`)
	f("\nhidden\n"+entry("wxHIDDEN")+"\n"+entry(component)+"\n"+`{"appid":"`+accountA+`"}`+"\n"+`{"appid":"`+accountA+`","refresh_token":1234}`+"\n"+
		`{"appid":"`+accountA+`","refresh_token":"hidden token"}`+"\n"+`{"appid":"`+accountA+`","refresh_token":"`+strings.Repeat("x", 2000)+`"}`+"\n"+entry(accountA), 200,
		`{"read":8,"added":1,"kept":0,"failed":7,"faults":[`+
			`{"line":2,"error":"this is no {\"appid\":\"wx…\",\"refresh_token\":\"…\"}"},`+
			`{"line":3,"error":"its appid is not wx and 16 lower-case letters or digits"},`+
			`{"line":4,"appid":"`+component+`","error":"this is the component"},`+
			`{"line":5,"appid":"`+accountA+`","error":"it has no refresh_token"},`+
			`{"line":6,"error":"this is no {\"appid\":\"wx…\",\"refresh_token\":\"…\"}"},`+
			`{"line":7,"appid":"`+accountA+`","error":"its refresh_token is none: it is too long, or has other characters than tokens have"},`+
			`{"line":8,"appid":"`+accountA+`","error":"its refresh_token is none: it is too long, or has other characters than tokens have"}]}`)
	f("["+entry(accountA)+`,"hidden`, 400, `{"read":1,"added":1,"kept":0,"failed":0,"faults":[],"error":"the array cannot be read beyond this entry","hint":"each entry looks like {\"appid\":\"wx…\",\"refresh_token\":\"…\"}"}`)
	f("["+entry(accountA)+`]hidden`, 400, `{"read":1,"added":1,"kept":0,"failed":0,"faults":[],"error":"the array cannot be read beyond this entry","hint":"each entry looks like {\"appid\":\"wx…\",\"refresh_token\":\"…\"}"}`)
	f(entry(accountA)+"\n"+strings.Repeat("x", 70<<10), 400, `{"read":1,"added":1,"kept":0,"failed":0,"faults":[],"error":"a line is over 64 KiB","hint":"send JSON lines, or a JSON array"}`)
}

// A store that is gone ends the import: the rest would fail alike.
func TestImportStops(t *testing.T) {
	o := newOffice()
	o.fails[accountB] = fmt.Errorf("%w: the store does not answer", tokens.ErrUnavailable)
	got := ask(t, start(t, o.config()), "POST", "/api/accounts/import", entry(accountA)+"\n"+entry(accountB)+"\n"+entry(component))
	if m := got.fields(t); got.status != 503 || got.header.Get("Retry-After") != "1" || m["added"] != 1.0 || m["read"] != 1.0 || !strings.Contains(m["error"].(string), "does not answer") {
		t.Errorf("%d %s", got.status, got.body)
	}
	if _, there := o.imported[component]; there {
		t.Error("it went on")
	}
}

func TestImportIsBounded(t *testing.T) {
	o := newOffice()
	address := start(t, o.config())
	many := strings.Repeat(entry("no appid")+"\n", 3000)
	if got := ask(t, address, "POST", "/api/accounts/import", many); got.status != 200 || len(got.fields(t)["faults"].([]any)) != 1000 || got.fields(t)["failed"] != 3000.0 {
		t.Errorf("%d %.200s", got.status, got.body)
	}
	line := entry(accountA) + strings.Repeat(" ", 50<<10) + "\n"
	body := strings.NewReader(strings.Repeat(line, 17<<20/len(line)+1))
	resp, err := http.Post("http://"+address+"/api/accounts/import", "", io.NopCloser(body))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestEntityTooLarge || o.imported[accountA] != secret {
		t.Errorf("17 MiB: %d", resp.StatusCode)
	}
}

// A slow sender has longer than other requests have.
func TestImportFromASlowSender(t *testing.T) {
	o := newOffice()
	server := console.NewServer(console.New(o.config()), nil)
	server.ReadTimeout, server.WriteTimeout = 700*time.Millisecond, 700*time.Millisecond
	address := serve(t, server)
	r, w := io.Pipe()
	go func() {
		for _, appid := range []string{accountA, accountB} {
			io.WriteString(w, entry(appid)+"\n")
			time.Sleep(800 * time.Millisecond)
		}
		w.Close()
	}()
	resp, err := http.Post("http://"+address+"/api/accounts/import", "", r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 || !strings.Contains(string(b), `"added":2`) {
		t.Errorf("%d %s", resp.StatusCode, b)
	}
}

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"wxproxy/tokens"
)

// importSummary is what an import prints.
func importSummary(added, kept, failed int) string {
	return fmt.Sprintf("%d added, %d kept as they were, %d not imported\n", added, kept, failed)
}

// importFile imports a file with this text. accountB has a refresh token
// already. In the errors FILE stands for the path of the file.
func importFile(t *testing.T, text string) (*adminTest, ran) {
	t.Helper()
	a := newAdminTest(t, nil)
	a.imported[accountB] = "an older refresh token"
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got := a.run("accounts", "import", path)
	got.errors = strings.ReplaceAll(got.errors, path, "FILE")
	return a, got
}

func TestImport(t *testing.T) {
	const line = accountA + "," + hiddenToken + "\n"
	for name, text := range map[string]string{
		"CSV":                 line,
		"CSV without newline": strings.TrimSpace(line),
		"spreadsheet":         "\ufeffappid,refresh_token\r\n" + accountA + "," + hiddenToken + "\r\n",
		"more columns":        "note,Refresh_Token,AppID\n\"a, b\"," + hiddenToken + ", " + accountA + "\n",
		"JSON lines": "\n\n" + `{"appid":"` + accountA + `","refresh_token":"` + hiddenToken +
			`","more":1}` + "\n",
	} {
		a, got := importFile(t, text)
		got.check(t, "accounts import, "+name, ran{out: importSummary(1, 0, 0)})
		if a.imported[accountA] != hiddenToken {
			t.Errorf("accounts import, %s: got the refresh token %q, want %q", name, a.imported[accountA], hiddenToken)
		}
	}
	_, got := importFile(t, "")
	got.check(t, "accounts import of an empty file", ran{out: importSummary(0, 0, 0)})
	a, got := importFile(t, line+accountB+","+hiddenToken+"\n")
	got.check(t, "accounts import of a known account", ran{out: importSummary(1, 1, 0)})
	if a.imported[accountB] == hiddenToken {
		t.Error("accounts import: got another refresh token for a known account, want the old one")
	}
}

func TestImportFaults(t *testing.T) {
	const line = accountA + "," + hiddenToken + "\n"
	_, got := importFile(t, "\nappid,refresh_token\n"+line+
		hiddenToken+","+accountA+"\n"+
		accountB+"\n"+
		accountB+",\n"+
		accountB+",\"hidden\x1b\"\n"+
		"\"a\"b,"+hiddenToken+"\n")
	want := failsWith(
		"FILE:4: not an appid: "+appIDForm,
		"FILE:5: not the columns appid and refresh_token, separated by a comma",
		"FILE:6: "+accountB+": no refresh token",
		"FILE:8: the quotes do not match",
		"FILE:7: "+accountB+": invalid refresh_token: too long, or characters that tokens do not have",
		"FILE: 5 of 6 entries were not imported")
	want.out = importSummary(1, 0, 5)
	got.check(t, "accounts import of CSV with faults", want)

	_, got = importFile(t, `{"appid":"`+accountA+`","refresh_token":"`+hiddenToken+"\"}\n\n"+
		"{\"hidden\"\n"+
		`{"appid":1,"refresh_token":"`+hiddenToken+`"}`)
	want = failsWith(
		`FILE:3: not of the form {"appid":"wx…","refresh_token":"…"}`,
		`FILE:4: not of the form {"appid":"wx…","refresh_token":"…"}`,
		"FILE: 2 of 3 entries were not imported")
	want.out = importSummary(1, 0, 2)
	got.check(t, "accounts import of JSON lines with faults", want)

	for text, problem := range map[string]string{
		"appid,token\n" + line:            "the header has no column refresh_token",
		"[{}]":                            "this is a JSON array, not JSON lines (jq -c '.[]' converts it)",
		"{" + strings.Repeat("x", 70<<10): "a line is longer than 64 KiB",
	} {
		_, got := importFile(t, text)
		want := failsWith("FILE: " + problem)
		want.out = importSummary(0, 0, 0)
		got.check(t, fmt.Sprintf("accounts import of %.20q", text), want)
	}
}

func TestLargeImport(t *testing.T) {
	const accounts = 1234 // more than two batches
	var text strings.Builder
	for i := range accounts {
		fmt.Fprintf(&text, "wxe%015d,%s\n", i, hiddenToken)
	}
	a, got := importFile(t, text.String()+"wrong,x\n")
	want := failsWith("FILE:1235: not an appid: "+appIDForm, "FILE: 1 of 1235 entries were not imported")
	want.out = importSummary(accounts, 0, 1)
	got.check(t, "accounts import of 1235 entries", want)
	if len(a.imported) != accounts+1 {
		t.Errorf("imported accounts: got %d, want %d", len(a.imported), accounts+1)
	}
}

func TestImportFromStdin(t *testing.T) {
	a := newAdminTest(t, nil)
	a.stdin = accountA + "," + hiddenToken + "\nx,y\n"
	want := failsWith("standard input: 1 of 2 entries were not imported")
	want.out = `{"read":2,"added":1,"kept":0,"failed":1,"faults":[{"line":2,"error":"not an appid: ` +
		appIDForm + `"}]}` + "\n"
	a.want("accounts import - --json", want)
	a.fail = fmt.Errorf("%w: the store is away", tokens.ErrUnavailable)
	want = failsWith("standard input:2: not an appid: "+appIDForm,
		"standard input: stopped in the batch that starts at line 1 "+
			"(imported entries stay, and the whole file can be imported again): "+
			"no token available: the store is away (try again after 1 s)")
	want.out = importSummary(0, 0, 1)
	a.want("accounts import -", want)
	a.want("accounts import /nonexistent/file", failsWith(`reading "/nonexistent/file": no such file or directory`))
}

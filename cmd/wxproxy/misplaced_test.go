package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"wxproxy/internal/proctest"
	"wxproxy/sandbox"
)

// misplacedSecret stands for a secret in the wrong place. It is a bare key of
// TOML, too.
const misplacedSecret = "wxk_Misplaced0123456789"

// exampleKey matches a key of config.example.toml with its value. Blocks are
// comments there.
var exampleKey = regexp.MustCompile(`(?m)^(?:# )?([a-z0-9_]+) = .*$`)

// allMisplaced returns configurations that have the secret in the place of
// every key of config.example.toml at once, each in another form: as values of
// each type, inside values, as names, and in brackets.
func allMisplaced(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../config.example.toml")
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile(`(?m)^# (\[\[)`).ReplaceAllString(string(text), "$1")
	all := map[string]string{}
	for i, line := range []string{
		`$1 = "S"`, `$1 = ["S", ["S"]]`, `$1 = S`, `$1 = { S = "S" }`, `$1 = [{ S = 1 }]`,
		`$1 = "$${S}"`, `$1 = "$${file:S}"`, `$1 = "S$${EMPTY}"`, `$1 = "https://u:S@h/"`,
		`$1 = "redis://S@h?S=1"`, `$1 = "S:80"`, `S_$1 = 1`, `$1.S = 1`, `"S $1" = "S"`,
		"$1 = \"S", "$1 = 1\n$1 = S", "$1 = 1\n\"$1\" = \"S\"",
	} {
		all[fmt.Sprint(i, " ", line)] = exampleKey.ReplaceAllString(example, line)
	}
	brackets := regexp.MustCompile(`(?m)^(\[+)([a-z]+)(\]+)$`)
	all["tables"] = brackets.ReplaceAllString(example, "[S]\nS = 1")
	all["blocks"] = brackets.ReplaceAllString(example, "${1}$2.S$3")
	for name, text := range all {
		all[name] = regexp.MustCompile(`\bS|S\b`).ReplaceAllLiteralString(text, misplacedSecret)
	}
	return all
}

// TestMisplacedSecretsAreNotPrinted checks that check, serve and a reload of a
// running wxproxy print no secret that is in the place of a key: every key of
// config.example.toml at once in nineteen forms, and each key alone, in a
// configuration that has no other fault, in two forms.
func TestMisplacedSecretsAreNotPrinted(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{}).start()
	valid, err := os.ReadFile(w.config())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	try := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, "config.toml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, command := range []string{"check", "serve"} {
			got := runArgs(stopped, command, "--config", path)
			if strings.Contains(got.out+got.errors, misplacedSecret) {
				t.Errorf("%s: %s printed a secret:\n%s%s", name, command, got.out, got.errors)
			}
		}
	}
	for name, text := range allMisplaced(t) {
		try(name, text)
		const rejected = "configuration rejected"
		before := strings.Count(w.out.String(), rejected)
		w.file("config.toml", text)
		w.signal(syscall.SIGHUP)
		proctest.Eventually(t, func() bool {
			return strings.Count(w.out.String(), rejected) > before
		})
	}
	// Other addresses than those of the process that runs.
	text := string(valid)
	for _, addr := range []string{w.proxy, w.callback, w.admin} {
		text = strings.Replace(text, addr, "127.0.0.1:0", 1)
	}
	text = strings.Replace(text, w.dir, dir, 1)
	for _, m := range regexp.MustCompile(`(?m)^([a-z_]+) = .*$`).FindAllStringSubmatch(text, -1) {
		for _, value := range []string{"%s", "/%[1]s/%[1]s"} {
			value = fmt.Sprintf(value, misplacedSecret)
			line := fmt.Sprintf("%s = %q", m[1], value)
			try(line, strings.Replace(text, m[0], line, 1))
		}
	}
	if strings.Contains(w.out.String(), misplacedSecret) {
		t.Errorf("the log of a running wxproxy contains a secret:\n%s", w.out)
	}
}

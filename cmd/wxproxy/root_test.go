package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// hiddenArgument has the form of a key. No error may repeat it.
const hiddenArgument = "wxk_sEcReT0123456789"

// noEnv is an environment without variables.
func noEnv(string) (string, bool) { return "", false }

// ran is what a run of the program leaves behind.
type ran struct {
	code        int
	out, errors string
}

// runArgs runs the program inside the test, without an environment.
func runArgs(ctx context.Context, args ...string) ran {
	var out, errs bytes.Buffer
	code := execute(ctx, args, &env{stdout: &out, stderr: &errs, getenv: noEnv})
	return ran{code, out.String(), errs.String()}
}

// check compares a run with what it should be.
func (got ran) check(t *testing.T, args string, want ran) {
	t.Helper()
	if got != want {
		t.Errorf("wxproxy %s\ngot exit code %d, output\n%s\nerrors\n%s\nwant %d\n%s\n%s",
			args, got.code, got.out, got.errors, want.code, want.out, want.errors)
	}
}

// commandPaths returns the words that name each command of the tree, such as
// {"accounts", "list"}.
func commandPaths(cmd *cobra.Command) (paths [][]string) {
	for _, sub := range cmd.Commands() {
		paths = append(paths, strings.Fields(sub.CommandPath())[1:])
		paths = append(paths, commandPaths(sub)...)
	}
	return paths
}

func TestWrongUsage(t *testing.T) {
	for _, c := range []struct{ args, command, message string }{
		{"serv", "", `unknown command "serv" (did you mean wxproxy serve?)`},
		{"nothing", "", `unknown command "nothing"`},
		{"--version", "", `unknown flag "--version" (did you mean wxproxy version?)`},
		{"--color", "", `unknown flag "--color"`},
		{"help nothing", "", `unknown command "nothing"`},
		{"serv --config", "", `unknown command "serv" (did you mean wxproxy serve?)`},

		{"accounts lst", "accounts", `unknown command "lst" (did you mean wxproxy accounts list?)`},
		{"accounts lst --json", "accounts", `unknown command "lst" (did you mean wxproxy accounts list?)`},
		{"accounts --json", "accounts", `unknown flag "--json"`},
		{"accounts help lst", "accounts", `unknown command "lst" (did you mean wxproxy accounts list?)`},
		{"completion ksh", "completion", `unknown command "ksh" (did you mean wxproxy completion zsh?)`},

		{"serve --confg x", "serve", `unknown flag "--confg" (did you mean --config?)`},
		{"serve --color", "serve", `unknown flag "--color"`},
		{"serve -x", "serve", `unknown flag "-x"`},
		{"serve -confg x", "serve", `unknown flag "-confg" (did you mean --config?)`},
		{"serve --config", "serve", `--config needs a value`},
		{"serve --=x", "serve", `a flag has no name: write --name or --name=value`},
		{"serve x", "serve", `serve takes flags only, and there is an extra argument`},
		{"serve -- --config", "serve", `serve takes flags only, and there is an extra argument`},
		{"key", "key", `key needs NAME`},
		{"key a b c", "key", `key takes NAME, and there are 2 extra arguments`},
		{"key --json false name", "key", `key takes NAME, and there is an extra argument`},
		{"explain - GET", "explain", `explain needs APPID METHOD PATH`},
		{"completion bash x", "completion bash", `bash takes flags only, and there is an extra argument`},
		{"accounts list --limit -1", "accounts list", `--limit is negative`},
		{"demo --proxy 0.0.0.0:8080", "demo", `--proxy must be a loopback address such as 127.0.0.1:8080`},

		// Arguments and the values of flags can be secrets.
		{hiddenArgument, "", `unknown command`},
		{"accounts " + hiddenArgument, "accounts", `unknown command`},
		{"serve --" + hiddenArgument, "serve", `unknown flag`},
		{"serve " + hiddenArgument, "serve", `serve takes flags only, and there is an extra argument`},
		{"accounts list --limit " + hiddenArgument, "accounts list", `the value of --limit is not valid ` +
			`(want int)`},
		{"sandbox --token-life " + hiddenArgument, "sandbox", `the value of --token-life is not valid ` +
			`(want duration)`},
		{"accounts list --json=" + hiddenArgument, "accounts list", `the value of --json is not valid ` +
			`(want bool)`},
		{"accounts show " + hiddenArgument, "accounts show",
			`APPID is not an appid: an appid is wx and 16 lower-case letters or digits`},
		{"explain " + hiddenArgument + " GET /a", "explain",
			`APPID is not an appid: an appid is wx and 16 lower-case letters or digits, or "-" for none`},
		{"explain - GET " + hiddenArgument, "explain", `PATH does not start with a slash`},
		{"accounts sync --admin " + hiddenArgument, "accounts sync",
			`--admin is not a URL such as http://127.0.0.1:8082`},
		{"accounts sync --key a --admin " + "http://", "accounts sync",
			`--admin is not a URL such as http://127.0.0.1:8082`},
		{"health --admin http://user:" + hiddenArgument + "@127.0.0.1:1", "health",
			`--admin is not a URL such as http://127.0.0.1:8082`},
	} {
		runArgs(t.Context(), strings.Fields(c.args)...).check(t, c.args, wrongUsage(c.command, c.message))
	}
}

// A script that lost its argument must not read the help page from stdout.
func TestMissingCommandPrintsHelpToStderr(t *testing.T) {
	for _, args := range [][]string{nil, {"accounts"}, {"events"}, {"completion"}} {
		got := runArgs(t.Context(), args...)
		if got.code != exitUsage || got.out != "" || !strings.Contains(got.errors, "Available Commands:") ||
			!strings.Contains(got.errors, "wxproxy: no command given; see wxproxy") {
			t.Errorf("wxproxy %v: got %+v, want exit code 2 and the help page on stderr", args, got)
		}
	}
}

func TestHelp(t *testing.T) {
	root := runArgs(t.Context(), "--help")
	for _, args := range []string{"help", "-h", "-help", "--help"} {
		runArgs(t.Context(), strings.Fields(args)...).check(t, args, root)
	}
	order := []string{"demo ", "serve ", "sandbox ", "check ", "accounts ", "events ", "explain ", "key ", "health ",
		"version ", "completion "}
	rest := root.out
	for _, name := range order {
		_, after, found := strings.Cut(rest, "\n  "+name)
		if !found {
			t.Fatalf("wxproxy --help: got no %q after the commands before it, want the order %q in\n%s", name,
				order, root.out)
		}
		rest = after
	}
	for _, path := range commandPaths(newRoot(&env{})) {
		want := runArgs(t.Context(), append(path, "--help")...)
		if want.code != exitDone || want.errors != "" ||
			!strings.Contains(want.out, "Usage:\n  wxproxy "+strings.Join(path, " ")) {
			t.Errorf("wxproxy %v --help: got %+v", path, want)
		}
		for _, args := range [][]string{append([]string{"help"}, path...), append(path, "-h")} {
			runArgs(t.Context(), args...).check(t, strings.Join(args, " "), want)
		}
	}
	runArgs(t.Context(), "accounts", "help", "show").check(t, "accounts help show",
		runArgs(t.Context(), "accounts", "show", "--help"))
}

func TestHelpPage(t *testing.T) {
	const want = `Show everything that is known about an account. Tokens are shown as
fingerprints, which are the first 8 hexadecimal digits of their SHA-256.

Usage:
  wxproxy accounts show APPID [flags]

Flags:
      --admin URL   URL of the admin listener (default "http://127.0.0.1:8082")
  -h, --help        help for show
      --json        print the response of the admin listener as JSON, for scripts
      --key KEY     the KEY of [admin]; better set it in WXPROXY_ADMIN_KEY, because other users of this machine can see command lines
`
	runArgs(t.Context(), "accounts", "show", "--help").check(t, "accounts show --help", ran{out: want})
}

func TestEveryCommandRejectsUnknownFlags(t *testing.T) {
	for _, path := range commandPaths(newRoot(&env{})) {
		if path[0] == "help" {
			continue
		}
		got := runArgs(t.Context(), append(path, "--no-such-flag")...)
		if got.code != exitUsage || got.out != "" || strings.Count(got.errors, "\n") != 1 ||
			!strings.Contains(got.errors, "--no-such-flag") {
			t.Errorf("wxproxy %v --no-such-flag: got %+v, want exit code 2 and one line about the flag", path, got)
		}
	}
}

// Scripts may use -name instead of --name.
func TestSingleDashFlags(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.toml")
	for _, args := range [][]string{
		{"check", "--config", missing}, {"check", "-config", missing}, {"check", "-config=" + missing},
		{"check", "--config=" + missing},
	} {
		got := runArgs(t.Context(), args...)
		got.check(t, strings.Join(args, " "),
			ran{code: exitFailed, errors: "wxproxy: " + missing + ": cannot be read: no such file or directory\n"})
	}
	// A value that looks like a flag stays a value.
	got := runArgs(t.Context(), "check", "--config", "-config")
	got.check(t, "check --config -config", ran{code: exitFailed,
		errors: "wxproxy: -config: cannot be read: no such file or directory\n"})
}

func TestPrintError(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{errors.New("the port is in use"), "wxproxy: the port is in use\n"},
		{errors.Join(errors.New("one"), errors.New("two")), "wxproxy: one\nwxproxy: two\n"},
		{errors.New("a\x1b[31m\rb\x00\u009b1m\n"), "wxproxy: a?[31m b??1m\n"},
	} {
		var b strings.Builder
		if printError(&b, c.err); b.String() != c.want {
			t.Errorf("printError(%q): got %q, want %q", c.err, b.String(), c.want)
		}
	}
}

// fullDisk is a writer that fails.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestFailedOutputIsAnError(t *testing.T) {
	for _, args := range [][]string{{"help"}, {"version"}, {"serve", "--help"}, {"key", "a"}, {"completion", "bash"}} {
		var errs bytes.Buffer
		code := execute(t.Context(), args, &env{stdout: fullDisk{}, stderr: &errs, getenv: os.LookupEnv})
		if code != exitFailed || !strings.HasSuffix(errs.String(), "no space left on device\n") {
			t.Errorf("%v: got exit code %d and %q, want 1 and the error of the write", args, code, errs.String())
		}
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		got := runArgs(t.Context(), "completion", shell)
		if got.code != exitDone || got.errors != "" || !strings.Contains(got.out, "wxproxy") {
			t.Errorf("completion %s: got exit code %d, %d bytes, "+
				"errors %q", shell, got.code, len(got.out), got.errors)
		}
	}
	// What the scripts call when the user presses Tab.
	for args, want := range map[string]string{
		"acc": "accounts\t", "accounts ": "forget\t", "eve": "events\t", "events ": "retry\t",
		"events retry --a": "--all\t", "accounts list --li": "--limit\t", "serve --c": "--config\t",
	} {
		got := runArgs(t.Context(), append([]string{"__complete"}, strings.Split(args, " ")...)...)
		if !strings.Contains("\n"+got.out, "\n"+want) {
			t.Errorf("completion of %q: got %q, want a line %q", args, got.out, want)
		}
	}
	// The last line tells the shell whether to complete file names.
	const noFiles = ":4\n" // cobra.ShellCompDirectiveNoFileComp
	for args, want := range map[string]bool{
		"accounts show ": true, "events drop ": true, "key ": true, "accounts import ": false,
	} {
		got := runArgs(t.Context(), append([]string{"__complete"}, strings.Split(args, " ")...)...)
		if strings.HasSuffix(got.out, noFiles) != want {
			t.Errorf("completion of %q: got %q, want no file names: %v", args, got.out, want)
		}
	}
}

// TestManPages generates the man pages. With WXPROXY_MAN set they stay in that
// folder, which is what make man does: cobra's generator and its libraries do
// not have to be part of the program.
func TestManPages(t *testing.T) {
	dir := os.Getenv("WXPROXY_MAN")
	if dir == "" {
		dir = t.TempDir()
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	root := newRoot(&env{})
	root.DisableAutoGenTag = true // no date: the pages of a version are always the same
	header := &doc.GenManHeader{Section: "1", Source: "wxproxy " + version, Manual: "wxproxy"}
	if err := doc.GenManTree(root, header, dir); err != nil {
		t.Fatal(err)
	}
	for _, path := range append(commandPaths(root), nil) {
		if len(path) > 0 && path[len(path)-1] == "help" {
			continue
		}
		name := strings.Join(append([]string{"wxproxy"}, path...), "-") + ".1"
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Contains(text, []byte(".SH SYNOPSIS")) {
			t.Errorf("%s: got %d bytes, %v, want a man page", name, len(text), err)
		}
	}
}

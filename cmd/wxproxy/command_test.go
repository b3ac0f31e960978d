package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// tool is a command for trying out what is around commands.
type tool struct {
	env    *env
	listen string
	key    string
	n      int
	wait   time.Duration
	json   bool
	err    error
}

func (c *tool) ParseFlags(args []string) error {
	fs := newFlags("tool", "Does what tools do.")
	fs.StringVar(&c.listen, "listen", "127.0.0.1:1", "the `ADDRESS` to listen on")
	fs.StringVar(&c.key, "key", "", "the `KEY` to send")
	fs.IntVar(&c.n, "n", 0, "how `many`")
	fs.DurationVar(&c.wait, "wait", 0, "how `long` to wait")
	fs.BoolVar(&c.json, "json", false, "print JSON")
	return parseFlags(c.env, fs, args)
}

func (c *tool) Run(ctx context.Context) error {
	if c.err != nil {
		return c.err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	_, err := io.WriteString(c.env.stdout, "listening on "+c.listen+"\n")
	return err
}

// picky does not keep to the rule that errors of ParseFlags are usageErrors.
type picky struct{}

func (picky) ParseFlags([]string) error { return errors.New("picky needs a name") }
func (picky) Run(context.Context) error { panic("BUG: run after wrong usage") }

// noEnv is an environment without variables.
func noEnv(string) (string, bool) { return "", false }

// marker is in everything that must not be shown.
const marker = "sEcReT"

// workbench has some commands; tool ends with err.
func workbench(err error) program {
	return program{commands: []entry{
		{"tool", "does what tools do", func(e *env) command { return &tool{env: e, err: err} }},
		{"picky", "wants a name", func(*env) command { return picky{} }},
		{"version", "version, commit, Go version", newVersion},
	}}
}

// ran is all that a run leaves behind.
type ran struct {
	code        int
	out, errors string
}

func (p program) try(ctx context.Context, args ...string) ran {
	var out, errs bytes.Buffer
	code := p.run(ctx, args, &env{stdout: &out, stderr: &errs, getenv: noEnv})
	return ran{code, out.String(), errs.String()}
}

const page = `wxproxy forwards plain WeChat requests and puts the right token in.

Usage: wxproxy COMMAND [FLAGS]

  tool      does what tools do
  picky     wants a name
  version   version, commit, Go version

wxproxy COMMAND --help tells more about one of them.
`

const toolPage = `Usage: wxproxy tool [FLAGS]

Does what tools do.

  --json
      print JSON
  --key KEY
      the KEY to send
  --listen ADDRESS
      the ADDRESS to listen on (default: 127.0.0.1:1)
  --n many
      how many (default: 0)
  --wait long
      how long to wait (default: 0s)
  --help
      this page
`

func TestRun(t *testing.T) {
	p := workbench(nil)
	f := func(args string, want ran) {
		t.Helper()
		if got := p.try(t.Context(), strings.Fields(args)...); got != want {
			t.Errorf("%s\ngot  %d\n%s\n%s\nwant %d\n%s\n%s", args, got.code, got.out, got.errors, want.code, want.out, want.errors)
		}
	}
	usage := func(sentence string) ran { return ran{code: 2, errors: "wxproxy: " + sentence + "\n"} }

	f("", ran{code: 2, errors: page + "wxproxy: no command is given; see wxproxy --help\n"})
	f("help", ran{out: page})
	f("--help", ran{out: page})
	f("-help", ran{out: page})
	f("-h", ran{out: page})
	f("help --help", ran{out: page})
	f("help tool", ran{out: toolPage})
	f("tool --help", ran{out: toolPage})
	f("tool -h", ran{out: toolPage})
	f("tool --listen x --help", ran{out: toolPage})
	f("version --help", ran{out: "Usage: wxproxy version\n\nPrints version, commit and Go version on one line.\n\n  --help\n      this page\n"})

	f("tool", ran{out: "listening on 127.0.0.1:1\n"})
	f("tool --listen :2", ran{out: "listening on :2\n"})
	f("tool -listen=:2 --json", ran{out: "listening on :2\n"})

	f("serv", usage(`there is no command "serv"; see wxproxy --help`))
	f("tools", usage(`there is no command "tools" (did you mean wxproxy tool?); see wxproxy --help`))
	f("--version", usage(`there is no flag "--version" (did you mean wxproxy version?); see wxproxy --help`))
	f("--config x", usage(`there is no flag "--config"; see wxproxy --help`))
	f("help nothing", usage(`there is no command "nothing"; see wxproxy --help`))
	f("tool x", usage(`tool takes flags only, and "x" is none; see wxproxy tool --help`))
	f("tool --json false", usage(`tool takes flags only, and "false" is none; see wxproxy tool --help`))
	f("tool -- --json", usage(`tool takes flags only, and "--json" is none; see wxproxy tool --help`))
	f("tool --lisen x", usage(`tool has no flag "--lisen" (did you mean --listen?); see wxproxy tool --help`))
	f("tool --color", usage(`tool has no flag "--color"; see wxproxy tool --help`))
	f("tool --listen", usage(`the flag --listen needs a value; see wxproxy tool --help`))
	f("tool --=x", usage(`a flag has no name; flags look like --name or --name=value; see wxproxy tool --help`))
	f("version x", usage(`version takes flags only, and "x" is none; see wxproxy version --help`))
	f("picky", usage(`picky needs a name; see wxproxy picky --help`))
	// Values are not repeated: they may be keys.
	f("tool --n "+marker, usage(`the value of --n cannot be understood; see wxproxy tool --help`))
	f("tool --wait "+marker, usage(`the value of --wait cannot be understood; see wxproxy tool --help`))
	f("tool --json="+marker, usage(`the value of --json cannot be understood; see wxproxy tool --help`))
}

func TestRunFailure(t *testing.T) {
	f := func(err error, code int, want string) {
		t.Helper()
		if got := workbench(err).try(t.Context(), "tool"); got != (ran{code, "", want}) {
			t.Errorf("%v: %+v", err, got)
		}
	}
	f(errors.New("the port is in use"), 1, "wxproxy: the port is in use\n")
	f(errors.Join(errors.New("one"), errors.New("two")), 1, "wxproxy: one\nwxproxy: two\n")
	f(errors.New("f: a: x\nf: b: y"), 1, "wxproxy: f: a: x\nwxproxy: f: b: y\n")
	// What a terminal would obey does not reach it.
	f(errors.New("a\x1b[31m\rb\x00\u009b1m\n"), 1, "wxproxy: a [31m b  1m\n")
	f(io.ErrClosedPipe, 1, "wxproxy: io: read/write on closed pipe\n")
	f(&usageError{sentence: "--a and --b exclude each other", command: "tool"}, 2, "wxproxy: --a and --b exclude each other; see wxproxy tool --help\n")
}

func TestRunGetsTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := workbench(nil).try(ctx, "tool"); got.code != 1 || got.errors != "wxproxy: context canceled\n" {
		t.Errorf("%+v", got)
	}
}

// full is a disk with nothing left on it.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

// Where the answer could not be written, nothing was done: that is no success.
func TestRunCannotPrint(t *testing.T) {
	for _, args := range [][]string{{"help"}, {"version"}, {"tool", "--help"}} {
		var errs bytes.Buffer
		code := workbench(nil).run(t.Context(), args, &env{stdout: full{}, stderr: &errs, getenv: os.LookupEnv})
		if code != 1 || !strings.HasSuffix(errs.String(), "no space left on device\n") {
			t.Errorf("%v: %d, %s", args, code, errs.String())
		}
	}
}

// What holds for every command of the program.
func TestCommands(t *testing.T) {
	p := program{commands: commands}
	if got := p.try(t.Context(), "help"); got.code != 0 || got.errors != "" {
		t.Errorf("help: %+v", got)
	}
	seen := map[string]bool{}
	for _, c := range commands {
		if seen[c.name] || c.synopsis == "" || strings.ContainsAny(c.synopsis, "\n") {
			t.Errorf("%q is listed twice, or explained on no line or on several", c.name)
		}
		seen[c.name] = true
		if got := p.try(t.Context(), c.name, "--help"); got.code != 0 || got.errors != "" || !strings.HasPrefix(got.out, "Usage: wxproxy "+c.name) {
			t.Errorf("%s --help: %+v", c.name, got)
		}
		for _, wrong := range []string{"--no-such-flag", "No such argument"} {
			if got := p.try(t.Context(), c.name, wrong); got.code != 2 || got.out != "" || strings.Count(got.errors, "\n") != 1 || !strings.Contains(got.errors, wrong) {
				t.Errorf("%s %s: %+v", c.name, wrong, got)
			}
		}
	}
}

func TestParseFlagsSaysHelp(t *testing.T) {
	err := (&tool{env: &env{stdout: io.Discard}}).ParseFlags([]string{"--help"})
	if !errors.Is(err, flag.ErrHelp) {
		t.Error(err)
	}
}

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"wxproxy/cmd/wxproxy/internal/suggest"
)

// env is what a command sees of the outside.
type env struct {
	stdout io.Writer // what was asked for
	stderr io.Writer // what went wrong, and logs
	getenv func(string) (string, bool)
	stdin  io.Reader // nil: there is none
	// terminal: somebody sits before stdin and can be asked.
	terminal bool
}

// command is one of the things that wxproxy can do.
type command interface {
	// ParseFlags reads what stands behind the command's name, by way of parseFlags. Its errors are wrong usage.
	ParseFlags(args []string) error
	// Run does the work, until it is done or ctx ends; it is called once, after ParseFlags. Its error
	// may have several lines; each says one thing.
	Run(ctx context.Context) error
}

// entry is a row of the table of commands.
type entry struct {
	name     string
	synopsis string // one line, for the list of all commands
	new      func(*env) command
}

// What run returns.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a command line that cannot be understood.
type usageError struct {
	sentence string
	command  string // whose --help tells more; "": that of wxproxy itself
}

func (e *usageError) Error() string {
	if e.command == "" {
		return e.sentence + "; see wxproxy --help"
	}
	return e.sentence + "; see wxproxy " + e.command + " --help"
}

// program is wxproxy as a value, so that tests may run it.
type program struct{ commands []entry }

// run does what args, without the program's name, ask for, and returns the exit code.
func (p program) run(ctx context.Context, args []string, e *env) int {
	err := p.dispatch(ctx, args, e)
	var usage *usageError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp): // help was asked for and given
		return exitDone
	case errors.As(err, &usage): // of Run too: some flags exclude each other
		printError(e.stderr, err)
		return exitUsage
	}
	printError(e.stderr, err)
	return exitFailed
}

// dispatch tells asking for help from asking for a command.
func (p program) dispatch(ctx context.Context, args []string, e *env) error {
	if len(args) == 0 {
		// Nobody asked for help: a script that lost its argument must fail, and not find the page in its output.
		io.WriteString(e.stderr, p.usage())
		return &usageError{sentence: "no command is given"}
	}
	name, args := args[0], args[1:]
	if name == "help" && len(args) > 0 && !isHelp(args[0]) {
		// wxproxy help serve is wxproxy serve --help.
		name, args = args[0], append([]string{"--help"}, args[1:]...)
	}
	if isHelp(name) {
		_, err := io.WriteString(e.stdout, p.usage())
		return err
	}
	return p.start(ctx, name, args, e)
}

// isHelp knows the ways to ask for help where a command is expected.
func isHelp(arg string) bool {
	return arg == "help" || arg == "-help" || arg == "--help" || arg == "-h" || arg == "--h"
}

// start runs the command of that name.
func (p program) start(ctx context.Context, name string, args []string, e *env) error {
	for _, c := range p.commands {
		if c.name == name {
			// Flags first and all of them: nothing is begun on a command line that is wrong.
			cmd := c.new(e)
			if err := cmd.ParseFlags(args); err != nil {
				return asUsage(err, name)
			}
			return cmd.Run(ctx)
		}
	}
	kind := "command"
	if strings.HasPrefix(name, "-") {
		kind = "flag"
	}
	sentence := fmt.Sprintf("there is no %s %s", kind, quoted(name))
	var names []string
	for _, c := range p.commands {
		names = append(names, c.name)
	}
	if near := suggest.Nearest(strings.TrimLeft(name, "-"), names); near != "" {
		sentence += fmt.Sprintf(" (did you mean wxproxy %s?)", near)
	}
	return &usageError{sentence: sentence}
}

// asUsage makes wrong usage of any error of ParseFlags, so that a command cannot forget to.
func asUsage(err error, name string) error {
	var usage *usageError
	if errors.Is(err, flag.ErrHelp) || errors.Is(err, errPrint) || errors.As(err, &usage) {
		return err
	}
	return &usageError{sentence: err.Error(), command: name}
}

// usage is the page of all commands.
func (p program) usage() string {
	var b strings.Builder
	b.WriteString("wxproxy forwards plain WeChat requests and puts the right token in.\n\nUsage: wxproxy COMMAND [FLAGS]\n\n")
	for _, c := range p.commands {
		fmt.Fprintf(&b, "  %-9s %s\n", c.name, c.synopsis)
	}
	b.WriteString("\nwxproxy COMMAND --help tells more about one of them.\n")
	return b.String()
}

// printError writes each line of err behind "wxproxy: ". An error may quote what somebody typed
// or sent: control characters, which a terminal would obey, are shown as a space.
func printError(w io.Writer, err error) {
	for line := range strings.SplitSeq(strings.TrimSpace(err.Error()), "\n") {
		line = strings.Map(func(r rune) rune {
			if r < ' ' || r >= 0x7f && r < 0xa0 {
				return ' '
			}
			return r
		}, line)
		fmt.Fprintf(w, "wxproxy: %s\n", line)
	}
}

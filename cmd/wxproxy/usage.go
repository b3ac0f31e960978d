package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"wxproxy/cmd/wxproxy/internal/suggest"
)

// usageError reports a wrong command line. The program then exits with
// exitUsage.
type usageError struct {
	message string
	command string // whose help page explains more, such as "wxproxy serve"
}

// Error returns the message and where to read more.
func (e *usageError) Error() string { return e.message + "; see " + e.command + " --help" }

// usagef returns a usageError of cmd. Neither format nor args may contain the
// value of a flag or an argument: it may be a key in the wrong place.
func usagef(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{message: fmt.Sprintf(format, args...), command: cmd.CommandPath()}
}

// exactArgs returns the check for a command that takes one argument for each
// of names, which are also its Use line. The error does not repeat arguments.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch n := len(names); {
		case len(args) == n:
			return nil
		case n == 0:
			return usagef(cmd, "%s takes flags only, and there %s", cmd.Name(), extra(len(args)))
		case len(args) < n:
			return usagef(cmd, "%s needs %s", cmd.Name(), strings.Join(names, " "))
		default:
			return usagef(cmd, "%s takes %s, and there %s",
				cmd.Name(), strings.Join(names, " "), extra(len(args)-n))
		}
	}
}

// extra returns how many arguments are too many, as the end of a sentence that
// starts with "there".
func extra(n int) string {
	if n == 1 {
		return "is an extra argument"
	}
	return fmt.Sprintf("are %d extra arguments", n)
}

// completeNoFiles disables the completion of file names for the arguments of cmd
// and the commands below it, unless the arguments are files.
func completeNoFiles(cmd *cobra.Command) {
	if !strings.Contains(cmd.Use, "FILE") {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	for _, sub := range cmd.Commands() {
		completeNoFiles(sub)
	}
}

// asGroup makes cmd a command that only has subcommands. Without one of them
// it prints its help page to stderr and fails, so that a script that lost an
// argument does not take the page for its result.
func asGroup(cmd *cobra.Command) {
	// The flags of an unknown subcommand are unknown too, and the name of the
	// subcommand is the error to report. RunE gets all arguments this way.
	cmd.DisableFlagParsing = true
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			cmd.SetOut(cmd.ErrOrStderr())
			cmd.Help()
			return usagef(cmd, "no command given")
		}
		switch args[0] {
		case "-h", "--help":
			return cmd.Help()
		case "help": // cobra knows it at the root only
			return printHelp(cmd, args[1:])
		}
		return unknownCommand(cmd, args[0])
	}
}

// unknownCommand returns the error for name, which is no command below parent.
func unknownCommand(parent *cobra.Command, name string) error {
	kind := "command"
	if strings.HasPrefix(name, "-") {
		kind = "flag"
	}
	// Cobra suggests commands too, but the first in the list, not the nearest.
	var names []string
	for _, c := range parent.Commands() {
		names = append(names, c.Name())
	}
	var hint string
	if near := suggest.Nearest(strings.TrimLeft(name, "-"), names); near != "" {
		hint = fmt.Sprintf(" (did you mean %s %s?)", parent.CommandPath(), near)
	}
	return usagef(parent, "unknown %s%s%s", kind, ifWord(name), hint)
}

// word matches what looks like the name of a command or of a flag. Keys and
// secrets contain digits, capital letters or underscores.
var word = regexp.MustCompile(`^-{0,2}[a-z][a-z-]{0,29}$`)

// ifWord returns s in quotes after a space, or "" if s can be a secret, which
// no error may repeat.
func ifWord(s string) string {
	if !word.MatchString(s) {
		return ""
	}
	return fmt.Sprintf(" %q", s)
}

// flagError turns an error of package pflag into one that does not repeat the
// value of a flag, and suggests a flag with a similar name.
func flagError(cmd *cobra.Command, err error) error {
	var (
		unknown *pflag.NotExistError
		missing *pflag.ValueRequiredError
		invalid *pflag.InvalidValueError
	)
	switch {
	case errors.As(err, &unknown):
		name := unknown.GetSpecifiedName()
		written := "--" + name
		if short := unknown.GetSpecifiedShortnames(); short != "" {
			name, written = short, "-"+short
		}
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		var hint string
		if near := suggest.Nearest(name, names); near != "" {
			hint = fmt.Sprintf(" (did you mean --%s?)", near)
		}
		return usagef(cmd, "unknown flag%s%s", ifWord(written), hint)
	case errors.As(err, &missing):
		return usagef(cmd, "--%s needs a value", missing.GetSpecifiedName())
	case errors.As(err, &invalid):
		f := invalid.GetFlag()
		return usagef(cmd, "the value of --%s is not valid (want %s)", f.Name, f.Value.Type())
	}
	return usagef(cmd, "a flag has no name: write --name or --name=value")
}

// normalizeFlags returns args with -name written as --name for every flag that
// a command below root has. Both forms worked before the commands had short
// flags such as -h, and scripts may rely on it.
func normalizeFlags(root *cobra.Command, args []string) []string {
	takesValue := map[string]bool{"help": false} // by name of the flag
	var collect func(*cobra.Command)
	collect = func(cmd *cobra.Command) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) { takesValue[f.Name] = f.NoOptDefVal == "" })
		for _, sub := range cmd.Commands() {
			collect(sub)
		}
	}
	collect(root)
	out := append([]string{}, args...) // not nil: cobra would use os.Args
	isValue := false                   // the argument belongs to the flag before it
	for i, arg := range out {
		if arg == "--" {
			break
		}
		wasValue := isValue
		isValue = false
		name, hasDash := strings.CutPrefix(arg, "-")
		if wasValue || !hasDash {
			continue
		}
		name, _, assigned := strings.Cut(strings.TrimPrefix(name, "-"), "=")
		takes, known := takesValue[name]
		if known && !strings.HasPrefix(arg, "--") {
			out[i] = "-" + arg
		}
		isValue = takes && !assigned
	}
	return out
}

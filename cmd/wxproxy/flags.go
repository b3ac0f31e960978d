package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
)

// flags are those of one command.
type flags struct {
	*flag.FlagSet
	about string // what the command does, for the top of its help page; "": nothing to say
}

// newFlags begins the flags of a command. Define them on it, then call parseFlags. A word in
// backquotes in a flag's usage names its value: "read the configuration in `FILE`".
func newFlags(command, about string) *flags {
	fs := flag.NewFlagSet(command, flag.ContinueOnError)
	// What package flag would print by itself has another form than our errors.
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	return &flags{FlagSet: fs, about: about}
}

// parseFlags reads args, which may hold flags only, as --name and as -name. Asked for help, it prints
// the page of the command to stdout and returns flag.ErrHelp, or errPrint where that fails; every other error is
// a usageError.
func parseFlags(e *env, fs *flags, args []string) error {
	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		if _, err := io.WriteString(e.stdout, helpPage(fs)); err != nil {
			return fmt.Errorf("%w: %w", errPrint, err)
		}
		return flag.ErrHelp
	case err != nil:
		return &usageError{sentence: flagSentence(fs, err), command: fs.Name()}
	// A word too many is mostly a flag without its name, and passing over it would do something else
	// than what was meant.
	case fs.NArg() > 0:
		return &usageError{
			sentence: fmt.Sprintf("%s takes flags only, and %s is none", fs.Name(), quoted(fs.Arg(0))),
			command:  fs.Name(),
		}
	}
	return nil
}

// errPrint: help was asked for, and could not be given.
var errPrint = errors.New("cannot print")

// helpPage lists the flags of a command.
func helpPage(fs *flags) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: wxproxy %s", fs.Name())
	var all []*flag.Flag
	fs.VisitAll(func(f *flag.Flag) { all = append(all, f) })
	if len(all) > 0 {
		b.WriteString(" [FLAGS]")
	}
	b.WriteString("\n\n")
	if fs.about != "" {
		b.WriteString(fs.about + "\n\n")
	}
	// Package flag would print single dashes; both work, and the longer ones are what other tools have.
	for _, f := range all {
		value, usage := flag.UnquoteUsage(f)
		if value != "" {
			value = " " + value
		}
		fmt.Fprintf(&b, "  --%s%s\n      %s", f.Name, value, usage)
		if f.DefValue != "" && f.DefValue != "false" {
			fmt.Fprintf(&b, " (default: %s)", f.DefValue)
		}
		b.WriteString("\n")
	}
	b.WriteString("  --help\n      this page\n")
	return b.String()
}

// The beginnings of what package flag says. Its errors have no types.
const (
	flagUnknown   = "flag provided but not defined: -"
	flagNoValue   = "flag needs an argument: -"
	flagBadSyntax = "bad flag syntax: "
)

// flagSentence says what package flag does in our words, and leaves values out: a flag's value may
// be a key.
func flagSentence(fs *flags, err error) string {
	text := err.Error()
	if name, ok := strings.CutPrefix(text, flagUnknown); ok {
		sentence := fmt.Sprintf("%s has no flag %s", fs.Name(), quoted("--"+name))
		var names []string
		fs.VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
		if near := nearest(name, names); near != "" {
			sentence += fmt.Sprintf(" (did you mean --%s?)", near)
		}
		return sentence
	}
	if name, ok := strings.CutPrefix(text, flagNoValue); ok {
		return fmt.Sprintf("the flag --%s needs a value", name)
	}
	if strings.HasPrefix(text, flagBadSyntax) {
		return "a flag has no name; flags look like --name or --name=value"
	}
	// invalid value "…" for flag -name: …, and the same of boolean flags.
	// Only the flag's own name is taken from the sentence, by looking for each that exists.
	name := ""
	fs.VisitAll(func(f *flag.Flag) {
		if strings.Contains(text, " for flag -"+f.Name+": ") || strings.Contains(text, " for -"+f.Name+": ") {
			name = f.Name
		}
	})
	if name == "" {
		return "a flag cannot be understood"
	}
	return fmt.Sprintf("the value of --%s cannot be understood", name)
}

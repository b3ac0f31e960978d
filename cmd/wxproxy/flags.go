package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"wxproxy/cmd/wxproxy/internal/suggest"
)

// flags are those of one command.
type flags struct {
	*flag.FlagSet
	about string   // what the command does, for the top of its help page; "": nothing to say
	words []string // what stands between the flags, by its names on the help page; see parseWords
	page  string   // the whole help page; "": made of the above
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
	if err := flagError(e, fs, fs.Parse(args)); err != nil {
		return err
	}
	// A word too many is mostly a flag without its name, and passing over it would do something else
	// than what was meant.
	if fs.NArg() > 0 {
		return &usageError{
			sentence: fmt.Sprintf("%s takes flags only, and %s is none", fs.Name(), quoted(fs.Arg(0))),
			command:  fs.Name(),
		}
	}
	return nil
}

// flagError gives help, where that was asked for, and says in our words what package flag does.
func flagError(e *env, fs *flags, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, flag.ErrHelp):
		if _, err := io.WriteString(e.stdout, helpPage(fs)); err != nil {
			return fmt.Errorf("%w: %w", errPrint, err)
		}
		return flag.ErrHelp
	}
	return &usageError{sentence: flagSentence(fs, err), command: fs.Name()}
}

// parseWords is parseFlags for a command that takes words too: one for each of fs.words, in their order, before,
// behind and between the flags. Behind "--" everything is a word.
func parseWords(e *env, fs *flags, args []string) ([]string, error) {
	var words []string
	for len(args) > 0 {
		if err := flagError(e, fs, fs.Parse(args)); err != nil {
			return nil, err
		}
		rest := fs.Args()
		if read := len(args) - len(rest); read > 0 && args[read-1] == "--" {
			words, rest = append(words, rest...), nil
		} else if len(rest) > 0 {
			words, rest = append(words, rest[0]), rest[1:]
		}
		args = rest
	}
	switch want := len(fs.words); {
	case len(words) < want:
		sentence := fs.Name() + " needs " + strings.Join(fs.words, " ")
		if len(words) > 0 {
			sentence += fmt.Sprintf(", and there is nothing behind %s", quoted(words[len(words)-1]))
		}
		return nil, &usageError{sentence: sentence, command: fs.Name()}
	case len(words) > want:
		return nil, &usageError{
			sentence: fmt.Sprintf("%s takes %s, and %s is too much", fs.Name(), strings.Join(fs.words, " "), quoted(words[want])),
			command:  fs.Name(),
		}
	}
	return words, nil
}

// errPrint: help was asked for, and could not be given.
var errPrint = errors.New("cannot print")

// helpPage lists the flags of a command.
func helpPage(fs *flags) string {
	if fs.page != "" {
		return fs.page
	}
	var b strings.Builder
	b.WriteString(strings.Join(append([]string{"Usage: wxproxy", fs.Name()}, fs.words...), " "))
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
		if near := suggest.Nearest(name, names); near != "" {
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

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"wxproxy/wechat"
)

// env is what a command sees of its process. Tests replace it.
type env struct {
	stdout   io.Writer // results
	stderr   io.Writer // errors, logs and questions
	stdin    io.Reader // nil: empty
	getenv   func(string) (string, bool)
	terminal bool // stdin is a terminal, so that questions can be asked
	color    bool // stdout is a terminal, which can show colors
}

// confirm reads a line from the terminal and reports whether it says yes. It
// returns false when ctx ends. A read from a terminal cannot be interrupted, so
// the goroutine stays until the process exits.
func (e *env) confirm(ctx context.Context) bool {
	line := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(e.stdin).ReadString('\n')
		line <- text
	}()
	select {
	case text := <-line:
		text = strings.ToLower(strings.TrimSpace(text))
		return text == "y" || text == "yes"
	case <-ctx.Done():
		fmt.Fprintln(e.stderr)
		return false
	}
}

// The exit codes of the program.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2 // the command line is wrong, and nothing was done
)

// newRoot returns the command tree. The commands are listed in the order in
// which a new user meets them.
func newRoot(e *env) *cobra.Command {
	cobra.EnableCommandSorting = false // a global of cobra, always the same here
	root := &cobra.Command{
		Use:   "wxproxy",
		Short: "Forward WeChat requests and add the right token",
		Long: `wxproxy is a forwarding proxy for the server API of WeChat. Services send
plain WeChat requests without credentials, and wxproxy adds the right token.

Start with "wxproxy demo", which needs no configuration.`,
		SilenceErrors: true, // execute prints them
		SilenceUsage:  true, // one line is more helpful than a page
	}
	root.AddCommand(
		newDemo(e),
		newServe(e),
		newSandbox(e),
		newCheck(e),
		newAccounts(e),
		newEvents(e),
		newExplain(e),
		newKey(e),
		newStore(e),
		newHealth(e),
		newVersion(e),
	)
	asGroup(root)
	root.SetOut(e.stdout) // before the next calls, which keep it
	root.SetErr(e.stderr)
	root.SetHelpCommand(newHelp(root))
	root.InitDefaultCompletionCmd()
	if completion, _, err := root.Find([]string{"completion"}); err == nil {
		asGroup(completion)
		for _, shell := range completion.Commands() {
			shell.Args = exactArgs()
		}
	}
	completeNoFiles(root)
	root.SetFlagErrorFunc(flagError)
	// A group of commands does nothing without one of them, so its help page
	// does not show that usage.
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(),
		"{{if .Runnable}}", "{{if and .Runnable (not .HasAvailableSubCommands)}}", 1))
	return root
}

// newHelp returns the help command. Cobra's own one exits with 0 even if there
// is no such command.
func newHelp(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Print the help page of a command",
		RunE:  func(_ *cobra.Command, args []string) error { return printHelp(root, args) },
	}
}

// printHelp prints the help page of the command that path names, starting at
// parent.
func printHelp(parent *cobra.Command, path []string) error {
	cmd := parent
	for _, name := range path {
		i := slices.IndexFunc(cmd.Commands(), func(c *cobra.Command) bool { return c.Name() == name })
		if i < 0 {
			return unknownCommand(cmd, name)
		}
		cmd = cmd.Commands()[i]
	}
	cmd.InitDefaultHelpFlag()
	return cmd.Help()
}

// execute runs the command line args, given without the program's name, and
// returns the exit code. Errors are printed to e.stderr.
func execute(ctx context.Context, args []string, e *env) int {
	out := &stickyWriter{w: e.stdout}
	wrapped := *e
	wrapped.stdout = out
	root := newRoot(&wrapped)
	root.SetArgs(normalizeFlags(root, args))
	err := root.ExecuteContext(ctx)
	if printErr := out.firstError(); err == nil && printErr != nil {
		// Cobra ignores that a help page could not be written.
		err = fmt.Errorf("cannot print: %w", printErr)
	}
	if err == nil {
		return exitDone
	}
	printError(e.stderr, err)
	// Some commands find out while they run that two flags do not fit.
	var usage *usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailed
}

// stickyWriter remembers the first error of w. It is safe for concurrent use:
// a goroutine of the demo may still print while the command returns.
type stickyWriter struct {
	mu  sync.Mutex
	w   io.Writer
	err error
}

// Write writes p to the underlying writer.
func (s *stickyWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.w.Write(p)
	if err != nil && s.err == nil {
		s.err = err
	}
	return n, err
}

// firstError returns the first error of the underlying writer, or nil.
func (s *stickyWriter) firstError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// printError writes each line of err after "wxproxy: ". Errors may quote text
// that came from elsewhere, so control characters are removed.
func printError(w io.Writer, err error) {
	const maxLine = 4096
	for line := range strings.SplitSeq(strings.TrimSpace(err.Error()), "\n") {
		fmt.Fprintf(w, "wxproxy: %s\n", wechat.Sanitize(line, maxLine))
	}
}

// Command wxproxy is a forwarding reverse proxy for WeChat third-party
// platforms. Its callers send plain WeChat requests without credentials, and
// wxproxy adds the right token to each of them.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// main connects execute, which tests call, to the process.
func main() {
	// On Windows SIGTERM means that the console is closed or the user logs off.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// From the first signal on a second one kills the process immediately.
	context.AfterFunc(ctx, stop)
	e := &env{
		stdout:   os.Stdout,
		stderr:   os.Stderr,
		stdin:    os.Stdin,
		getenv:   os.LookupEnv,
		terminal: isTerminal(os.Stdin),
		color:    isTerminal(os.Stdout),
	}
	os.Exit(execute(ctx, os.Args[1:], e))
}

// isTerminal reports whether f is a terminal.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

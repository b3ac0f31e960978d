// Command wxproxy is a forwarding reverse proxy for WeChat third-party platforms: callers
// send plain WeChat requests without credentials, it puts the right token in.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// main does only what cannot be tested; program.run is the rest.
func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// Whoever loses patience may interrupt a second time, which ends the process at once.
	context.AfterFunc(ctx, stop)
	e := &env{stdout: os.Stdout, stderr: os.Stderr, getenv: os.LookupEnv, stdin: os.Stdin, terminal: isTerminal(os.Stdin)}
	os.Exit(program{commands: commands}.run(ctx, os.Args[1:], e))
}

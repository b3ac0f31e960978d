// Command wxproxy is a forwarding reverse proxy for WeChat third-party
// platforms. Its callers send plain WeChat requests without credentials, and
// wxproxy adds the right token to each of them.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
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

// version and commit identify the build. The linker sets them with
// -ldflags "-X main.version=… -X main.commit=…". Values that it leaves empty
// are taken from the build information of the binary. Neither is empty after
// init.
var version, commit string

func init() {
	info, _ := debug.ReadBuildInfo()
	version, commit = identify(version, commit, info)
}

// identify returns version and commit, each replaced by the value in info if
// it is empty, and by "unknown" if info has none. info may be nil.
func identify(version, commit string, info *debug.BuildInfo) (string, string) {
	if info == nil {
		info = &debug.BuildInfo{}
	}
	if version == "" && info.Main.Version != "(devel)" {
		version = info.Main.Version
	}
	if commit == "" {
		commit = revision(info.Settings)
	}
	if version == "" {
		version = "unknown"
	}
	if commit == "" {
		commit = "unknown"
	}
	return version, commit
}

// revision returns the abbreviated commit of a build, with "-dirty" appended
// if files had been changed. It returns "" for a build outside a repository.
func revision(settings []debug.BuildSetting) string {
	const length = 12 // hex digits, which is what git prints for large repositories
	rev, dirty := "", ""
	for _, s := range settings {
		switch {
		case s.Key == "vcs.revision":
			rev = s.Value[:min(length, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "-dirty"
		}
	}
	if rev == "" {
		return ""
	}
	return rev + dirty
}

// newVersion returns `wxproxy version`.
func newVersion(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print version, commit and Go version",
		Long:  "Print the version of wxproxy, the commit and the Go version of the build on one line.",
		Args:  exactArgs(),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(e.stdout, "wxproxy %s (commit %s, %s)\n", version, commit, runtime.Version())
			return err
		},
	}
}

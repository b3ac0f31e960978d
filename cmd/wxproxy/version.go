package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
)

// version and commit say what was built. The linker sets them
// (-ldflags "-X main.version=… -X main.commit=…"); what it leaves empty comes from what
// the go command noted in the binary. After init neither is empty.
var version, commit string

func init() {
	info, _ := debug.ReadBuildInfo()
	version, commit = identify(version, commit, info)
}

// identify fills what the linker left empty. info is nil where the binary has none.
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

// revision is the commit in short, with "-dirty" behind it where files had been changed; "" where
// the build was not made in a repository.
func revision(settings []debug.BuildSetting) string {
	const short = 12 // characters: what git shows of a large repository
	rev, dirty := "", ""
	for _, s := range settings {
		switch {
		case s.Key == "vcs.revision":
			rev = s.Value[:min(short, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "-dirty"
		}
	}
	if rev == "" {
		return ""
	}
	return rev + dirty
}

// versionCommand is `wxproxy version`.
type versionCommand struct{ env *env }

func newVersion(e *env) command { return &versionCommand{env: e} }

// ParseFlags takes no flag but --help.
func (c *versionCommand) ParseFlags(args []string) error {
	return parseFlags(c.env, newFlags("version", "Prints version, commit and Go version on one line."), args)
}

// Run prints one line.
func (c *versionCommand) Run(context.Context) error {
	_, err := fmt.Fprintf(c.env.stdout, "wxproxy %s (commit %s, %s)\n", version, commit, runtime.Version())
	return err
}

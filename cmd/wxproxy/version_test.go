package main

import (
	"regexp"
	"runtime"
	"runtime/debug"
	"testing"
)

func TestVersionLine(t *testing.T) {
	got := runArgs(t.Context(), "version")
	line := regexp.MustCompile(`^wxproxy [^ ]+ \(commit [^ ]+, ` + regexp.QuoteMeta(runtime.Version()) + `\)\n$`)
	if got.code != 0 || got.errors != "" || !line.MatchString(got.out) {
		t.Errorf("version: got %+v, want a line like %s", got, line)
	}
}

func TestIdentify(t *testing.T) {
	built := func(version string, settings ...string) *debug.BuildInfo {
		info := &debug.BuildInfo{Main: debug.Module{Version: version}}
		for i := 0; i < len(settings); i += 2 {
			info.Settings = append(info.Settings, debug.BuildSetting{Key: settings[i], Value: settings[i+1]})
		}
		return info
	}
	const rev = "0123456789abcdef0123456789abcdef01234567"
	for name, c := range map[string]struct {
		version, commit         string
		info                    *debug.BuildInfo
		wantVersion, wantCommit string
	}{
		"nothing known":       {"", "", nil, "unknown", "unknown"},
		"built from a folder": {"", "", built("(devel)"), "unknown", "unknown"},
		"go install":          {"", "", built("v1.2.3"), "v1.2.3", "unknown"},
		"built in a repository": {"", "", built("v1.2.3", "vcs", "git", "vcs.revision", rev, "vcs.modified",
			"false"), "v1.2.3", "0123456789ab"},
		"with changes": {"", "", built("(devel)", "vcs.modified", "true", "vcs.revision", rev), "unknown",
			"0123456789ab-dirty"},
		"a short revision": {"", "", built("", "vcs.revision", "abc"), "unknown", "abc"},
		"the linker comes first": {"v9", "fff", built("v1.2.3", "vcs.revision", rev, "vcs.modified", "true"),
			"v9", "fff"},
		"the linker knows half": {"v9", "", built("v1.2.3", "vcs.revision", rev), "v9", "0123456789ab"},
	} {
		if v, r := identify(c.version, c.commit, c.info); v != c.wantVersion || r != c.wantCommit {
			t.Errorf("identify, %s: got %s, %s, want %s, %s", name, v, r, c.wantVersion, c.wantCommit)
		}
	}
}

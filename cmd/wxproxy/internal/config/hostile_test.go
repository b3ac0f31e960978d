package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// parseText parses with a fixed environment and without a file system.
func parseText(text string) (Config, []Warning, error) {
	return parse("f", []byte(text), sources{
		getenv:   lookUp(map[string]string{"SECRET": marker, "EMPTY": "", "NUL": "\x00", "BINARY": "\xff"}),
		readFile: func(path string) ([]byte, error) { return []byte(" " + marker + path + "\n"), nil },
	})
}

func TestHostileConfig(t *testing.T) {
	f := func(name, text, want string) {
		t.Helper()
		_, _, err := parseText(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %.300s, want %q in it", name, fmt.Sprint(err), want)
		}
	}
	const n = 100_000
	f("nothing", "", "component.appid: is empty")
	f("NUL", "\x00", "f:1:1: ")
	f("no text", "\xff\xfe[\x00l\x00o\x00g\x00]\x00", "f:1:1: ")
	f("deep lists", "a = "+strings.Repeat("[", n), "nested")
	f("deep lists, closed", "a = "+strings.Repeat("[", 5000)+strings.Repeat("]", 5000), "a: there is no such key")
	f("deep tables", "a"+strings.Repeat(".a", n)+" = 1", "a: there is no such key")
	f("deep below a known key", "log.level"+strings.Repeat(".a", n)+" = 1", "log.level: is a table")
	f("a long line", "a = \""+strings.Repeat("x", n), "f:1:")
	f("a long value", "log.level = \""+strings.Repeat("x", n)+"\"", `log.level: is "xxx`)
	f("many blocks", strings.Repeat("[[app]]\n", n/10), "app[10000].appid: is empty")
	f("many dollars", "log.level = \""+strings.Repeat("$", n)+"\"", "log.level: is")
	f("many of the same unset variable", "log.level = \""+strings.Repeat("${UNSET}", n/10)+"\"", "UNSET is not set")
	f("a terminal's command", "\"\\u001b]0;x\\u0007\" = 1", `"?]0;x?": there is no such key`)
	f("a variable with NUL", `admin.key = "${NUL}"`, "admin.key: the value of its ${…} contains a line break")
	f("a file with NUL in its name", "admin.key = \"${file:a\\u0000b}\"", "admin.key: ")
}

// A large file that is named many times must not fill the memory.
func TestExpansionIsLimited(t *testing.T) {
	large := []byte(strings.Repeat("x", fileLimit))
	text := "callback.return_to = [" + strings.Repeat(`"${file:x}",`, 100) + "]"
	_, _, err := parse("f", []byte(text), sources{readFile: func(string) ([]byte, error) { return large, nil }})
	if err == nil || !strings.Contains(err.Error(),
		"callback.return_to[17]: variables and files have more than 16MiB in total") ||
		strings.Contains(err.Error(), "callback.return_to[16]: variables") {
		t.Errorf("parse: got %.500s, want a fault from the 17th value on", fmt.Sprint(err))
	}
}

func TestReadFileLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	f := func(n int, want error) {
		t.Helper()
		if err := os.WriteFile(path, make([]byte, n), 0o600); err != nil {
			t.Fatal(err)
		}
		if b, err := ReadFile(path); !errors.Is(err, want) || err == nil && len(b) != n {
			t.Errorf("ReadFile of %d bytes: got %d bytes, %v, want %v", n, len(b), err, want)
		}
	}
	f(0, nil)
	f(fileLimit, nil)
	f(fileLimit+1, errFileTooLarge)
	if _, err := ReadFile(os.DevNull); !errors.Is(err, errNoFile) {
		t.Errorf("ReadFile(%q): got %v, want %v", os.DevNull, err, errNoFile)
	}
}

// FuzzConfig checks that parse never panics. Errors start each line with the
// file, are printable text, and contain no value of a variable or file. A
// configuration that is accepted passes the validation again.
func FuzzConfig(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.toml")
	for _, file := range append(files, filepath.Join("..", "..", "..", "..", "config.example.toml")) {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(strings.ReplaceAll(string(text), marker, "other"))
	}
	f.Add(`log = {level = "${SECRET}", format = "$${SECRET}"}`)
	f.Add("a.b.c = [[1], {}]\r\n[log]\nlevel = '''\n'''")
	f.Fuzz(func(t *testing.T, text string) {
		// The TOML library needs time by the square of the number of tables.
		if len(text) > 1<<12 || strings.Contains(text, marker) {
			return
		}
		cfg, warnings, err := parseText(text)
		for _, w := range warnings {
			if strings.Contains(w.String(), marker) {
				t.Errorf("warning with a secret: %s", w)
			}
		}
		if err == nil {
			if faults, _ := validate(&decoded{cfg: cfg},
				func(string) ([]byte, error) { return nil, errNoFile }); len(faults) > 0 &&
				cfg.Proxy.UpstreamCAFile+cfg.Proxy.TLSCertFile == "" {
				t.Errorf("accepted, but a second validation has the faults %v", faults)
			}
			return
		}
		for line := range strings.SplitSeq(err.Error(), "\n") {
			switch {
			case !strings.HasPrefix(line, "f:"), strings.Contains(line, marker), !utf8.ValidString(line):
				t.Errorf("error line %q: want the file first, valid UTF-8 and no secret", line)
			case strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f }):
				t.Errorf("error line with control characters: %q", line)
			}
		}
	})
}

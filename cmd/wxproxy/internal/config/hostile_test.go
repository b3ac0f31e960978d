package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
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
	f("deep lists, closed", "a = "+strings.Repeat("[", 5000)+strings.Repeat("]", 5000),
		"f: line 1: there is no such key")
	f("deep tables", "a"+strings.Repeat(".a", n)+" = 1", "f: line 1: there is no such key")
	f("deep below a known key", "log.level"+strings.Repeat(".a", n)+" = 1", "log.level: is a table")
	f("a long line", "a = \""+strings.Repeat("x", n), "f:1:")
	f("a long value", "log.level = \""+strings.Repeat("x", n)+"\"", `log.level: is none of`)
	f("many blocks", strings.Repeat("[[app]]\n", n/10), "app[10000].appid: is empty")
	f("many dollars", "log.level = \""+strings.Repeat("$", n)+"\"", "log.level: is")
	f("many of the same unset variable", "log.level = \""+strings.Repeat("${UNSET}", n/10)+"\"", "UNSET is not set")
	f("many unknown keys", manyKeys(n/10), "line 10000: there is no such key")
	f("a terminal's command", "\"\\u001b]0;x\\u0007\" = 1", `f: line 1: there is no such key`)
	f("a terminal's command in a similar name", "\"lo\\u001bg\" = 1",
		`f: line 1: there is no such key; did you mean log?`)
	f("a variable with NUL", `admin.key = "${NUL}"`, "admin.key: the value of its ${…} contains a line break")
	f("a file with NUL in its name", "admin.key = \"${file:a\\u0000b}\"", "admin.key: ")
}

// manyKeys returns n lines with unknown keys.
func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "k%d = 1\n", i)
	}
	return b.String()
}

// misplaced are texts that a secret can look like. All of them are unquoted
// keys of TOML, too. The last one is also a number.
var misplaced = []string{
	"wxk_Misplaced0123456789", "hunterhunterhunterhunter", "C0FFEE0123456789ABCDEF",
	"918273645546372819",
}

// misplacedForms returns the places in which a secret can end up, as texts with
// KEY for the name of a key without its table, and S for the secret.
func misplacedForms(t *testing.T) (forms []string) {
	t.Helper()
	text, err := os.ReadFile("testdata/misplaced.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		line = strings.NewReplacer("¶", "\n", "␀", "\x00").Replace(strings.TrimSuffix(line, "\n"))
		if !strings.HasPrefix(line, "#") {
			forms = append(forms, line)
		}
	}
	return forms
}

// TestMisplacedSecretsAreNotPrinted checks that no fault and no warning
// contains what may be a secret in the wrong place: every key × every form in
// testdata/misplaced.txt × four texts that a secret can look like, and the
// value of a ${…}.
func TestMisplacedSecretsAreNotPrinted(t *testing.T) {
	forms, cases := misplacedForms(t), 0
	secretMark := regexp.MustCompile(`\bS|S\b`)
	for _, key := range keysOf("", reflect.TypeFor[Config]()) {
		table, name, _ := strings.Cut(key, ".")
		head := "[" + table + "]\n"
		if slices.Contains([]string{"caller", "app", "route", "forward"}, table) {
			head = "[[" + table + "]]\n"
		}
		for _, form := range forms {
			for _, secret := range misplaced {
				text := head + strings.ReplaceAll(form, "KEY", name)
				text = strings.ReplaceAll(text, "${SECRET}", "\x01")
				text = secretMark.ReplaceAllLiteralString(text, secret)
				text = strings.ReplaceAll(text, "\x01", "${SECRET}")
				_, warnings, err := parseText(text)
				printed := fmt.Sprint(err)
				for _, w := range warnings {
					printed += "\n" + w.String()
				}
				if strings.Contains(strings.ToLower(printed), strings.ToLower(secret)) ||
					strings.Contains(printed, marker) {
					t.Errorf("%q: got %s, want no secret", text, printed)
				}
				cases++
			}
		}
	}
	t.Logf("%d configurations", cases)
}

// TestUnknownKeysHaveLines checks that the line of an unknown key is right,
// wherever the key is.
func TestUnknownKeysHaveLines(t *testing.T) {
	const text = `x1 = 1
log = { x2 = 2, level = "info" }
"x 3".y = 3

[proxy]
x5 = """

"""
x8.y = 8
[proxy.x9]
[[app]]
x11 = 11
[[app]]
x13 = { x = 1 }
[app.x14]
[["x15"]]
[x16.y]
`
	_, _, err := parseText(text)
	for _, want := range []string{
		"f: line 1: ", "f: log, line 2: ", "f: line 3: ", "f: proxy, line 6: ",
		"f: proxy, line 9: ", "f: proxy, line 10: ", "f: app[1], line 12: ",
		"f: app[2], line 14: ", "f: app[2], line 15: ", "f: line 16: ", "f: line 17: ",
	} {
		if strings.Count(fmt.Sprint(err)+"\n", want+"there is no such key; remove it") != 1 {
			t.Errorf("got\n%v\nwant one line %q", err, want)
		}
	}
	text2 := `forward = [{}, { url = "http://a/", x = 1 },
{ x = 2 }]`
	_, _, err = parseText(text2)
	for _, want := range []string{"f: forward[2], line 1: ", "f: forward[3], line 2: "} {
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("got\n%v\nwant a line %q", err, want)
		}
	}
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

package config

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func example(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "config.example.toml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// uncommented removes the "# " from the commented blocks of the example, which
// are the lines that are TOML without it.
func uncommented(text string) string {
	return regexp.MustCompile(`(?m)^# (\[\[|[a-z0-9_]+ = )`).ReplaceAllString(text, "$1")
}

func TestExampleEqualsDefaults(t *testing.T) {
	tree, err := readTOML([]byte(example(t)))
	if err != nil {
		t.Fatal(err)
	}
	d := decode(tree, sources{getenv: lookUp(nil), readFile: ReadFile}, nil)
	if len(d.faults) > 0 {
		t.Fatalf("decoding config.example.toml: got faults %v, want none", d.faults)
	}
	got, want := d.cfg, Default()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("config.example.toml: got\n%+v\nwant the defaults\n%+v", got, want)
	}
}

// An unchanged copy is rejected with the one fault that says what to do first.
func TestUnchangedExampleIsRejected(t *testing.T) {
	_, _, err := Load(filepath.Join("..", "..", "..", "..", "config.example.toml"), lookUp(nil))
	if err == nil || strings.Contains(err.Error(), "\n") ||
		!strings.Contains(err.Error(), "component.appid: is empty; no account is configured") {
		t.Errorf("Load(config.example.toml): got %v, want one fault of component.appid", err)
	}
}

func TestExampleHasEveryKey(t *testing.T) {
	tree, err := readTOML([]byte(uncommented(example(t))))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for table, v := range tree {
		if blocks, ok := v.([]any); ok {
			v = blocks[0]
		}
		for key := range v.(map[string]any) {
			found = append(found, table+"."+key)
		}
	}
	want := keysOf("", reflect.TypeFor[Config]())
	slices.Sort(found)
	slices.Sort(want)
	if !slices.Equal(found, want) {
		t.Errorf("keys of config.example.toml: got\n%v\nwant\n%v", found, want)
	}
}

// The commented blocks are valid without their comment signs, and their values
// are the defaults.
func TestUncommentedExampleBlocks(t *testing.T) {
	text := uncommented(example(t))
	digest := strings.Repeat("0f", 32)
	cfg, warnings, err := parse("example", []byte(text),
		sources{getenv: lookUp(map[string]string{"SHOP_APPSECRET": marker, "ORDERS_KEY_SHA256": digest}),
			readFile: ReadFile})
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	if len(cfg.Apps) != 1 || cfg.Apps[0].AppSecret.Reveal() != marker {
		t.Errorf("apps: got %+v", cfg.Apps)
	}
	var caller Caller
	caller.setDefaults()
	caller.Name, caller.KeySHA256 = "orders", OneOrMore{digest}
	if len(cfg.Callers) != 1 || !reflect.DeepEqual(cfg.Callers[0], caller) {
		t.Errorf("callers: got %+v, want the defaults %+v", cfg.Callers, caller)
	}
	var r Route
	r.setDefaults()
	r.Path = "/cgi-bin/new/*"
	if !slices.Equal(cfg.Routes, []Route{r}) {
		t.Errorf("routes: got %+v, want the defaults %+v", cfg.Routes, r)
	}
	var f Forward
	f.setDefaults()
	f.URL = "http://orders.internal/wechat"
	if len(cfg.Forwards) != 1 || !reflect.DeepEqual(cfg.Forwards[0], f) {
		t.Errorf("forwards: got %+v, want the defaults %+v", cfg.Forwards, f)
	}
}

func TestExampleExplainsEveryKey(t *testing.T) {
	key := regexp.MustCompile(`^(# )?[a-z0-9_]+ = `)
	previous := ""
	for line := range strings.Lines(example(t)) {
		isComment := strings.HasPrefix(previous, "# ") && len(previous) > len("# 0123456789")
		if key.MatchString(line) && (!isComment || key.MatchString(previous)) {
			t.Errorf("config.example.toml: got %q before %q, want a comment before every key", previous, line)
		}
		previous = line
	}
}

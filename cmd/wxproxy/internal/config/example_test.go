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

// uncommented turns the commented blocks of the example into blocks: they are the lines that would
// mean something without their "# ".
func uncommented(text string) string {
	return regexp.MustCompile(`(?m)^# (\[\[|[a-z0-9_]+ = )`).ReplaceAllString(text, "$1")
}

// decoding reads a text whose sense is not of interest.
func decoding(t *testing.T, text string, vars map[string]string) *decoded {
	t.Helper()
	tree, err := readTOML([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return decode(tree, sources{getenv: lookUp(vars), readFile: ReadFile})
}

func TestExampleIsTheDefaults(t *testing.T) {
	d := decoding(t, example(t), nil)
	if len(d.faults) > 0 {
		t.Fatal(d.faults)
	}
	got, want := d.cfg, Default()
	// An empty list in the file is as good as none.
	if got.Callback.ReturnTo != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("the example says\n%+v\nthe defaults are\n%+v", got, want)
	}
}

// Untouched, it is refused with the one sentence that says what to do first.
func TestExampleAsItIs(t *testing.T) {
	_, _, err := Load(filepath.Join("..", "..", "..", "..", "config.example.toml"), lookUp(nil))
	if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "component.appid: is empty; nothing is configured") {
		t.Errorf("%v", err)
	}
}

func TestExampleHasEveryKey(t *testing.T) {
	tree, err := readTOML([]byte(uncommented(example(t))))
	if err != nil {
		t.Fatal(err)
	}
	var there []string
	for table, v := range tree {
		if blocks, ok := v.([]any); ok {
			v = blocks[0]
		}
		for key := range v.(map[string]any) {
			there = append(there, table+"."+key)
		}
	}
	want := keysOf("", reflect.TypeFor[Config]())
	slices.Sort(there)
	slices.Sort(want)
	if !slices.Equal(there, want) {
		t.Errorf("the example has\n%v\nthe program knows\n%v", there, want)
	}
}

// The commented blocks work when somebody takes the # away, and their keys are the defaults.
func TestExampleBlocks(t *testing.T) {
	text := uncommented(example(t))
	digest := strings.Repeat("0f", 32)
	cfg, warnings, err := parse("example", []byte(text), sources{getenv: lookUp(map[string]string{"SHOP_APPSECRET": marker, "ORDERS_KEY_SHA256": digest}), readFile: ReadFile})
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	if len(cfg.Apps) != 1 || cfg.Apps[0].AppSecret.Reveal() != marker {
		t.Errorf("%+v", cfg.Apps)
	}
	var caller Caller
	caller.setDefaults()
	caller.Name, caller.KeySHA256 = "orders", digest
	if len(cfg.Callers) != 1 || !reflect.DeepEqual(cfg.Callers[0], caller) {
		t.Errorf("%+v, the defaults are %+v", cfg.Callers, caller)
	}
	var r Route
	r.setDefaults()
	r.Path = "/cgi-bin/new/*"
	if !slices.Equal(cfg.Routes, []Route{r}) {
		t.Errorf("%+v, the defaults are %+v", cfg.Routes, r)
	}
	var f Forward
	f.setDefaults()
	f.URL = "http://orders.internal/wechat"
	if len(cfg.Forwards) != 1 || !reflect.DeepEqual(cfg.Forwards[0], f) {
		t.Errorf("%+v, the defaults are %+v", cfg.Forwards, f)
	}
}

func TestExampleExplainsEveryKey(t *testing.T) {
	key := regexp.MustCompile(`^(# )?[a-z0-9_]+ = `)
	for line := range strings.Lines(example(t)) {
		if !key.MatchString(line) {
			continue
		}
		// appid, appsecret and the listeners are explained by what stands above their block.
		_, comment, found := strings.Cut(strings.TrimPrefix(line, "# "), "#")
		name, _, _ := strings.Cut(strings.TrimPrefix(line, "# "), " ")
		if !slices.Contains([]string{"appid", "appsecret", "listen"}, name) && (!found || len(strings.TrimSpace(comment)) < 10) {
			t.Errorf("not explained: %s", line)
		}
	}
}

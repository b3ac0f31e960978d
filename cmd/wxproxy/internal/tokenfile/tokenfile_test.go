package tokenfile_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"wxproxy/cmd/wxproxy/internal/tokenfile"
)

// read returns what Read passes to its handler, one line for each call.
func read(text string) (calls []string, err error) {
	err = tokenfile.Read(strings.NewReader(text), tokenfile.Handler{
		Entry: func(line int, appid, refresh string) error {
			calls = append(calls, fmt.Sprintf("%d entry %s %s", line, appid, refresh))
			return nil
		},
		Fault: func(line int, problem string) {
			calls = append(calls, fmt.Sprintf("%d fault %s", line, problem))
		},
	})
	return calls, err
}

func TestRead(t *testing.T) {
	const noColumns = "not the columns appid and refresh_token, separated by a comma"
	for text, want := range map[string][]string{
		"":                             nil,
		"\n \t\r\n":                    nil,
		"a,b":                          {"1 entry a b"},
		"\ufeffa,b\r\n\r\nc, d\r\n":    {"1 entry a b", "3 entry c d"},
		"\n\nappid,refresh_token\na,b": {"4 entry a b"},
		"x,REFRESH_TOKEN,y,AppID\n1,b,2,a\n3": {
			"2 entry a b", "3 fault " + noColumns,
		},
		"a,b,c\n\"d\ne\",f\n": {"1 fault " + noColumns, "2 entry d\ne f"},
		"a\"b,c\nd,e\n":       {"1 fault the quotes do not match", "2 entry d e"},
		`{"appid":"a","refresh_token":"b"}` + "\n\n" + `{"appid":"c"}`: {
			"1 entry a b", `3 fault not of the form {"appid":"wx…","refresh_token":"…"}`,
		},
	} {
		if got, err := read(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("Read(%q): got %q, %v, want %q", text, got, err, want)
		}
	}
}

func TestReadStopsWithError(t *testing.T) {
	stop := errors.New("stop")
	for _, text := range []string{"a,b\nc,d\n", "{\"appid\":\"a\",\"refresh_token\":\"b\"}\n{}\n"} {
		calls := 0
		err := tokenfile.Read(strings.NewReader(text), tokenfile.Handler{
			Entry: func(int, string, string) error { calls++; return stop },
			Fault: func(int, string) { calls++ },
		})
		if err != stop || calls != 1 {
			t.Errorf("Read(%q): got %v after %d calls, want the error of the first entry", text, err, calls)
		}
	}
}

// FuzzRead checks that lines are counted upwards and lie within the file, and
// that no fault quotes the file.
func FuzzRead(f *testing.F) {
	for _, text := range []string{
		"a,b\n\"c", "appid,refresh_token\n1,2\n", "{\"appid\":\"a\",\"refresh_token\":\"b\"}\n{", "[", "\"\n\",,\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		lines := 1 + strings.Count(text, "\n")
		check := func(line int) {
			if line < 1 || line > lines {
				t.Errorf("Read(%q): got line %d, want one from 1 to %d", text, line, lines)
			}
		}
		known := []string{
			"the quotes do not match", "not the columns appid and refresh_token, separated by a comma",
			`not of the form {"appid":"wx…","refresh_token":"…"}`,
		}
		_ = tokenfile.Read(strings.NewReader(text), tokenfile.Handler{
			Entry: func(line int, _, _ string) error { check(line); return nil },
			Fault: func(line int, problem string) {
				check(line)
				if !slices.Contains(known, problem) {
					t.Errorf("Read(%q): got the fault %q, want one of %q", text, problem, known)
				}
			},
		})
	})
}

package config

import (
	"errors"
	"slices"
	"testing"
)

func TestExpand(t *testing.T) {
	from := sources{
		getenv: lookUp(map[string]string{"A": "1", "LONG_name_2": "two", "EMPTY": "", "AGAIN": "${A}$${A}"}),
		readFile: func(path string) ([]byte, error) {
			switch path {
			case "/run/secret":
				return []byte("\n\t s3cr3t ${A} \r\n"), nil
			case "wide":
				return []byte("\u00a0x\u3000"), nil
			}
			return nil, errors.New("no such file or directory")
		},
	}
	f := func(in, want string, problems ...string) {
		t.Helper()
		x := &expander{sources: from, left: expansionLimit}
		got, gotProblems := x.expand(in)
		if got != want || !slices.Equal(gotProblems, problems) {
			t.Errorf("expand(%q): got %q, %q, want %q, %q", in, got, gotProblems, want, problems)
		}
	}
	f("", "")
	f("plain", "plain")
	f("${A}", "1")
	f("a${A}b${LONG_name_2}c", "a1btwoc")
	f("[${EMPTY}]", "[]")
	f("$A $ $$ {A} }", "$A $ $$ {A} }")
	f("$", "$")
	f("$${A}", "${A}")
	f("$${A}${A}$${", "${A}1${")
	f("$$${A}", "$${A}") // the escape is the last two dollars before the brace
	f("${A}$", "1$")
	f("${AGAIN}", "${A}$${A}") // values are not expanded again
	f("${file:/run/secret}", "s3cr3t ${A}")
	f("${file:wide}", "x")

	const form = "has something other than a name between ${ and }; write ${NAME}, ${file:PATH}, or $${ " +
		"for a literal ${"
	const noFile = "the file of its ${file:…} cannot be read: no such file or directory; " +
		"create it, or let wxproxy read it"
	const open = "has a ${ without }; close it, or write $${ for a literal ${"
	f("${}", "", form)
	f("${1A}", "", form)
	f("${A B}", "", form)
	f("${ A }", "", form)
	f("${A:-x}", "", form)
	f("${${A}}", "", form)
	f("${Ä}", "", form)
	f("${A", "", open)
	f("${A}${", "", open)
	f("${file:}", "", "has ${file:} without a path; write ${file:PATH}")
	f("${B}", "", "the environment variable B is not set; set it, or write $${ for a literal ${")
	f("${B}${A}${file:gone}", "", "the environment variable B is not set; set it, or write $${ for a literal ${",
		noFile)
	f("${file:${A}}", "", noFile)
	// A name that is not in capitals can be a secret.
	const unnamed = "the environment variable of its ${…} is not set; " +
		"set it, or write $${ for a literal ${"
	for _, name := range []string{"b", "Bc", "B1C", "A0B1C2D3", "hunter2", "B123"} {
		f("${"+name+"}", "", unnamed)
	}
	for _, name := range []string{"B_1", "ORDERS_KEY", "DB2_PASSWORD", "B_"} {
		f("${"+name+"}", "", "the environment variable "+name+" is not set; "+
			"set it, or write $${ for a literal ${")
	}
}

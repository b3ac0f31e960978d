package config

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// readTOML parses text into a tree of maps, lists and values. Its error starts
// with "LINE:COLUMN: " and contains no characters of a value.
func readTOML(text []byte) (map[string]any, error) {
	var tree map[string]any
	err := toml.Unmarshal(text, &tree)
	if err == nil {
		return tree, nil
	}
	var at *toml.DecodeError
	if !errors.As(err, &at) {
		return nil, errors.New("1:1: this is not TOML; compare it with config.example.toml")
	}
	line, column := at.Position()
	return nil, fmt.Errorf("%d:%d: %s; strings need quotes, and each key and each [table] "+
		"can appear only once", line, column, syntaxProblem(at))
}

// syntaxProblem returns what the TOML library reports, without anything from
// the file: a secret that was pasted without quotes must not show, not even
// one character of it.
func syntaxProblem(at *toml.DecodeError) string {
	problem := strings.TrimPrefix(at.Error(), "toml: ")
	problem = quotedCharacters.ReplaceAllString(problem, "")
	// Package strconv quotes numbers that it cannot parse, and a secret may
	// start with a digit.
	problem, _, _ = strings.Cut(problem, ": strconv.")
	for _, kind := range []string{"key ", "table "} {
		if name, isKind := strings.CutPrefix(problem, kind); isKind {
			// The name of a key can be anything, so all that remains is how
			// the sentence ends.
			for _, end := range repeatedKey {
				if strings.Contains(name, end) {
					return kind + end
				}
			}
			return kind + "is not valid"
		}
	}
	return problem
}

// quotedCharacters matches how the TOML library quotes a character that it did
// not expect.
var quotedCharacters = regexp.MustCompile(`(:| but got)? U\+[0-9A-F]{4,}( '.*')?`)

// repeatedKey is what the TOML library reports of a key or table that appears
// twice, after its name.
var repeatedKey = []string{
	"is already defined", "already exists as a value", "already exists as an array of tables",
	"already exists as defined by a dotted key", "already exists", "should be a table",
}

// keyLines returns the line of each key in text, which is valid TOML, by the
// path of the key as decoder composes it. It has keys up to the depth of
// configurations: of the file, and of tables and blocks.
func keyLines(text []byte) map[string]int {
	x := &lineIndex{lines: map[string]int{}, blocks: map[string]int{}, line: 1}
	x.parser.Reset(text)
	table := ""
	for x.parser.NextExpression() {
		switch e := x.parser.Expression(); e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = x.add("", e.Key(), e.Kind == unstable.ArrayTable)
		case unstable.KeyValue:
			x.keyValue(table, e)
		}
	}
	return x.lines
}

// lineIndex collects the lines of keys.
type lineIndex struct {
	parser unstable.Parser
	lines  map[string]int
	blocks map[string]int // number of [[blocks]] so far, by path

	counted uint32 // the offset up to which line was counted
	line    int
}

// keyDepth is how many names the path of a key has at most.
const keyDepth = 2

// add records the names of a key below the path of its table, and returns the
// path of the key. isBlock means that the key is in double brackets.
func (x *lineIndex) add(path string, names unstable.Iterator, isBlock bool) string {
	depth := 0
	if path != "" {
		depth = 1 + strings.Count(path, ".")
	}
	for names.Next() && depth < keyDepth {
		depth++
		name := names.Node()
		path = join(path, string(name.Data))
		if _, found := x.lines[path]; !found {
			x.lines[path] = x.lineAt(name.Raw.Offset)
		}
		if isBlock && names.IsLast() {
			x.blocks[path]++
		}
		if n := x.blocks[path]; n > 0 {
			path = fmt.Sprintf("%s[%d]", path, n)
		}
	}
	return path
}

// keyValue records a key, and the keys of the inline tables in its value.
func (x *lineIndex) keyValue(table string, e *unstable.Node) {
	path := x.add(table, e.Key(), false)
	if strings.Contains(path, ".") {
		return // no key is deeper
	}
	switch value := e.Value(); value.Kind {
	case unstable.InlineTable:
		for pairs := value.Children(); pairs.Next(); {
			x.keyValue(path, pairs.Node())
		}
	case unstable.Array:
		n := 0
		for items := value.Children(); items.Next(); {
			n++
			if items.Node().Kind != unstable.InlineTable {
				continue
			}
			for pairs := items.Node().Children(); pairs.Next(); {
				x.keyValue(fmt.Sprintf("%s[%d]", path, n), pairs.Node())
			}
		}
	}
}

// lineAt returns the line of an offset. Offsets mostly increase, so that the
// text is read once.
func (x *lineIndex) lineAt(offset uint32) int {
	if offset >= x.counted {
		x.line += bytes.Count(x.parser.Data()[x.counted:offset], []byte("\n"))
		x.counted = offset
		return x.line
	}
	return x.line - bytes.Count(x.parser.Data()[offset:x.counted], []byte("\n"))
}

package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/pelletier/go-toml/v2"
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
	problem := strings.TrimPrefix(at.Error(), "toml: ")
	// A secret that was pasted without quotes must not show, not even one
	// character of it.
	problem = quotedCharacters.ReplaceAllString(problem, "")
	// Package strconv quotes numbers that it cannot parse, and a secret may
	// start with a digit.
	problem, _, _ = strings.Cut(problem, ": strconv.")
	// A key in quotes can contain control characters.
	if key := at.Key(); len(key) > 0 {
		problem = strings.Replace(problem, key[len(key)-1], quoted(key[len(key)-1]), 1)
	}
	return nil, fmt.Errorf("%d:%d: %s; strings need quotes, and each key and each [table] can appear only once",
		line, column, problem)
}

// quotedCharacters matches how the TOML library quotes a character that it did
// not expect.
var quotedCharacters = regexp.MustCompile(`(:| but got)? U\+[0-9A-F]{4,}( '.*')?`)

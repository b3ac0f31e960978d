package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// readTOML reads the text into a tree of maps, lists and values. Its error is "LINE:COLUMN: sentence".
func readTOML(text []byte) (map[string]any, error) {
	var tree map[string]any
	err := toml.Unmarshal(text, &tree)
	if err == nil {
		return tree, nil
	}
	var at *toml.DecodeError
	if !errors.As(err, &at) {
		return nil, errors.New("1:1: this is no TOML; compare it with config.example.toml")
	}
	line, column := at.Position()
	problem := strings.TrimPrefix(at.Error(), "toml: ")
	// A secret that was pasted without quotes must not be shown, not even a character of it.
	problem = characters.ReplaceAllString(problem, "")
	// Package strconv quotes numbers that it cannot read, and a secret may begin with a digit.
	problem, _, _ = strings.Cut(problem, ": strconv.")
	// Keys may hold anything when they stand in quotes.
	if key := at.Key(); len(key) > 0 {
		problem = strings.Replace(problem, key[len(key)-1], quoted(key[len(key)-1]), 1)
	}
	return nil, fmt.Errorf("%d:%d: %s; strings need quotes, and each key and each [table] may stand only once", line, column, problem)
}

// characters is how the TOML library quotes what it stumbled upon.
var characters = regexp.MustCompile(`(:| but got)? U\+[0-9A-F]{4,}( '.*')?`)

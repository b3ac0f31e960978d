package config

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// expander replaces ${NAME} by an environment variable and ${file:PATH} by the
// content of a file, without the white space around it. `$${` stands for a
// literal `${`. Values are not expanded again: a secret may contain any
// characters.
type expander struct {
	sources
	left int // bytes that values may still have in total
}

// expand returns s with all values inserted, or a list of problems. Problems
// name variables, but neither their values nor files.
func (x *expander) expand(s string) (string, []string) {
	if !strings.Contains(s, "${") {
		return s, nil
	}
	var out strings.Builder
	var problems []string // one for each place: two unset variables are two things to set
	for s != "" {
		dollar := strings.IndexByte(s, '$')
		if dollar < 0 {
			dollar = len(s)
		}
		out.WriteString(s[:dollar])
		s = s[dollar:]
		switch {
		case strings.HasPrefix(s, "$${"): // first, because the escape contains "${"
			out.WriteString("${")
			s = s[len("$${"):]
		case strings.HasPrefix(s, "${"):
			inside, rest, closed := strings.Cut(s[len("${"):], "}")
			if !closed {
				return "", append(problems, "has a ${ without }; close it, or write $${ for a literal ${")
			}
			s = rest
			value, problem := x.lookUp(inside)
			if problem == "" {
				problem = x.spend(value)
			}
			if problem != "" {
				problems = append(problems, problem)
				continue
			}
			out.WriteString(value)
		case s != "": // a plain dollar, which many passwords contain
			out.WriteByte('$')
			s = s[1:]
		}
	}
	if problems != nil {
		return "", problems // half a value would be a wrong one
	}
	return out.String(), nil
}

// lookUp returns the value for the text between the braces.
func (x *expander) lookUp(inside string) (value, problem string) {
	if path, isFile := strings.CutPrefix(inside, "file:"); isFile {
		if path == "" {
			return "", "has ${file:} without a path; write ${file:PATH}"
		}
		b, err := x.readFile(path)
		if err != nil {
			return "", fmt.Sprintf("the file of its ${file:…} cannot be read: %v; "+
				"create it, or let wxproxy read it", err)
		}
		// Editors and echo end files with a line break, which is not part of
		// the secret.
		return strings.TrimSpace(string(b)), ""
	}
	if !isVariable(inside) {
		return "", "has something other than a name between ${ and }; " +
			"write ${NAME}, ${file:PATH}, or $${ for a literal ${"
	}
	// An empty variable is a value: the validation decides whether a key may be
	// empty.
	value, set := x.getenv(inside)
	if !set {
		name := "of its ${…}"
		if conventionalName.MatchString(inside) {
			name = inside
		}
		return "", fmt.Sprintf("the environment variable %s is not set; "+
			"set it, or write $${ for a literal ${", name)
	}
	return value, ""
}

// spend counts the size of value, and rejects values that are not a single line
// of text, as all values of a configuration are.
func (x *expander) spend(value string) (problem string) {
	if x.left -= len(value); x.left < 0 {
		return fmt.Sprintf("variables and files have more than %v in total; use smaller ones", Size(expansionLimit))
	}
	if p := textProblem(value); p != "" {
		return "the value of its ${…} " + p
	}
	return ""
}

// textProblem returns why s is not a single line of text, or "" if it is.
func textProblem(s string) string {
	if !utf8.ValidString(s) {
		return "is not UTF-8; write plain text"
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "contains a line break or another control character; write one line of plain text"
	}
	return ""
}

// conventionalName matches the names of environment variables that faults
// print: words in capitals, as in ORDERS_KEY_2. Another text between ${ and }
// can be a secret.
var conventionalName = regexp.MustCompile(`^[A-Z]+[0-9]{0,2}(_[A-Z]*[0-9]{0,2})*$`)

// isVariable reports whether s is a name of an environment variable in POSIX.
func isVariable(s string) bool {
	for i := range len(s) {
		switch ch := s[i]; {
		case ch >= 'A' && ch <= 'Z', ch >= 'a' && ch <= 'z', ch == '_', i > 0 && ch >= '0' && ch <= '9':
		default:
			return false
		}
	}
	return s != ""
}

package config

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"wxproxy/wechat"
)

// expander replaces ${NAME} by an environment variable and ${file:PATH} by a file's content,
// trimmed. `$${` stands for a literal `${`. What was put in is not looked at again: a secret
// may hold any character.
type expander struct {
	sources
	left int // bytes that may still be put in
}

// expand returns s with everything put in, or a sentence that says what cannot be, for each
// such place. The sentences name variables and files, never what is in them.
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
		// Before the next case: the escape holds what it escapes.
		case strings.HasPrefix(s, "$${"):
			out.WriteString("${")
			s = s[len("$${"):]
		case strings.HasPrefix(s, "${"):
			inside, rest, closed := strings.Cut(s[len("${"):], "}")
			if !closed {
				return "", append(problems, "has a ${ without }; close it, or write $${ for the two characters themselves")
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
		case s != "": // a dollar that means itself, as in most passwords
			out.WriteByte('$')
			s = s[1:]
		}
	}
	if problems != nil {
		return "", problems // half a value would be a wrong one
	}
	return out.String(), nil
}

// lookUp finds what stands for the text between the braces.
func (x *expander) lookUp(inside string) (value, problem string) {
	if path, isFile := strings.CutPrefix(inside, "file:"); isFile {
		if path == "" {
			return "", "has ${file:} without a path; write ${file:PATH}"
		}
		b, err := x.readFile(path)
		if err != nil {
			return "", fmt.Sprintf("the file %s cannot be read: %v; make it, and readable for wxproxy", quoted(path), err)
		}
		// Editors and echo end files with a line break, which belongs to no secret.
		return strings.TrimSpace(string(b)), ""
	}
	if !isVariable(inside) {
		return "", "has something else than a name between ${ and }; write ${NAME}, ${file:PATH}, or $${ for the two characters themselves"
	}
	// Set and empty is a value: whether a key may be empty is for the checks.
	value, set := x.getenv(inside)
	if !set {
		return "", fmt.Sprintf("the environment variable %s is not set; set it, or write $${ for a literal ${", wechat.Sanitize(inside, maxQuoted))
	}
	return value, ""
}

// spend counts what is put in, and refuses what nobody would put into a configuration: all
// of its values are single lines of text.
func (x *expander) spend(value string) (problem string) {
	if x.left -= len(value); x.left < 0 {
		return fmt.Sprintf("variables and files amount to more than %v in all; name smaller ones", Size(expansionLimit))
	}
	if p := notText(value); p != "" {
		return "what its ${…} stands for " + p
	}
	return ""
}

// notText says what keeps s from being one line of text, "" where nothing does.
func notText(s string) string {
	if !utf8.ValidString(s) {
		return "is not UTF-8; write plain text"
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "holds a line break or another control character; write one line of plain text"
	}
	return ""
}

// isVariable tells names of environment variables from everything else, as POSIX writes them.
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

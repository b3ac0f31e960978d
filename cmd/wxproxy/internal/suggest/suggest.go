package suggest

import (
	"strings"
)

// Nearest finds the name that somebody meant who wrote s, "" where none is near.
func Nearest(s string, names []string) string {
	// Beyond that nobody has mistyped a name of ours, and comparing would take long.
	const longest = 40
	if s == "" || len(s) > longest {
		return ""
	}
	best, near := "", 1+max(1, min(3, (len(s)+1)/3)) // one slip in a short word, three in a long one
	for _, name := range names {
		d := distance(s, name)
		// secret for appsecret, upstream_ca for upstream_ca_file
		if len(s) > 3 && (strings.HasPrefix(name, s) || strings.HasSuffix(name, s)) {
			d = 1
		}
		if d < near {
			best, near = name, d
		}
	}
	return best
}

// distance counts the letters to insert, delete or replace that make b of a (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

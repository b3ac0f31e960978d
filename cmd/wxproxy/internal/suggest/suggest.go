// Package suggest finds the name that was probably meant by a mistyped one.
package suggest

import "strings"

// maxLength is the longest name in bytes for which [Nearest] looks. All known
// names are shorter, and comparing long ones would take time.
const maxLength = 40

// Nearest returns the name in names that is most similar to s, or "" if none is
// similar enough.
func Nearest(s string, names []string) string {
	if s == "" || len(s) > maxLength {
		return ""
	}
	// One typing error is allowed in a short name, and up to three in a long
	// one.
	best, limit := "", 1+max(1, min(3, (len(s)+1)/3))
	for _, name := range names {
		d := distance(s, name)
		// "secret" for appsecret, "upstream_ca" for upstream_ca_file
		if len(s) > 3 && (strings.HasPrefix(name, s) || strings.HasSuffix(name, s)) {
			d = 1
		}
		if d < limit {
			best, limit = name, d
		}
	}
	return best
}

// distance returns the Levenshtein distance of a and b in bytes: how many
// insertions, deletions and replacements turn one into the other. row holds one
// row of the usual matrix at a time.
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

// Package proxy holds one fault of each kind that TestStyle counts.
package proxy

// This comment is a little longer than eighty columns, but not longer than one hundred.
type large struct{}

// This comment is longer than one hundred columns: a reader has to move the eyes back a long way to the next line.
func (large) one() string { return "nobody" } // who is behind a line of code counts as well

// Whoever reads this is counted. "Whole" and "whose" are not.
func (*large) two() string {
	return "this string makes its line longer than one hundred columns, yet not longer than 120" + "x"
}

func (small) three(a, b, c bool) int { // this line is far longer than one hundred and twenty columns, which is more than one screen
	switch {
	case a && b && c, a || b || c, a && b, b && c, a && c, a || b, b || c, a || c:
		return 1
	case a, b, c:
		return 2
	default:
		return 3
	}
}

type small struct{}

func (small) four(n int) int {
	for i := range n {
		if i > 1 && i < 7 || i > 9 && i < 11 || i > 13 && i < 17 || i > 19 && i < 23 {
			n += i
		}
		if i > 1 && i < 7 || i > 9 && i < 11 || i > 13 && i < 17 || i > 19 && i < 23 {
			n -= i
		}
	}
	if n < 0 || n > 50 || n == 7 {
		return 0
	}
	return n
}

const table = `
a raw string may be as wide as its rows have to be, because wrapping them would make the table impossible to read at all
`

package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/mattn/go-runewidth"

	"wxproxy/wechat"
)

// What people read: columns that line up, lengths of time in words.

const (
	maxPrinted = 1000 // characters of a value in a table
	maxQuoted  = 100  // characters of an argument in an error
)

// printable returns s as text that is safe to print to a terminal: account
// names are chosen by their owners.
func printable(s string) string { return wechat.Sanitize(s, maxPrinted) }

// quoted returns s in quotes, for errors that name an argument.
func quoted(s string) string { return strconv.Quote(wechat.Sanitize(s, maxQuoted)) }

// terminal measures text as terminals do: East Asian characters of ambiguous
// width take one column, whatever the locale of this process says.
var terminal = &runewidth.Condition{StrictEmojiNeutral: true}

// table prints rows in columns. What was printed cannot be moved any more: columns only ever grow.
type table struct {
	out    io.Writer
	widths []int
}

// print prints rows, which have the same number of cells each; the last cell may be as long as it is.
func (t *table) print(rows [][]string) error {
	for _, row := range rows {
		for i, cell := range row {
			if i >= len(t.widths) {
				t.widths = append(t.widths, 0)
			}
			t.widths[i] = max(t.widths[i], terminal.StringWidth(cell))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		line := ""
		for i, cell := range row {
			line += cell + strings.Repeat(" ", t.widths[i]-terminal.StringWidth(cell)+2)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := io.WriteString(t.out, b.String())
	return err
}

// span is a length of time in the two largest units that matter: 12s, 3m, 1h52m, 12d.
func span(d time.Duration) string {
	d = d.Abs()
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour && d%time.Hour < time.Minute:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

// until says when something ends, or for how long it has been over. nil: "-".
func until(seconds *int64) string {
	switch {
	case seconds == nil:
		return "-"
	case *seconds <= 0:
		return "over for " + span(time.Duration(*seconds)*time.Second)
	}
	return "in " + span(time.Duration(*seconds)*time.Second)
}

// ago says how long ago t was; zero: "-".
func ago(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return span(max(time.Since(t), 0)) + " ago"
}

// or is s, or what to write where there is nothing.
func or(s, nothing string) string {
	if s == "" {
		return nothing
	}
	return s
}

// Package table prints tables and times for people: columns that line up in a
// terminal, and lengths of time in words.
package table

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/mattn/go-runewidth"

	"wxproxy/wechat"
)

// maxPrinted is how many characters of a value are printed.
const maxPrinted = 1000

// Printable returns s as text that is safe to print to a terminal. Account
// names, for example, are chosen by the owners of the accounts.
func Printable(s string) string { return wechat.Sanitize(s, maxPrinted) }

// terminal measures text as most terminals do: East Asian characters of
// ambiguous width take one column, whatever the locale of this process is.
var terminal = &runewidth.Condition{StrictEmojiNeutral: true}

// Truncate shortens s to at most columns columns, with "…" at its end if
// something is missing.
func Truncate(s string, columns int) string { return terminal.Truncate(s, columns, "…") }

// Table prints rows in columns. Columns only get wider, because rows that were
// printed stay where they are. The zero value with Out set is an empty table.
// A Table is not safe for concurrent use.
type Table struct {
	Out    io.Writer
	widths []int // of the columns, in terminal columns
}

// Print prints rows, which must have the same number of cells each. Cells must
// be [Printable].
func (t *Table) Print(rows [][]string) error {
	for _, row := range rows {
		for i, cell := range row {
			if i >= len(t.widths) {
				t.widths = append(t.widths, 0)
			}
			t.widths[i] = max(t.widths[i], terminal.StringWidth(cell))
		}
	}
	const gap = 2 // spaces between columns
	var b strings.Builder
	for _, row := range rows {
		line := ""
		for i, cell := range row {
			line += cell + strings.Repeat(" ", t.widths[i]-terminal.StringWidth(cell)+gap)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := io.WriteString(t.Out, b.String())
	return err
}

// Span returns a length of time in its one or two largest units: 12s, 3m,
// 1h52m, 12d. The sign is dropped.
func Span(d time.Duration) string {
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

// Until returns when something expires, or how long ago it did. It returns "-"
// for nil.
func Until(seconds *int64) string {
	switch {
	case seconds == nil:
		return "-"
	case *seconds <= 0:
		return "expired " + Span(time.Duration(*seconds)*time.Second) + " ago"
	}
	return "in " + Span(time.Duration(*seconds)*time.Second)
}

// Ago returns how long ago t was, and "-" for the zero time. A time in the
// future counts as now: clocks differ.
func Ago(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return Span(max(time.Since(t), 0)) + " ago"
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"wxproxy/cmd/wxproxy/internal/table"
)

// listPage is how many items a list requests at a time: as many as there are in
// one response.
const listPage = 1000

// listing is one run of a command that lists what the admin listener returns in
// pages.
type listing struct {
	env   *env
	admin *adminClient
	// path of the API, and the member of its responses that has the items.
	// Messages call the items so, too.
	path, member string
	query        url.Values // selects items
	// limit is how many items are listed at most. 0 means all.
	limit int

	header []string
	row    func(item json.RawMessage) ([]string, error)
}

// addFlags adds --limit, with a default, and those of the client to cmd.
func (l *listing) addFlags(cmd *cobra.Command, limit int) {
	cmd.Flags().IntVar(&l.limit, "limit", limit, "list at most `N` "+l.member+"; 0 lists all")
	l.admin.addFlags(cmd)
}

// filter sets the query parameters that are not empty.
func (l *listing) filter(parameters map[string]string) {
	l.query = url.Values{}
	for name, value := range parameters {
		if value != "" {
			l.query.Set(name, value)
		}
	}
}

// prepareAndRun checks the flags of addFlags and prints the list.
func (l *listing) prepareAndRun(cmd *cobra.Command) error {
	if l.limit < 0 {
		return usagef(cmd, "--limit is negative")
	}
	if err := l.admin.prepare(cmd, l.env); err != nil {
		return err
	}
	return l.run(cmd.Context())
}

// run prints each page as soon as it arrives, so the number of items does not
// matter for memory or for the time until the first line.
func (l *listing) run(ctx context.Context) error {
	var printer listPrinter = &listTable{
		Table: table.Table{Out: l.env.stdout}, header: l.header, row: l.row, member: l.member,
	}
	if l.admin.json {
		printer = &listJSON{out: l.env.stdout, limit: l.limit, member: l.member}
	}
	printed := 0
	for {
		want := listPage
		if l.limit > 0 {
			want = min(want, l.limit-printed)
		}
		total, items, err := l.fetch(ctx, printed, want)
		if err != nil {
			return err
		}
		if err := printer.page(total, items); err != nil {
			return err
		}
		printed += len(items)
		// An empty page ends the loop, too: items may disappear meanwhile, and
		// total would never be reached.
		if len(items) > 0 && printed < total && (l.limit == 0 || printed < l.limit) {
			continue
		}
		if printed < total && l.limit > 0 {
			fmt.Fprintf(l.env.stderr, "wxproxy: %d of %d %s listed\n", printed, total, l.member)
		}
		return printer.end()
	}
}

// fetch requests up to limit items, starting with number offset. It also
// returns how many there are.
func (l *listing) fetch(ctx context.Context, offset, limit int) (int, []json.RawMessage, error) {
	l.query.Set("offset", strconv.Itoa(offset))
	l.query.Set("limit", strconv.Itoa(limit))
	var page map[string]json.RawMessage
	if _, err := l.admin.do(ctx, http.MethodGet, l.path, l.query, nil, &page); err != nil {
		return 0, nil, err
	}
	var total int
	var items []json.RawMessage
	// wxproxy sends [] if there are none. Other servers may respond with any
	// JSON.
	if json.Unmarshal(page["total"], &total) != nil ||
		json.Unmarshal(page[l.member], &items) != nil || items == nil {
		return 0, nil, l.admin.without(l.member)
	}
	return total, items, nil
}

// listPrinter prints pages of a list as they arrive.
type listPrinter interface {
	page(total int, items []json.RawMessage) error
	end() error
}

// listTable prints a list as a table, for people.
type listTable struct {
	table.Table
	header []string // nil: was printed
	row    func(json.RawMessage) ([]string, error)
	member string
}

// page prints a line for each item, after a header line on the first page.
func (t *listTable) page(_ int, items []json.RawMessage) error {
	var rows [][]string
	if t.header != nil {
		rows, t.header = append(rows, t.header), nil
	}
	for _, raw := range items {
		row, err := t.row(raw)
		if err != nil {
			return errors.New("the response describes " + t.member + " in an unknown form: " +
				"the running wxproxy may have another version")
		}
		rows = append(rows, row)
	}
	return t.Print(rows)
}

// end prints nothing: a table has no last line.
func (t *listTable) end() error { return nil }

// listJSON prints a list for scripts, as one JSON object in the form of a
// response of the admin listener to a request without a limit.
type listJSON struct {
	out      io.Writer
	limit    int
	member   string
	hasStart bool // the beginning of the object was printed
	hasItem  bool // at least one item was printed
}

// page prints the items, after the beginning of the object on the first page.
func (j *listJSON) page(total int, items []json.RawMessage) error {
	text := ""
	if !j.hasStart {
		limit := j.limit
		if limit == 0 {
			limit = total
		}
		text = fmt.Sprintf(`{"total":%d,"offset":0,"limit":%d,"%s":[`, total, limit, j.member)
		j.hasStart = true
	}
	for _, raw := range items {
		if j.hasItem {
			text += ","
		}
		text += "\n" + plainJSON(raw)
		j.hasItem = true
	}
	_, err := io.WriteString(j.out, text)
	return err
}

// end prints the end of the object.
func (j *listJSON) end() error {
	_, err := io.WriteString(j.out, "\n]}\n")
	return err
}

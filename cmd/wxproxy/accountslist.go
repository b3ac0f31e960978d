package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"wxproxy/cmd/wxproxy/internal/table"
	"wxproxy/tokens"
)

// listPage is how many accounts list requests at a time.
const listPage = 500

// accountsList is one run of `wxproxy accounts list`.
type accountsList struct {
	env   *env
	admin adminClient
	// query must be part of the appid or of the name. "" matches all accounts.
	query string
	// state is one of [tokens.States], or "" for all.
	state string
	// limit is how many accounts are listed at most. 0 means all.
	limit int
}

// newAccountsList returns `wxproxy accounts list`.
func newAccountsList(e *env) *cobra.Command {
	c := &accountsList{env: e}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List accounts, or those with a state or a text in their name",
		Long: `List the accounts in the order of their appids. The column EXPIRES says when
the token expires. wxproxy then fetches a new one with the next request.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if c.limit < 0 {
				return usagef(cmd, "--limit is negative")
			}
			if c.state != "" && !slices.Contains(tokens.States(), tokens.State(c.state)) {
				return usagef(cmd, "--state is not active, failing, revoked or forgotten")
			}
			if err := c.admin.prepare(cmd, e); err != nil {
				return err
			}
			return c.run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&c.query, "q", "", "list only accounts whose appid or name contains `TEXT`")
	cmd.Flags().StringVar(&c.state, "state", "",
		"list only accounts in `STATE`: active, failing, revoked or forgotten")
	cmd.Flags().IntVar(&c.limit, "limit", 0, "list at most `N` accounts; 0 lists all")
	c.admin.addFlags(cmd)
	return cmd
}

// run prints each page as soon as it arrives, so the number of accounts does
// not matter for memory or for the time until the first line.
func (c *accountsList) run(ctx context.Context) error {
	var printer accountsPrinter = &accountsTable{Table: table.Table{Out: c.env.stdout}}
	if c.admin.json {
		printer = &accountsJSON{out: c.env.stdout, limit: c.limit}
	}
	printed := 0
	for {
		want := listPage
		if c.limit > 0 {
			want = min(want, c.limit-printed)
		}
		total, accounts, err := c.fetch(ctx, printed, want)
		if err != nil {
			return err
		}
		if err := printer.page(total, accounts); err != nil {
			return err
		}
		printed += len(accounts)
		// An empty page ends the loop, too: accounts may be forgotten
		// meanwhile, and total would never be reached.
		if len(accounts) > 0 && printed < total && (c.limit == 0 || printed < c.limit) {
			continue
		}
		if printed < total && c.limit > 0 {
			fmt.Fprintf(c.env.stderr, "wxproxy: %d of %d accounts listed\n", printed, total)
		}
		return printer.end()
	}
}

// fetch requests up to limit accounts, starting with number offset. It also
// returns how many accounts there are.
func (c *accountsList) fetch(ctx context.Context, offset, limit int) (int, []json.RawMessage, error) {
	var page struct {
		Total    int               `json:"total"`
		Accounts []json.RawMessage `json:"accounts"`
	}
	query := url.Values{"offset": {strconv.Itoa(offset)}, "limit": {strconv.Itoa(limit)}}
	if c.query != "" {
		query.Set("q", c.query)
	}
	if c.state != "" {
		query.Set("state", c.state)
	}
	if _, err := c.admin.do(ctx, http.MethodGet, "/api/accounts", query, nil, &page); err != nil {
		return 0, nil, err
	}
	// wxproxy sends [] if there are none. Other servers may respond with any
	// JSON.
	if page.Accounts == nil {
		return 0, nil, fmt.Errorf("response without accounts from %s: is this the admin listener of wxproxy? "+
			"--admin sets another address", c.admin.base)
	}
	return page.Total, page.Accounts, nil
}

// accountsPrinter prints pages of accounts as they arrive.
type accountsPrinter interface {
	page(total int, accounts []json.RawMessage) error
	end() error
}

// accountsTable prints accounts as a table, for people.
type accountsTable struct {
	table.Table
	hasHeader bool // the header line was printed
}

// maxNameColumns is the width of the longest name that is printed whole. WeChat
// allows 30 Chinese characters, which take 60 columns, but most names have
// fewer than 12.
const maxNameColumns = 24

// page prints a line for each account, after a header line on the first page.
func (t *accountsTable) page(_ int, accounts []json.RawMessage) error {
	var rows [][]string
	if !t.hasHeader {
		rows = append(rows, []string{"APPID", "NAME", "TYPE", "STATE", "EXPIRES", "AUTHORIZED", ""})
		t.hasHeader = true
	}
	for _, raw := range accounts {
		var a accountView
		if err := json.Unmarshal(raw, &a); err != nil {
			return errors.New("the response describes accounts in an unknown form: " +
				"the running wxproxy may have another version")
		}
		note := ""
		if a.Failures > 0 {
			note = table.Printable(a.Failure)
		}
		expires := table.Until(a.ExpiresIn)
		if a.Token == "" {
			expires = "-"
		}
		rows = append(rows, []string{
			table.Printable(a.AppID),
			orElse(table.Truncate(table.Printable(a.Name), maxNameColumns), "-"),
			a.typeOrKind(),
			table.Printable(a.State),
			expires,
			table.Ago(a.Authorized),
			note,
		})
	}
	return t.Print(rows)
}

// end prints nothing: a table has no last line.
func (t *accountsTable) end() error { return nil }

// accountsJSON prints accounts for scripts, as one JSON object in the form of a
// response of the admin listener to a request without a limit.
type accountsJSON struct {
	out      io.Writer
	limit    int
	hasStart bool // the beginning of the object was printed
	hasItem  bool // at least one account was printed
}

// page prints the accounts, after the beginning of the object on the first
// page.
func (j *accountsJSON) page(total int, accounts []json.RawMessage) error {
	text := ""
	if !j.hasStart {
		limit := j.limit
		if limit == 0 {
			limit = total
		}
		text = fmt.Sprintf(`{"total":%d,"offset":0,"limit":%d,"accounts":[`, total, limit)
		j.hasStart = true
	}
	for _, raw := range accounts {
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
func (j *accountsJSON) end() error {
	_, err := io.WriteString(j.out, "\n]}\n")
	return err
}

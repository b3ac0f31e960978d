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
)

// pageSize is how many accounts are asked for at a time.
const pageSize = 500

// accountsListCommand is `wxproxy accounts list`.
type accountsListCommand struct {
	env   *env
	admin adminClient
	q     string
	limit int
}

func newAccountsList(e *env) command { return &accountsListCommand{env: e} }

func (c *accountsListCommand) ParseFlags(args []string) error {
	fs := newFlags("accounts list", "Lists accounts in order of their appids. EXPIRES is when the token ends; whoever calls then gets a new one.")
	fs.StringVar(&c.q, "q", "", "only accounts whose appid or name contains `TEXT`")
	fs.IntVar(&c.limit, "limit", 0, "at most so `many`; 0: all")
	c.admin.flags(fs)
	if err := parseFlags(c.env, fs, args); err != nil {
		return err
	}
	if c.limit < 0 {
		return errors.New("--limit is below 0")
	}
	return c.admin.ready(c.env)
}

// Run prints page by page, so that ten thousand accounts need no more memory than five hundred, and
// the first are there at once.
func (c *accountsListCommand) Run(ctx context.Context) error {
	var print accountsPrinter = &accountsTable{table: table{out: c.env.stdout}}
	if c.admin.json {
		print = &accountsJSON{out: c.env.stdout, limit: c.limit}
	}
	shown := 0
	for {
		want := pageSize
		if c.limit > 0 {
			want = min(want, c.limit-shown)
		}
		var page struct {
			Total    int               `json:"total"`
			Accounts []json.RawMessage `json:"accounts"`
		}
		query := url.Values{"offset": {strconv.Itoa(shown)}, "limit": {strconv.Itoa(want)}}
		if c.q != "" {
			query.Set("q", c.q)
		}
		if _, err := c.admin.do(ctx, http.MethodGet, "/api/accounts", query, nil, &page); err != nil {
			return err
		}
		if page.Accounts == nil {
			return fmt.Errorf("%s answered without accounts: is this wxproxy's admin listener? --admin takes another address", c.admin.base)
		}
		if err := print.page(page.Total, page.Accounts); err != nil {
			return err
		}
		shown += len(page.Accounts)
		if len(page.Accounts) == 0 || shown >= page.Total || c.limit > 0 && shown >= c.limit {
			if shown < page.Total && c.limit > 0 {
				fmt.Fprintf(c.env.stderr, "wxproxy: %d of %d accounts are shown\n", shown, page.Total)
			}
			return print.end(shown)
		}
	}
}

// accountsPrinter prints pages of accounts.
type accountsPrinter interface {
	page(total int, accounts []json.RawMessage) error
	end(shown int) error
}

// accountsTable is for people.
type accountsTable struct {
	table
	begun bool
}

// nameColumns is the widest name that is shown whole: WeChat allows 30 Chinese characters, most have below 12.
const nameColumns = 24

func (t *accountsTable) page(_ int, accounts []json.RawMessage) error {
	var rows [][]string
	if !t.begun {
		rows, t.begun = append(rows, []string{"APPID", "NAME", "TYPE", "STATE", "EXPIRES", "AUTHORIZED", ""}), true
	}
	for _, raw := range accounts {
		var a accountView
		if err := json.Unmarshal(raw, &a); err != nil {
			return errors.New("the admin listener told of an account in a way that this wxproxy does not know: are they of the same version?")
		}
		note := ""
		if a.Failures > 0 {
			note = printable(a.Failure)
		}
		expires := until(a.ExpiresIn)
		if a.Token == "" {
			expires = "-"
		}
		rows = append(rows, []string{printable(a.AppID), or(terminal.Truncate(printable(a.Name), nameColumns, "…"), "-"), a.what(), printable(a.State), expires, ago(a.Authorized), note})
	}
	return t.print(rows)
}

func (t *accountsTable) end(int) error { return nil }

// accountsJSON is for scripts: one object, as the admin listener would answer if its pages had no end.
type accountsJSON struct {
	out   io.Writer
	limit int
	begun bool
	some  bool
}

func (j *accountsJSON) page(total int, accounts []json.RawMessage) error {
	text := ""
	if !j.begun {
		limit := j.limit
		if limit == 0 {
			limit = total
		}
		text, j.begun = fmt.Sprintf(`{"total":%d,"offset":0,"limit":%d,"accounts":[`, total, limit), true
	}
	for _, raw := range accounts {
		if j.some {
			text += ","
		}
		text, j.some = text+"\n"+plainJSON(raw), true
	}
	_, err := io.WriteString(j.out, text)
	return err
}

func (j *accountsJSON) end(int) error {
	_, err := io.WriteString(j.out, "\n]}\n")
	return err
}

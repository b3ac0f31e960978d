package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"wxproxy/cmd/wxproxy/internal/table"
	"wxproxy/cmd/wxproxy/internal/tokenfile"
	"wxproxy/wechat"
)

// accountsImport is one run of `wxproxy accounts import`.
type accountsImport struct {
	env   *env
	admin adminClient

	name   string       // of the file, for messages
	batch  bytes.Buffer // JSON lines that were not sent yet
	lines  []int        // line number in the file of each entry in batch
	result importResult
}

// importResult is what an import did. The admin listener responds in this form
// to each batch, and --json prints the sum of all batches.
type importResult struct {
	Read   int           `json:"read"` // entries in the file
	Added  int           `json:"added"`
	Kept   int           `json:"kept"` // a refresh token was stored already
	Failed int           `json:"failed"`
	Faults []importFault `json:"faults"`
}

// importFault is an entry that was not imported, and why. It contains no token.
type importFault struct {
	Line  int    `json:"line"`
	AppID string `json:"appid,omitempty"`
	Error string `json:"error"`
}

// The limits of a batch. The server stores each entry durably before it
// responds, so larger batches would need longer timeouts.
const (
	batchEntries = 500
	batchBytes   = 1 << 20
)

// newAccountsImport returns `wxproxy accounts import`.
func newAccountsImport(e *env) *cobra.Command {
	c := &accountsImport{env: e}
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Import refresh tokens from another program",
		Long: `Import refresh tokens of accounts that have authorized the component already
from FILE, or from standard input if FILE is "-".

FILE is CSV with the columns appid and refresh_token, with or without a header
line, or JSON lines with these names. An account that has a refresh token in
wxproxy keeps it, so the same file can be imported again.

First stop the program that refreshed these accounts until now: two programs
that refresh invalidate each other's tokens. Tokens are never printed.`,
		Args: exactArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.admin.prepare(cmd, e); err != nil {
				return err
			}
			return c.run(cmd.Context(), args[0])
		},
	}
	c.admin.addFlags(cmd)
	return cmd
}

// run imports the file at path. It prints a summary even if it fails, because
// the batches before the failure are imported.
func (c *accountsImport) run(ctx context.Context, path string) error {
	in := c.env.stdin
	c.name = "standard input"
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("reading %s: %w", strconv.Quote(wechat.Sanitize(path, maxQuoted)), withoutPath(err))
		}
		defer f.Close()
		in, c.name = f, table.Printable(path)
	} else if in == nil {
		in = strings.NewReader("")
	}
	c.result.Faults = []importFault{} // [] in JSON, not null
	err := tokenfile.Read(in, tokenfile.Handler{
		Entry: func(line int, appid, refresh string) error { return c.add(ctx, line, appid, refresh) },
		Fault: func(line int, problem string) {
			c.result.Read++
			c.fail(line, "", problem)
		},
	})
	if err == nil {
		err = c.send(ctx)
	}
	// Faults were printed while the file was read.
	if printErr := c.printResult(); printErr != nil {
		return printErr
	}
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", c.name, err)
	case c.result.Failed > 0:
		return fmt.Errorf("%s: %d of %d entries were not imported", c.name, c.result.Failed, c.result.Read)
	}
	return nil
}

// withoutPath removes the path from an error of package os: the message that
// wraps it names the path.
func withoutPath(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// add checks an entry, adds it to the batch, and sends the batch if it is full.
func (c *accountsImport) add(ctx context.Context, line int, appid, refresh string) error {
	c.result.Read++
	switch {
	case !wechat.IsAppID(appid):
		// Not quoted: if the columns are swapped, this is the token.
		c.fail(line, "", "not an appid: "+appIDForm)
		return nil
	case refresh == "":
		c.fail(line, appid, "no refresh token")
		return nil
	}
	b, err := json.Marshal(struct {
		AppID   string `json:"appid"`
		Refresh string `json:"refresh_token"`
	}{appid, refresh})
	if err != nil {
		return err // impossible for two strings
	}
	c.batch.Write(append(b, '\n'))
	c.lines = append(c.lines, line)
	if len(c.lines) >= batchEntries || c.batch.Len() >= batchBytes {
		return c.send(ctx)
	}
	return nil
}

// send imports the entries of the batch and empties it.
func (c *accountsImport) send(ctx context.Context) error {
	if len(c.lines) == 0 {
		return nil
	}
	var done importResult
	body := bytes.NewReader(c.batch.Bytes())
	raw, err := c.admin.do(ctx, http.MethodPost, "/api/accounts/import", nil, body, &done)
	if err != nil {
		// Part of the batch may have been imported, and the response says so.
		_ = json.Unmarshal(raw, &done)
	}
	c.result.Added += done.Added
	c.result.Kept += done.Kept
	for _, f := range done.Faults {
		if f.Line < 1 || f.Line > len(c.lines) {
			continue // not about this batch: never trust a response as an index
		}
		c.fail(c.lines[f.Line-1], f.AppID, f.Error)
	}
	// The batch is emptied even after an error: what was not imported is in the
	// file, and the summary counts only what the responses confirm.
	first := c.lines[0]
	c.batch.Reset()
	c.lines = c.lines[:0]
	if err != nil {
		return fmt.Errorf("stopped in the batch that starts at line %d "+
			"(imported entries stay, and the whole file can be imported again): %w", first, err)
	}
	return nil
}

// fail records and prints that the entry in a line was not imported. appid is
// "" if the entry has none.
func (c *accountsImport) fail(line int, appid, problem string) {
	c.result.Failed++
	c.result.Faults = append(c.result.Faults, importFault{line, appid, problem})
	if appid != "" {
		problem = appid + ": " + problem
	}
	if !c.admin.json {
		fmt.Fprintf(c.env.stderr, "wxproxy: %s:%d: %s\n", c.name, line, table.Printable(problem))
	}
}

// printResult prints the summary.
func (c *accountsImport) printResult() error {
	if c.admin.json {
		b, err := json.Marshal(c.result)
		if err != nil {
			return err // impossible for this type
		}
		return printJSON(c.env, b)
	}
	_, err := fmt.Fprintf(c.env.stdout, "%d added, %d kept as they were, %d not imported\n",
		c.result.Added, c.result.Kept, c.result.Failed)
	return err
}

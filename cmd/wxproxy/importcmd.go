package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"wxproxy/wechat"
)

// accountsImportCommand is `wxproxy accounts import`.
type accountsImportCommand struct {
	env   *env
	admin adminClient
	file  string

	name  string // of the file, for people
	batch bytes.Buffer
	lines []int // where the entries of batch stand in the file
	done  imported
}

// imported is what came of an import, as --json prints it.
type imported struct {
	Read   int             `json:"read"` // entries
	Added  int             `json:"added"`
	Kept   int             `json:"kept"` // a refresh token was there already
	Failed int             `json:"failed"`
	Faults []importedFault `json:"faults"`
}

type importedFault struct {
	Line  int    `json:"line"`
	AppID string `json:"appid,omitempty"`
	Error string `json:"error"`
}

// How much goes at once. An import of a batch takes a durable write for each entry.
const (
	batchEntries = 500
	batchBytes   = 1 << 20
)

func newAccountsImport(e *env) command { return &accountsImportCommand{env: e} }

func (c *accountsImportCommand) ParseFlags(args []string) error {
	fs := newFlags("accounts import", "Takes over refresh tokens of accounts that have authorized the component already, from FILE (- for the standard input):\n"+
		"CSV with the columns appid and refresh_token, with that header or without, or JSON lines with these names. A refresh token that\n"+
		"wxproxy has is kept, so that the same file may be imported again. Stop what renewed the accounts until now: two renewers invalidate\n"+
		"each other's tokens. Tokens are never printed.")
	fs.words = []string{"FILE"}
	c.admin.flags(fs)
	words, err := parseWords(c.env, fs, args)
	if err != nil {
		return err
	}
	c.file = words[0]
	return c.admin.ready(c.env)
}

func (c *accountsImportCommand) Run(ctx context.Context) error {
	in, name := c.env.stdin, "standard input"
	if c.file != "-" {
		f, err := os.Open(c.file)
		if err != nil {
			return fmt.Errorf("cannot read %s: %w", quoted(c.file), reasonOfFile(err))
		}
		defer f.Close()
		in, name = f, printable(c.file)
	} else if in == nil {
		in = strings.NewReader("")
	}
	c.name, c.done.Faults = name, []importedFault{}
	err := readEntries(in, entryReader{
		entry: func(line int, appid, refresh string) error { return c.take(ctx, line, appid, refresh) },
		fault: func(line int, what string) { c.fault(importedFault{Line: line, Error: what}) },
	})
	if err == nil {
		err = c.flush(ctx)
	}
	if printErr := c.print(); printErr != nil {
		return printErr
	}
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	case c.done.Failed > 0:
		return fmt.Errorf("%s: %d of %d entries were not imported", name, c.done.Failed, c.done.Read)
	}
	return nil
}

// reasonOfFile leaves out the path, which was said.
func reasonOfFile(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// take puts an entry into the batch, after a look whether it can be one.
func (c *accountsImportCommand) take(ctx context.Context, line int, appid, refresh string) error {
	c.done.Read++
	switch {
	case !wechat.IsAppID(appid):
		// Not quoted: where columns are mixed up the token stands in its place.
		c.refuse(line, "", "the appid is not wx and 16 lower-case letters or digits")
		return nil
	case refresh == "":
		c.refuse(line, appid, "there is no refresh token")
		return nil
	}
	b, err := json.Marshal(struct {
		AppID   string `json:"appid"`
		Refresh string `json:"refresh_token"`
	}{appid, refresh})
	if err != nil {
		return err // cannot be: two strings
	}
	c.batch.Write(append(b, '\n'))
	c.lines = append(c.lines, line)
	if len(c.lines) >= batchEntries || c.batch.Len() >= batchBytes {
		return c.flush(ctx)
	}
	return nil
}

// flush sends the batch.
func (c *accountsImportCommand) flush(ctx context.Context) error {
	if len(c.lines) == 0 {
		return nil
	}
	var got imported
	raw, err := c.admin.do(ctx, http.MethodPost, "/api/accounts/import", nil, bytes.NewReader(c.batch.Bytes()), &got)
	if err != nil {
		// Also then some of them may have been imported.
		_ = json.Unmarshal(raw, &got)
	}
	c.done.Added += got.Added
	c.done.Kept += got.Kept
	for _, f := range got.Faults {
		if f.Line < 1 || f.Line > len(c.lines) {
			continue
		}
		c.refuse(c.lines[f.Line-1], f.AppID, f.Error)
	}
	first := c.lines[0]
	c.batch.Reset()
	c.lines = c.lines[:0]
	if err != nil {
		return fmt.Errorf("it ended in the batch that begins at line %d; what is imported stays, and the whole file may be imported again: %w", first, err)
	}
	return nil
}

func (c *accountsImportCommand) refuse(line int, appid, what string) {
	c.done.Failed++
	f := importedFault{line, appid, what}
	c.done.Faults = append(c.done.Faults, f)
	if appid != "" {
		what = appid + ": " + what
	}
	if !c.admin.json {
		fmt.Fprintf(c.env.stderr, "wxproxy: %s:%d: %s\n", c.name, line, printable(what))
	}
}

// fault is for what is no entry at all.
func (c *accountsImportCommand) fault(f importedFault) {
	c.done.Read++
	c.refuse(f.Line, "", f.Error)
}

func (c *accountsImportCommand) print() error {
	if c.admin.json {
		b, err := json.Marshal(c.done)
		if err != nil {
			return err // cannot be
		}
		_, err = fmt.Fprintln(c.env.stdout, plainJSON(b))
		return err
	}
	_, err := io.WriteString(c.env.stdout, fmt.Sprintf("%d added, %d kept as they were, %d not imported\n", c.done.Added, c.done.Kept, c.done.Failed))
	return err
}

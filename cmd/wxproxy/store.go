package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"wxproxy/cmd/wxproxy/internal/config"
	"wxproxy/cmd/wxproxy/internal/server"
	"wxproxy/cmd/wxproxy/internal/table"
	"wxproxy/tokens/store"
	"wxproxy/tokens/store/archive"
)

// newStore returns `wxproxy store` with its subcommands.
func newStore(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "store",
		Short: "Verify, back up, restore and compact the store",
		Long: `Verify, back up, restore and compact the store of wxproxy. docs/backup.md
explains how the last three belong together.`,
	}
	cmd.AddCommand(newStoreVerify(e), newStoreExport(e), newStoreImport(e), newStoreCompact(e))
	asGroup(cmd)
	return cmd
}

// newStoreExport returns `wxproxy store export`.
func newStoreExport(e *env) *cobra.Command {
	var a adminClient
	cmd := &cobra.Command{
		Use:   "export [FILE]",
		Short: "Back up the store of a running wxproxy",
		Long: `Write all records of a running wxproxy to FILE, or to standard output. The
records stay encrypted: the file can only be used together with the key of the
store, [store] key or the key file beside it. Back up that key separately.

FILE gets its name when it is complete. One that exists is replaced then. If
[admin] has a key, set it in ` + adminKeyVariable + `.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) > 1:
				return exactArgs("[FILE]")(cmd, args)
			case len(args) == 0 && e.color:
				return usagef(cmd, "an export is no text: name a FILE, or redirect the output")
			}
			if err := a.prepare(cmd, e); err != nil {
				return err
			}
			if len(args) == 0 {
				_, err := a.export(cmd.Context(), e.stdout)
				return err
			}
			return a.exportTo(cmd.Context(), e, args[0])
		},
	}
	a.addConnectionFlags(cmd)
	return cmd
}

// exportTo exports the store to the file at path.
func (a *adminClient) exportTo(ctx context.Context, e *env, path string) error {
	var sum archive.Summary
	err := archive.Create(path, func(w io.Writer) (err error) {
		sum, err = a.export(ctx, w)
		return err
	})
	if err != nil {
		return err
	}
	if sum.Damaged > 0 {
		fmt.Fprintf(e.stderr, "wxproxy: %d damaged records are not in the export\n", sum.Damaged)
	}
	_, err = fmt.Fprintf(e.stdout, "%d records exported to %s\n", sum.Records, path)
	return err
}

// export writes an export of the store to w. What it has written is worthless
// if it returns an error.
func (a *adminClient) export(ctx context.Context, w io.Writer) (archive.Summary, error) {
	resp, err := a.send(ctx, http.MethodGet, "/api/store/export", nil, nil)
	if err != nil {
		return archive.Summary{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		raw, err := a.readAll(resp)
		if err != nil {
			return archive.Summary{}, err
		}
		return archive.Summary{}, a.responseError(resp, raw)
	}
	if resp.Header.Get("Content-Type") != archive.ContentType {
		return archive.Summary{}, a.unexpected(resp)
	}
	out := &stickyWriter{w: w}
	discard := func(string, []byte) error { return nil }
	_, sum, err := archive.Read(ctx, io.TeeReader(resp.Body, out), discard)
	switch {
	case ctx.Err() != nil:
		err = errors.New("interrupted")
	case out.firstError() != nil:
		err = out.firstError()
	case err != nil:
		err = fmt.Errorf("incomplete response from %s: %w", a.base, server.NetCause(err))
	}
	return sum, err
}

// newStoreImport returns `wxproxy store import`.
func newStoreImport(e *env) *cobra.Command {
	var path string
	var force bool
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Restore an export, or move it to another store",
		Long: `Make the store of a configuration hold the records of FILE, which "wxproxy store
export" has written. The key of the store must be that of the exported one.
The store is a file or in Redis, whatever it was before.

Stop every wxproxy that uses the store first. Nothing is written before the
whole FILE was verified and each record of it opened. A file store changes in
one step. An import into Redis that was interrupted has to be run again, with
--force: until then no wxproxy starts on it.`,
		Args: exactArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return importStore(cmd.Context(), e, path, args[0], force)
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().BoolVar(&force, "force", false,
		"replace all records of a store that is not empty; those that are not in FILE are deleted")
	return cmd
}

// importStore imports an export into the store of the configuration at path.
func importStore(ctx context.Context, e *env, path, file string, force bool) error {
	cfg, err := loadForStore(e, path)
	if err != nil {
		return err
	}
	warn := func(problem string) {
		fmt.Fprintf(e.stderr, "wxproxy: warning: store.url: %s\n", problem)
	}
	in, err := server.ImportStore(ctx, cfg, file, force, warn)
	if errors.Is(err, store.ErrNotEmpty) {
		err = fmt.Errorf("%w; --force replaces all of them", err)
	}
	if err != nil {
		return err
	}
	if in.Damaged > 0 {
		fmt.Fprintf(e.stderr, "wxproxy: %d records were damaged when the export was made, "+
			"and are not in it\n", in.Damaged)
	}
	_, err = fmt.Fprintf(e.stdout, "%d records imported, exported at %s\n",
		in.Records, in.Created.Format("2006-01-02 15:04:05 MST"))
	return err
}

// newStoreCompact returns `wxproxy store compact`.
func newStoreCompact(e *env) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "compact",
		Short: "Make the file of a store smaller",
		Long: `Write the records of a file store into a new file, which then takes the place of
the old one in one step. Stop wxproxy first. The disk needs room for both
files.

A store reuses the space of deleted records, so this is only worth it after
many accounts have gone.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadForStore(e, path)
			if err != nil {
				return err
			}
			before, after, err := server.CompactStore(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(e.stdout, "before  %d bytes\nafter   %d bytes\n", before, after)
			return err
		},
	}
	configFlag(cmd, &path)
	return cmd
}

// loadForStore loads the configuration at path and prints its warnings.
func loadForStore(e *env, path string) (config.Config, error) {
	cfg, warnings, err := config.Load(path, e.getenv)
	for _, w := range warnings {
		fmt.Fprintf(e.stderr, "wxproxy: warning: %s: %s\n", path, w)
	}
	return cfg, err
}

// newStoreVerify returns `wxproxy store verify`.
func newStoreVerify(e *env) *cobra.Command {
	var path string
	var asJSON, remove bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Name the damaged records of the store",
		Long: `Read all records of the store that a configuration file names, and name those
that are damaged: with a wrong checksum, or that cannot be decrypted or read. A
running wxproxy has moved such records away ("moved") and continued without
them: it reads the accounts from WeChat again, and nothing has to be done.

The exit code is 1 if a record is damaged. A file can only be verified while no
wxproxy uses it, a Redis at any time. Nothing is changed, except that
--remove-damaged deletes the records that were moved away.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return verifyStore(cmd.Context(), e, path, asJSON, remove)
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&remove, "remove-damaged", false,
		"delete the damaged records that were moved away")
	return cmd
}

// verification is what `wxproxy store verify --json` prints.
type verification struct {
	Records     int            `json:"records"`
	Events      int            `json:"events"` // of the queue
	Damaged     []damageRecord `json:"damaged"`
	PreviousKey int            `json:"previous_key"`
	Removed     int            `json:"removed"`
}

// damageRecord is one damaged record.
type damageRecord struct {
	Key     string `json:"key"`
	Problem string `json:"problem"`
	Moved   bool   `json:"moved"`
}

// verifyStore prints what is wrong with the store of the configuration at path,
// and returns an error if a record is damaged.
func verifyStore(ctx context.Context, e *env, path string, asJSON, remove bool) error {
	cfg, _, err := config.Load(path, e.getenv)
	if err != nil {
		return err
	}
	out := verification{Damaged: []damageRecord{}}
	rows := table.Table{Out: e.stdout}
	moved := 0
	v, err := server.VerifyStore(ctx, cfg, func(d store.Damage) {
		state := "damaged"
		if d.Moved {
			state, moved = "moved", moved+1
		}
		if asJSON {
			out.Damaged = append(out.Damaged, damageRecord(d))
			return
		}
		row := []string{state, table.Printable(d.Key), table.Printable(d.Problem)}
		_ = rows.Print([][]string{row}) // execute reports it
	})
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if remove && moved > 0 {
		if out.Removed, err = server.RemoveDamaged(ctx, cfg); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	out.Records, out.Events, out.PreviousKey = v.Records, v.Entries, v.Previous
	if asJSON {
		err = json.NewEncoder(e.stdout).Encode(out)
	} else {
		err = printVerification(e, out, v.Damaged)
	}
	if err != nil {
		return err
	}
	if left := v.Damaged - min(out.Removed, moved); left > 0 {
		return fmt.Errorf("damaged records: %d", left)
	}
	return nil
}

// printVerification prints the numbers below the damaged records.
func printVerification(e *env, out verification, damaged int) error {
	_, err := fmt.Fprintf(e.stdout,
		"%d records, %d events, %d damaged, %d sealed with previous_key\n",
		out.Records, out.Events, damaged, out.PreviousKey)
	if out.Removed > 0 {
		_, removed := fmt.Fprintf(e.stdout, "%d damaged records deleted\n", out.Removed)
		err = errors.Join(err, removed)
	}
	return err
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"wxproxy/cmd/wxproxy/internal/config"
	"wxproxy/cmd/wxproxy/internal/server"
	"wxproxy/tokens/store"
	"wxproxy/tokens/store/archive"
)

// newStore returns `wxproxy store` with its subcommands.
func newStore(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "store",
		Short: "Back up, restore and compact the store",
		Long: `Back up, restore and compact the store of wxproxy. docs/backup.md explains how
they belong together.`,
	}
	cmd.AddCommand(newStoreExport(e), newStoreImport(e), newStoreCompact(e))
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

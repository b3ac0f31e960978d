package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"wxproxy/cmd/wxproxy/internal/config"
	"wxproxy/console"
	"wxproxy/tokens/store"
	"wxproxy/tokens/store/archive"
	"wxproxy/tokens/store/bolt"
	"wxproxy/tokens/store/redis"
)

// export writes the records of the store to w, as they are stored. It is an
// error before anything was written if the store is not encrypted, or if
// another export runs: each reads all records.
func (s *Server) export(ctx context.Context, w io.Writer) (archive.Summary, error) {
	sealed, ok := store.As[store.Exporter](s.store)
	if !ok {
		return archive.Summary{}, console.ErrNotSealed
	}
	if !s.exporting.TryLock() {
		return archive.Summary{}, console.ErrExporting
	}
	defer s.exporting.Unlock()
	a, err := archive.NewWriter(w, archive.Header{
		Created: time.Now().UTC().Truncate(time.Second), Version: s.version,
	})
	if err != nil {
		return archive.Summary{}, err
	}
	damaged, err := sealed.Export(ctx, a.Put)
	if err != nil {
		return archive.Summary{}, err
	}
	return a.Close(damaged)
}

// storeFile returns the path of the store of cfg. ok is false if it is no file.
func storeFile(cfg config.Config) (path string, ok bool) {
	return strings.CutPrefix(cfg.Store.URL, "file:")
}

// CompactStore makes the file of the store smaller; see [bolt.Compact].
func CompactStore(ctx context.Context, cfg config.Config) (before, after int64, err error) {
	path, ok := storeFile(cfg)
	if !ok {
		return 0, 0, errors.New("store.url is not a file: only file stores are compacted")
	}
	if before, after, err = bolt.Compact(ctx, path); err != nil {
		err = fmt.Errorf("store.url: %w", err)
	}
	return before, after, err
}

// Imported says what [ImportStore] has imported.
type Imported struct {
	archive.Header
	archive.Summary
}

// ImportStore makes the store of cfg hold the records of the export in file and
// no others. A store with records is changed only if replace is true. Before
// anything is written, the whole file is read, and each record opened with the
// key of cfg. warn receives problems that do not prevent the import.
func ImportStore(
	ctx context.Context, cfg config.Config, file string, replace bool, warn func(problem string),
) (in Imported, err error) {
	path, isFile := storeFile(cfg)
	if !isFile && !config.IsRedis(cfg.Store.URL) {
		return in, errors.New("store.url is neither a file nor Redis: " +
			"records in memory end with the process")
	}
	opener, keySource, err := importKey(cfg, path)
	if err != nil {
		return in, err
	}
	f, err := openExport(file)
	if err != nil {
		return in, err
	}
	defer f.Close()
	var damage error
	in.Header, in.Summary, err = archive.Read(ctx, f, func(key string, sealed []byte) error {
		err := opener.Check(key, sealed)
		if err != nil && !errors.Is(err, store.ErrWrongKey) {
			damage, err = cmp.Or(damage, err), nil // a wrong key would explain it
		}
		return err
	})
	switch {
	case errors.Is(err, store.ErrWrongKey):
		err = fmt.Errorf("%w than %s", err, keySource)
	case err == nil:
		err = damage
	}
	if err != nil {
		return in, fmt.Errorf("%s: %w", file, err)
	}
	// The second pass verifies the file again: it may change meanwhile.
	fill := func(put func(key string, record []byte) error) error {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		_, again, err := archive.Read(ctx, f, put)
		if err == nil && again != in.Summary {
			err = errors.New("the file has changed")
		}
		return err
	}
	if isFile {
		err = bolt.Import(ctx, path, replace, fill)
	} else {
		err = redis.Import(ctx, cfg.Store.URL, replace, redis.Options{Warn: warn}, fill)
	}
	if err != nil {
		return in, fmt.Errorf("store.url: %w", err)
	}
	return in, nil
}

// importKey returns what opens the records of the store of cfg, which may not
// exist yet, and where its key comes from.
func importKey(cfg config.Config, path string) (o *store.Opener, source string, err error) {
	key, err := cfg.Store.SealingKey()
	source = "that of store.key"
	if err == nil && key == nil {
		source = "the one in " + path + ".key"
		key, err = store.LoadOrCreateKey(path+".key", false)
		if err != nil {
			err = fmt.Errorf("%w; it is the key of the store that the export is from", err)
		}
	}
	if err != nil {
		return nil, "", fmt.Errorf("store.key: %w", err)
	}
	previous, err := cfg.Store.PreviousKeys()
	if err != nil {
		return nil, "", fmt.Errorf("store.previous_key: %w", err)
	}
	o, err = store.NewOpener(key, previous...)
	return o, source, err
}

// openExport opens a file. Opening a named pipe would block.
func openExport(file string) (*os.File, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", file)
	}
	return os.Open(file)
}

package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"wxproxy/tokens/store"
)

const (
	// importing is the format of a Redis while records are imported. No process
	// opens it: one that did would take what is not there yet for missing.
	importing = "importing"
	// importBatch is how many records are sent to Redis at once, and
	// importBatchSize how many bytes at most.
	importBatch     = 2000
	importBatchSize = 1 << 20

	importClientName = "wxproxy-import"
)

// errUnfinished is why a Redis with the format importing is not opened.
var errUnfinished = errors.New("an import into it was interrupted: " +
	`run "wxproxy store import --force" again`)

// Import makes the Redis at url hold the records that fill puts, as they are,
// and no others. Entries of the queue are among them, see
// [store.ParseExported]. Claims stay: they are no records.
//
// A Redis that holds records is changed only if replace is true; otherwise the
// error is [store.ErrNotEmpty]. The error is [store.ErrInUse] while other
// processes are connected; a Redis whose user may not list the connections is
// not checked, which o.Warn receives.
//
// If Import fails, the Redis is as it was if it was empty. Otherwise it may be
// unusable: then no process opens it until another Import has succeeded.
func Import(
	ctx context.Context, url string, replace bool, o Options,
	fill func(put func(key string, record []byte) error) error,
) error {
	o.importing = true
	s, err := Open(ctx, url, o)
	if err != nil {
		return err
	}
	defer s.Close()
	before, err := s.client.Get(ctx, s.formatKey).Result()
	if err != nil {
		return s.convertError(ctx, err)
	}
	if err := s.setFormat(importing); err != nil {
		return err
	}
	empty, err := s.mayImport(ctx, replace)
	if err != nil {
		return errors.Join(err, s.setFormat(before))
	}
	err = s.replaceRecords(ctx, fill)
	switch {
	case err == nil:
		return s.setFormat(strconv.Itoa(format))
	case !empty:
		return fmt.Errorf("%w; %s cannot be used until an import has succeeded", err, s.name)
	}
	// ctx may have ended.
	cleared := s.clear(context.WithoutCancel(ctx))
	if cleared == nil {
		cleared = s.setFormat(before)
	}
	return errors.Join(err, cleared)
}

// setFormat writes the format, also if the caller's context has ended.
func (s *Store) setFormat(format string) error {
	ctx := context.Background()
	return s.convertError(ctx, s.client.Set(ctx, s.formatKey, format, 0).Err())
}

// mayImport returns why records must not be imported, or whether there are none
// yet. The format is importing, so that no further process opens the store.
func (s *Store) mayImport(ctx context.Context, replace bool) (empty bool, err error) {
	if err := s.forEachServer(ctx, s.checkUnused); err != nil {
		return false, err
	}
	err = store.CheckEmpty(ctx, s)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, store.ErrNotEmpty) && replace:
		return false, nil
	}
	return false, s.withName(err)
}

// checkUnused returns [store.ErrInUse] if another wxproxy is connected to a
// server, to the same database.
func (s *Store) checkUnused(ctx context.Context, c *goredis.Client) error {
	list, err := c.ClientList(ctx).Result()
	if err != nil {
		if _, isReply := replyCode(err); isReply {
			s.warn(s.name + " does not let its user list the connections (CLIENT LIST): " +
				"make sure that no wxproxy uses it")
			return nil
		}
		return s.convertError(ctx, err)
	}
	db := "db=" + strconv.Itoa(c.Options().DB)
	for line := range strings.Lines(list) {
		named, same, addr := false, false, ""
		for field := range strings.FieldsSeq(line) {
			named = named || field == "name="+clientName
			same = same || field == db
			if a, ok := strings.CutPrefix(field, "addr="); ok {
				addr = a
			}
		}
		if named && same {
			return s.withName(fmt.Errorf("%w, which is connected from %s: stop it first",
				store.ErrInUse, addr))
		}
	}
	return nil
}

// clear deletes all records, and the queue.
func (s *Store) clear(ctx context.Context) error {
	for i := range s.buckets {
		b := &s.buckets[i]
		// The change log goes, too: its identity says whose changes it has.
		if err := s.client.Unlink(ctx, b.records, b.names, b.changes, b.head).Err(); err != nil {
			return s.convertError(ctx, err)
		}
	}
	return s.queue.clear(ctx)
}

// replaceRecords deletes all records, and the queue, and saves what fill puts.
func (s *Store) replaceRecords(
	ctx context.Context, fill func(put func(key string, record []byte) error) error,
) error {
	if err := s.clear(ctx); err != nil {
		return err
	}
	var (
		records [bucketCount][]any
		names   [bucketCount][]goredis.Z
		entries []store.QueueEntry
		n, size int
	)
	flush := func() error {
		if err := s.queue.Restore(ctx, entries...); err != nil {
			return err
		}
		entries = nil
		_, err := s.client.Pipelined(ctx, func(p goredis.Pipeliner) error {
			for i := range s.buckets {
				if len(names[i]) > 0 {
					p.HSet(ctx, s.buckets[i].records, records[i]...)
					p.ZAdd(ctx, s.buckets[i].names, names[i]...)
				}
				records[i], names[i] = records[i][:0], names[i][:0]
			}
			return nil
		})
		n, size = 0, 0
		return s.convertError(ctx, err)
	}
	err := fill(func(key string, record []byte) error {
		e, isEntry, err := store.ParseExported(key, record)
		switch {
		case err != nil:
			return err
		case isEntry:
			entries = append(entries, e)
		default:
			i := bucketOf(key)
			records[i] = append(records[i], key, string(record))
			names[i] = append(names[i], goredis.Z{Member: key})
		}
		n, size = n+1, size+len(key)+len(record)
		if n < importBatch && size < importBatchSize {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

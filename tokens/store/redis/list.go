package redis

import (
	"context"
	"errors"
	"strings"

	goredis "github.com/redis/go-redis/v9"
)

// pageSize is how many records of one bucket List holds in memory. 16 buckets
// of 200 records with about 600 bytes each are 2 MB.
const pageSize = 200

// listEntry is a record that was read, but not yielded yet.
type listEntry struct{ key, record string }

// bucketIterator reads one bucket in key order, page by page.
type bucketIterator struct {
	bucket *bucketKeys
	min    string // lower bound of the next page, as ZRANGEBYLEX takes it
	page   []listEntry
	done   bool // no records follow the page
}

// List implements [store.Store]. It reads all buckets a page at a time and
// merges them. A record that is written meanwhile is included if it belongs
// after the pages that were read.
func (s *Store) List(
	ctx context.Context, prefix, after string, yield func(key string, record []byte) bool,
) error {
	// Bounds of ZRANGEBYLEX: "-" and "+" are the ends, "[" includes a key and
	// "(" excludes it.
	low := "-"
	if after >= prefix && after != "" {
		low = "(" + after
	} else if prefix != "" {
		low = "[" + prefix
	}
	high := upperBound(prefix)
	var iterators [bucketCount]bucketIterator
	for i := range iterators {
		iterators[i] = bucketIterator{bucket: &s.buckets[i], min: low}
	}
	for {
		if err := s.fetchPages(ctx, iterators[:], high); err != nil {
			return err
		}
		// With 16 buckets a linear search is faster than a heap.
		var next *bucketIterator
		for i := range iterators {
			if it := &iterators[i]; len(it.page) > 0 && (next == nil || it.page[0].key < next.page[0].key) {
				next = it
			}
		}
		if next == nil {
			return nil
		}
		e := next.page[0]
		next.page = next.page[1:]
		if strings.HasPrefix(e.key, prefix) && !yield(e.key, []byte(e.record)) {
			return nil
		}
	}
}

// upperBound returns the upper bound of the keys that begin with prefix, as
// ZRANGEBYLEX takes it.
func upperBound(prefix string) string {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			return "(" + prefix[:i] + string([]byte{prefix[i] + 1})
		}
	}
	return "+"
}

// fetchPages reads the next page of each iterator whose page is used up, all in
// one pipeline. It skips names without a record.
func (s *Store) fetchPages(ctx context.Context, iterators []bucketIterator, high string) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	var empty []*bucketIterator
	for i := range iterators {
		if it := &iterators[i]; len(it.page) == 0 && !it.done {
			empty = append(empty, it)
		}
	}
	if len(empty) == 0 {
		return nil
	}
	cmds := make([]*goredis.Cmd, len(empty))
	_, err := s.client.Pipelined(ctx, func(p goredis.Pipeliner) error {
		for i, it := range empty {
			keys := []string{it.bucket.names, it.bucket.records}
			cmds[i] = p.Eval(ctx, pageScript, keys, it.min, high, pageSize)
		}
		return nil
	})
	for i, it := range empty {
		reply, cmdErr := cmds[i].Slice()
		if cmdErr != nil {
			return s.convertError(ctx, cmdErr)
		}
		keys, records, ok := parsePage(reply)
		if !ok {
			return s.withName(errors.New("invalid reply to the page script"))
		}
		it.done = len(keys) < pageSize
		for k := range keys {
			key, _ := keys[k].(string)
			if record, ok := records[k].(string); ok {
				it.page = append(it.page, listEntry{key, record})
			}
			it.min = "(" + key
		}
	}
	return s.convertError(ctx, err)
}

// parsePage parses the reply of pageScript and reports whether it is valid.
func parsePage(reply []any) (keys, records []any, ok bool) {
	if len(reply) != 2 {
		return nil, nil, false
	}
	keys, ok1 := reply[0].([]any)
	records, ok2 := reply[1].([]any)
	return keys, records, ok1 && ok2 && len(keys) == len(records)
}

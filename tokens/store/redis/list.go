package redis

import (
	"context"
	"fmt"
	"strings"

	goredis "github.com/redis/go-redis/v9"
)

// pageSize is how many records of one bucket are held in memory by List. 16 times that, at some 600 bytes each, are 2 MB.
const pageSize = 200

// entry is a record on its way to yield.
type entry struct{ key, record string }

// lister reads one bucket in order, page by page.
type lister struct {
	names *names
	min   string // where the next page begins
	page  []entry
	last  bool // there is nothing behind page
}

// List implements [store.Store]. The buckets are read a page at a time and merged. What is written meanwhile behind the pages
// at hand is seen, before them it is not.
func (s *Store) List(ctx context.Context, prefix, after string, yield func(key string, record []byte) bool) error {
	low := "-"
	if after >= prefix && after != "" {
		low = "(" + after
	} else if prefix != "" {
		low = "[" + prefix
	}
	high := end(prefix)
	var all [buckets]lister
	for i := range all {
		all[i] = lister{names: &s.buckets[i], min: low}
	}
	for {
		if err := s.fill(ctx, all[:], high); err != nil {
			return err
		}
		// Sixteen are few enough to look at each.
		var next *lister
		for i := range all {
			if l := &all[i]; len(l.page) > 0 && (next == nil || l.page[0].key < next.page[0].key) {
				next = l
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

// end is the first key behind all that begin with prefix, as ZRANGEBYLEX has it.
func end(prefix string) string {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			return "(" + prefix[:i] + string([]byte{prefix[i] + 1})
		}
	}
	return "+"
}

// fill reads the next pages of those whose page is used up, all at once.
func (s *Store) fill(ctx context.Context, all []lister, high string) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	var want []*lister
	for i := range all {
		// A page without records: what it named was deleted between.
		if l := &all[i]; len(l.page) == 0 && !l.last {
			want = append(want, l)
		}
	}
	if len(want) == 0 {
		return nil
	}
	cmds := make([]*goredis.Cmd, len(want))
	_, err := s.client.Pipelined(ctx, func(p goredis.Pipeliner) error {
		for i, l := range want {
			cmds[i] = p.Eval(ctx, page, []string{l.names.names, l.names.records}, l.min, high, pageSize)
		}
		return nil
	})
	for i, l := range want {
		answer, cmdErr := cmds[i].Slice()
		if cmdErr != nil {
			return s.fault(ctx, cmdErr)
		}
		keys, records, ok := pairs(answer)
		if !ok {
			return s.located(fmt.Errorf("it gives a list that is none"))
		}
		l.last = len(keys) < pageSize
		for k := range keys {
			key, _ := keys[k].(string)
			if record, ok := records[k].(string); ok {
				l.page = append(l.page, entry{key, record})
			}
			l.min = "(" + key
		}
	}
	return s.fault(ctx, err)
}

func pairs(answer []any) (keys, records []any, ok bool) {
	if len(answer) != 2 {
		return nil, nil, false
	}
	keys, ok1 := answer[0].([]any)
	records, ok2 := answer[1].([]any)
	return keys, records, ok1 && ok2 && len(keys) == len(records)
}

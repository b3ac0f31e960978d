package redis

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"time"

	"wxproxy/tokens/store"
)

// serviceSize is the size of the queue of a service in one bucket.
type serviceSize struct {
	bucket  int
	service string
	store.QueueSize
}

// sizes returns the sizes in the buckets of calls. A bucket that has lost a
// part of itself is rebuilt meanwhile.
func (q *queue) sizes(ctx context.Context, calls []call) ([]serviceSize, error) {
	if err := q.s.usable(ctx); err != nil {
		return nil, err
	}
	replies, err := q.runAll(ctx, sizesScript, calls)
	if err != nil {
		return nil, err
	}
	var sizes []serviceSize
	for i, reply := range replies {
		if number(reply, 0) == 0 {
			go q.rebuild(calls[i].bucket)
		}
		for _, one := range reply[min(1, len(reply)):] {
			r, _ := one.([]any)
			sizes = append(sizes, serviceSize{calls[i].bucket, text(r, 0), store.QueueSize{
				Waiting: int(number(r, 1)), Dead: int(number(r, 2)), Bytes: number(r, 3),
				Oldest: oldest(text(r, 4)),
			}})
		}
	}
	return sizes, nil
}

// oldest parses the score of an entry; "" if there is none.
func oldest(score string) time.Time {
	if score == "" {
		return time.Time{}
	}
	return time.UnixMilli(number([]any{score}, 0))
}

// Sizes implements [store.Queue]. It sends one pipeline.
func (q *queue) Sizes(ctx context.Context) (map[string]store.QueueSize, error) {
	parts, err := q.sizes(ctx, everywhere())
	if err != nil {
		return nil, err
	}
	sizes := map[string]store.QueueSize{}
	for _, p := range parts {
		s := sizes[p.service]
		s.Waiting, s.Dead, s.Bytes = s.Waiting+p.Waiting, s.Dead+p.Dead, s.Bytes+p.Bytes
		if s.Oldest.IsZero() || !p.Oldest.IsZero() && p.Oldest.Before(s.Oldest) {
			s.Oldest = p.Oldest
		}
		if s.Waiting+s.Dead > 0 {
			sizes[p.service] = s
		}
	}
	return sizes, nil
}

// rebuild enters the entries of a bucket into its sets anew, unless another
// process does. If it fails, the next Sizes starts it again.
func (q *queue) rebuild(bucket int) {
	ctx, keys := q.s.watchCtx, []string{q.prefixes[bucket]}
	token, cursor := rand.Text(), "0"
	for {
		next, err := rebuildScript.Run(ctx, q.s.client, keys,
			cursor, token, store.MaxQueuePause.Milliseconds()).Text()
		if err != nil || next == "" || next == "0" {
			return
		}
		cursor = next
	}
}

// Find implements [store.Queue]. The bucket is not known from the id, so it
// asks all of them, in one pipeline.
func (q *queue) Find(ctx context.Context, id string) ([]store.QueueEntry, error) {
	if err := q.s.usable(ctx); err != nil {
		return nil, err
	}
	replies, err := q.runAll(ctx, findScript, everywhere(id))
	if err != nil {
		return nil, err
	}
	var entries []store.QueueEntry
	for _, reply := range replies {
		for _, e := range reply {
			entries = append(entries, parseEntry(e))
		}
	}
	if entries == nil {
		return nil, store.ErrNotFound
	}
	slices.SortFunc(entries, func(a, b store.QueueEntry) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.AppID, b.AppID))
	})
	return entries, nil
}

// read returns the entries with these names (SERVICE/APPID/SEQ/ID) that there
// are, in any order. It stops after the first ones with several MiB, and
// returns how many names it has looked at.
func (q *queue) read(
	ctx context.Context, bucket int, payloads bool, names []string,
) (looked int, entries []store.QueueEntry, err error) {
	withPayload := 0
	if payloads {
		withPayload = 1
	}
	args := []any{withPayload}
	for _, n := range names {
		args = append(args, n)
	}
	replies, err := q.runAll(ctx, readScript, []call{{bucket, args}})
	if err != nil {
		return 0, nil, err
	}
	looked = int(number(replies[0], 0))
	if looked == 0 || len(replies[0]) != 2 {
		return 0, nil, q.s.withName(errors.New("invalid reply to the read script"))
	}
	all, _ := replies[0][1].([]any)
	for _, e := range all {
		entries = append(entries, parseEntry(e))
	}
	return looked, entries, nil
}

// List implements [store.Queue]. It reads the sets of all services page by page
// and merges them.
func (q *queue) List(
	ctx context.Context, f store.QueueFilter, offset, limit int,
) (total int, entries []store.QueueEntry, err error) {
	calls := everywhere()
	if f.AppID != "" {
		calls = []call{{bucket: bucketOf(f.AppID)}}
	}
	sizes, err := q.sizes(ctx, calls)
	if err != nil {
		return 0, nil, err
	}
	for _, dead := range []bool{false, true} {
		if f.State != store.AnyQueueState && dead != (f.State == store.DeadEntries) {
			continue
		}
		var sets []*entrySet
		for _, s := range sizes {
			if f.Service != "" && f.Service != s.service {
				continue
			}
			set := newEntrySet(q, s, dead)
			if f.AppID != "" && !dead {
				if set, err = newLaneSet(ctx, q, s, f.AppID); err != nil {
					return 0, nil, err
				}
			}
			sets = append(sets, set)
		}
		m := merge{q: q, sets: sets, appid: f.AppID}
		n, names, err := m.names(ctx, max(0, offset-total), limit-len(entries))
		if err != nil {
			return 0, nil, err
		}
		total += n
		found, err := q.describe(ctx, names)
		if err != nil {
			return 0, nil, err
		}
		entries = append(entries, found...)
	}
	return total, entries, nil
}

// describe returns the entries with these names that there are, without their
// payloads, in this order.
func (q *queue) describe(ctx context.Context, names []string) ([]store.QueueEntry, error) {
	const chunk = 1000
	byBucket := map[int][]string{}
	for _, n := range names {
		i := bucketOf(parseName(n).AppID)
		byBucket[i] = append(byBucket[i], n)
	}
	described := map[store.QueueKey]store.QueueEntry{}
	for bucket, names := range byBucket {
		for part := range slices.Chunk(names, chunk) {
			_, entries, err := q.read(ctx, bucket, false, part)
			if err != nil {
				return nil, err
			}
			for _, e := range entries {
				described[e.QueueKey] = e
			}
		}
	}
	var entries []store.QueueEntry
	for _, n := range names {
		if e, ok := described[parseName(n)]; ok {
			entries = append(entries, e)
		}
	}
	return entries, nil
}

// parseName parses the name of an entry, SERVICE/APPID/SEQ/ID.
func parseName(name string) (k store.QueueKey) {
	parts := strings.SplitN(name, "/", 4)
	if len(parts) == 4 {
		k = store.QueueKey{Service: parts[0], AppID: parts[1], ID: parts[3]}
	}
	return k
}

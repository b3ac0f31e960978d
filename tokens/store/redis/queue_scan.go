package redis

import (
	"context"
	"slices"

	goredis "github.com/redis/go-redis/v9"

	"wxproxy/tokens/store"
)

// scanPage is how many names Scan reads at once.
const scanPage = 500

// Scan implements [store.Queue], bucket by bucket.
func (q *queue) Scan(ctx context.Context, yield func(store.QueueEntry) bool) error {
	for i := range q.prefixes {
		if more, err := q.scanBucket(ctx, i, yield); err != nil || !more {
			return err
		}
	}
	return nil
}

// scanBucket scans one bucket. It merges the waiting and the dead entries, so
// that those of one lane come in their order. more is unset if yield has
// returned false.
func (q *queue) scanBucket(
	ctx context.Context, bucket int, yield func(store.QueueEntry) bool,
) (more bool, err error) {
	dead, err := q.deadNames(ctx, bucket)
	if err != nil {
		return false, err
	}
	for low, done := "-", false; !done; {
		if err := q.s.usable(ctx); err != nil {
			return false, err
		}
		names, err := q.s.client.ZRangeByLex(ctx, q.prefixes[bucket]+"order",
			&goredis.ZRangeBy{Min: low, Max: "+", Count: scanPage}).Result()
		if err != nil {
			return false, q.s.convertError(ctx, err)
		}
		if done = len(names) < scanPage; !done {
			low = "(" + names[len(names)-1]
		}
		names, dead = mergeNames(names, dead, done)
		if more, err := q.yieldAll(ctx, bucket, names, yield); err != nil || !more {
			return false, err
		}
	}
	return true, nil
}

// mergeNames merges a page of the waiting entries with the dead ones that
// belong before its end, or with all if it is the last page. rest are the
// others.
func mergeNames(waiting, dead []string, last bool) (names, rest []string) {
	for _, w := range waiting {
		for len(dead) > 0 && dead[0] < w {
			names, dead = append(names, dead[0]), dead[1:]
		}
		names = append(names, w)
	}
	if last {
		return append(names, dead...), nil
	}
	return names, dead
}

// deadNames returns the names of the dead entries in a bucket, sorted. Their
// number is bounded by the limit for a service.
func (q *queue) deadNames(ctx context.Context, bucket int) ([]string, error) {
	sizes, err := q.sizes(ctx, []call{{bucket: bucket}})
	if err != nil {
		return nil, err
	}
	var sets []*entrySet
	for _, s := range sizes {
		sets = append(sets, newEntrySet(q, s, true))
	}
	m := merge{q: q, sets: sets}
	var names []string
	for {
		name, err := m.next(ctx)
		if err != nil {
			return nil, err
		}
		if name == "" {
			break
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// yieldAll reads entries and yields those that there are.
func (q *queue) yieldAll(
	ctx context.Context, bucket int, names []string, yield func(store.QueueEntry) bool,
) (more bool, err error) {
	for len(names) > 0 {
		if err := q.s.usable(ctx); err != nil {
			return false, err
		}
		looked, entries, err := q.read(ctx, bucket, true, names)
		if err != nil {
			return false, err
		}
		names = names[looked:]
		for _, e := range entries {
			if !yield(e) {
				return false, nil
			}
		}
	}
	return true, nil
}

const (
	// restoreBatch is how many entries one script adds at most, and
	// restoreBatchSize how many bytes, unless one entry is larger.
	restoreBatch     = 100
	restoreBatchSize = 1 << 20
)

// Restore implements [store.Queue]. It sends batches, and is not atomic.
func (q *queue) Restore(ctx context.Context, entries ...store.QueueEntry) error {
	if err := q.s.usable(ctx); err != nil {
		return err
	}
	if err := store.CheckQueueEntries(false, entries); err != nil {
		return err
	}
	var args [bucketCount][]any
	var count, size [bucketCount]int
	flush := func(i int) error {
		if err := q.s.usable(ctx); err != nil || count[i] == 0 {
			return err
		}
		err := restoreScript.Run(ctx, q.s.client, []string{q.prefixes[i]}, args[i]...).Err()
		args[i], count[i], size[i] = nil, 0, 0
		return q.s.convertError(ctx, err)
	}
	for _, e := range entries {
		i := bucketOf(e.AppID)
		if count[i] == 0 {
			args[i] = []any{store.MinQueuePause.Milliseconds()}
		}
		dead := 0
		if e.Dead {
			dead = 1
		}
		args[i] = append(args[i], e.Service, e.AppID, e.ID, e.Created.UnixMilli(),
			e.Since.UnixMilli(), e.Attempts, dead,
			store.QueueOutcome{Error: e.Error}.Cut().Error, e.Payload)
		count[i]++
		if size[i] += len(e.Payload); count[i] >= restoreBatch || size[i] >= restoreBatchSize {
			if err := flush(i); err != nil {
				return err
			}
		}
	}
	for i := range args {
		if err := flush(i); err != nil {
			return err
		}
	}
	return nil
}

// clear deletes the queue. Which keys are known stays, like claims.
func (q *queue) clear(ctx context.Context) error {
	for _, p := range q.prefixes {
		services, err := q.s.client.HKeys(ctx, p+"sizes").Result()
		if err != nil {
			return q.s.convertError(ctx, err)
		}
		keys := []string{p + "items", p + "events", p + "order", p + "lanes", p + "sizes"}
		for _, service := range services {
			keys = append(keys, p+"waiting:"+service, p+"dead:"+service, p+"due:"+service)
		}
		if err := q.s.client.Unlink(ctx, keys...).Err(); err != nil {
			return q.s.convertError(ctx, err)
		}
	}
	return nil
}

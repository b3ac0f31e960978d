package redis

import (
	"cmp"
	"context"
	"crypto/rand"
	"slices"
	"time"

	"wxproxy/tokens/store"
)

// dueLane is a lane that is due.
type dueLane struct {
	service, appid string
	due            int64
}

// Take implements [store.Queue]. It asks all buckets for lanes that are due, in
// one pipeline, and takes the longest overdue ones in a second one. If nothing
// is due, it sends only the first.
//
// Buckets that do not respond are left out if others have entries.
func (q *queue) Take(
	ctx context.Context, want map[string]int, lease time.Duration,
) ([]store.TakenEntry, error) {
	if err := q.s.usable(ctx); err != nil {
		return nil, err
	}
	ahead := store.MaxQueuePause.Milliseconds()
	lanes, err := q.due(ctx, want, ahead)
	if len(lanes) == 0 {
		return nil, err
	}
	token := rand.Text()
	byBucket := map[int][]any{}
	for _, l := range lanes {
		i := bucketOf(l.appid)
		if byBucket[i] == nil {
			byBucket[i] = []any{token, min(lease.Milliseconds(), ahead), ahead}
		}
		byBucket[i] = append(byBucket[i], l.service, l.appid)
	}
	var calls []call
	for i, args := range byBucket {
		calls = append(calls, call{i, args})
	}
	replies, err := q.runAll(ctx, takeScript, calls)
	var taken []store.TakenEntry
	for _, reply := range replies {
		for _, e := range reply {
			t := store.TakenEntry{QueueEntry: parseEntry(e), Lease: token}
			taken = append(taken, t)
		}
	}
	if len(taken) > 0 {
		return taken, nil // the others are due later
	}
	return nil, err
}

// due returns the lanes to take. ahead is how far ahead a stored time may be,
// in milliseconds.
func (q *queue) due(
	ctx context.Context, want map[string]int, ahead int64,
) ([]dueLane, error) {
	var services []string
	args := []any{ahead}
	for service, n := range want {
		if n > 0 {
			services = append(services, service)
			args = append(args, service, n)
		}
	}
	if len(services) == 0 {
		return nil, nil
	}
	replies, err := q.runAll(ctx, dueScript, everywhere(args...))
	var all []dueLane
	for _, reply := range replies {
		for i, lanes := range reply {
			pairs, _ := lanes.([]any)
			for j := 0; j+1 < len(pairs) && i < len(services); j += 2 {
				all = append(all, dueLane{services[i], text(pairs, j), number(pairs, j+1)})
			}
		}
	}
	slices.SortFunc(all, func(a, b dueLane) int {
		return cmp.Or(cmp.Compare(a.due, b.due), cmp.Compare(a.appid, b.appid))
	})
	left := map[string]int{}
	all = slices.DeleteFunc(all, func(l dueLane) bool {
		left[l.service]++
		return left[l.service] > want[l.service]
	})
	return all, err
}

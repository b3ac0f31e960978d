package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"strconv"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"wxproxy/tokens/store"
)

// pollInterval is how late other processes see a change, at most, while Redis
// responds.
const pollInterval = time.Second

// logPosition is a position in the change log of a bucket.
type logPosition struct {
	id string // of the log
	n  string // number of the last change that was read
}

// unknownPosition matches no log, so that the first poll reports everything.
var unknownPosition = logPosition{id: "?", n: "0"}

// PartOf implements [store.Watcher]. The parts are the buckets.
func (s *Store) PartOf(key string) int { return bucketOf(key) }

// Watch implements [store.Watcher]. It polls the change logs once a second, so
// that no change depends on a message that could be lost.
//
// After a new connection it reports that every record may have changed: after a
// failover, the log of the new master may hold other changes under the same
// numbers.
func (s *Store) Watch(ctx context.Context, changed func(store.Changes)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.watchCtx, cancel)()
	groups := s.pollGroups()
	polls := make(chan poll)
	for i, buckets := range groups {
		go s.pollGroup(ctx, i, buckets, polls)
	}
	failed := make([]bool, len(groups))
	unreachable := 0
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-polls:
			// Warn when the state changes, not once a second.
			switch isFailed := p.err != nil; {
			case isFailed && !failed[p.group]:
				if unreachable++; unreachable == 1 {
					err := s.convertError(ctx, p.err)
					s.warn("store unreachable, serving cached tokens: " + err.Error())
				}
			case !isFailed && failed[p.group]:
				if unreachable--; unreachable == 0 {
					s.warn("store reachable again")
				}
			}
			failed[p.group] = p.err != nil
			if len(p.changes.Unknown) > 0 || len(p.changes.Keys) > 0 {
				changed(p.changes)
			}
		}
	}
}

// pollGroups returns the numbers of the buckets that are polled together. In a
// cluster each bucket is polled for itself: a node that does not respond must
// not delay the news of the buckets that are on other nodes.
func (s *Store) pollGroups() [][]int {
	var groups [][]int
	for i := range s.buckets {
		if s.topology == cluster || i == 0 {
			groups = append(groups, nil)
		}
		last := &groups[len(groups)-1]
		*last = append(*last, i)
	}
	return groups
}

// poll is the result of asking a group of buckets for their changes. With an
// error it has the changes of the buckets that responded.
type poll struct {
	group   int
	changes store.Changes
	err     error
}

// pollGroup polls the buckets of a group until ctx ends, and sends what has
// changed. It also sends the first poll that fails, and the first that succeeds
// again.
func (s *Store) pollGroup(ctx context.Context, group int, buckets []int, polls chan<- poll) {
	positions := make(map[int]logPosition, len(buckets))
	for _, i := range buckets {
		positions[i] = unknownPosition
	}
	dials, failed := int64(-1), false
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		p := s.poll(ctx, positions)
		p.group = group
		if n := s.watchDials.Load(); p.err == nil && n != dials {
			dials = n
			for i, pos := range positions {
				p.changes.Unknown[i] = pos.id
			}
		}
		if _, ok := p.changes.Unknown[0]; ok {
			// Redis may have been emptied. The format is in bucket 0, which has
			// just responded. Errors are ignored: the next process that starts
			// writes it, too.
			_ = s.client.SetNX(ctx, s.formatKey, format, 0).Err()
		}
		if failed != (p.err != nil) || len(p.changes.Unknown) > 0 || len(p.changes.Keys) > 0 {
			failed = p.err != nil
			select {
			case polls <- p:
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// poll asks the buckets of positions for their changes, in one pipeline, and
// advances the positions. The position of a bucket that did not respond stays
// unchanged.
func (s *Store) poll(ctx context.Context, positions map[int]logPosition) poll {
	p := poll{changes: store.Changes{Unknown: map[int]string{}}}
	cmds := make(map[int]*goredis.Cmd, len(positions))
	fresh := rand.Text()
	_, p.err = s.watchClient.Pipelined(ctx, func(pipe goredis.Pipeliner) error {
		for i, pos := range positions {
			keys := []string{s.buckets[i].changes, s.buckets[i].head}
			cmds[i] = pipe.Eval(ctx, changesScript, keys, pos.id, pos.n, changeLogSize, fresh)
		}
		return nil
	})
	for i, cmd := range cmds {
		reply, err := cmd.Slice()
		if err == nil && len(reply) != 4 {
			err = errors.New("invalid reply to the change script")
		}
		if err != nil {
			p.err = errors.Join(p.err, err)
			continue
		}
		id, _ := reply[0].(string)
		n, _ := reply[1].(string)
		unknown, _ := reply[2].(int64)
		if _, err := strconv.ParseInt(n, 10, 64); err != nil {
			n = "0"
		}
		positions[i] = logPosition{id, n}
		if unknown != 0 {
			p.changes.Unknown[i] = id
		}
		changes, _ := reply[3].([]any)
		for _, c := range changes {
			if key, ok := c.(string); ok {
				p.changes.Keys = append(p.changes.Keys, key)
			}
		}
	}
	return p
}

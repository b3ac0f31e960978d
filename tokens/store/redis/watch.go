package redis

import (
	"context"
	"errors"
	"strconv"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// pollInterval is how late other processes see a change, at most, while Redis
// responds.
const pollInterval = time.Second

// logPosition is a position in the change log of a bucket.
type logPosition struct {
	id string // of the log; "" for an empty bucket
	n  string // number of the last change that was read
}

// unknownPosition matches no log, so that the first poll reports everything.
var unknownPosition = logPosition{id: "?", n: "0"}

// Watch implements [store.Watcher]. It polls the change logs once a second, so
// that no change depends on a message that could be lost.
//
// After a new connection it reports that every record may have changed: after a
// failover, the log of the new master may hold other changes under the same
// numbers.
func (s *Store) Watch(ctx context.Context, changed func(keys []string)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.watchCtx, cancel)()
	var positions [bucketCount]logPosition
	for i := range positions {
		positions[i] = unknownPosition
	}
	dials, unreachable := int64(-1), false
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		keys, all, err := s.poll(ctx, &positions)
		if n := s.watchDials.Load(); err == nil && n != dials {
			dials, all = n, true
		}
		if ctx.Err() != nil {
			return
		}
		// Warn when the state changes, not once a second.
		if err != nil && !unreachable {
			s.warn("store unreachable, serving cached tokens: " + s.convertError(ctx, err).Error())
		} else if err == nil && unreachable {
			s.warn("store reachable again")
		}
		unreachable = err != nil
		switch {
		case all:
			s.restoreFormat(ctx)
			changed(nil)
		case len(keys) > 0:
			changed(keys)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// poll asks all buckets for their changes, in one pipeline, and advances the
// positions. all reports that the changed keys of a bucket are unknown. The
// position of a bucket that did not respond stays unchanged, and poll returns
// an error together with the changes of the others.
func (s *Store) poll(
	ctx context.Context, positions *[bucketCount]logPosition,
) (keys []string, all bool, err error) {
	var cmds [bucketCount]*goredis.Cmd
	_, err = s.watchClient.Pipelined(ctx, func(p goredis.Pipeliner) error {
		for i, pos := range positions {
			b := &s.buckets[i]
			keys := []string{b.changes, b.head}
			cmds[i] = p.Eval(ctx, changesScript, keys, pos.id, pos.n, changeLogSize)
		}
		return nil
	})
	for i, cmd := range cmds {
		reply, cmdErr := cmd.Slice()
		if cmdErr != nil {
			err = errors.Join(err, cmdErr)
			continue
		}
		if len(reply) != 4 {
			err = errors.Join(err, errors.New("invalid reply to the change script"))
			continue
		}
		id, _ := reply[0].(string)
		n, _ := reply[1].(string)
		unknown, _ := reply[2].(int64)
		if _, numErr := strconv.ParseInt(n, 10, 64); numErr != nil {
			n = "0"
		}
		positions[i] = logPosition{id, n}
		all = all || unknown != 0
		changes, _ := reply[3].([]any)
		for _, c := range changes {
			if key, ok := c.(string); ok {
				keys = append(keys, key)
			}
		}
	}
	return keys, all, err
}

// restoreFormat writes the format version again if Redis was emptied. Errors
// are ignored: the next process that starts writes it, too.
func (s *Store) restoreFormat(ctx context.Context) {
	_ = s.client.SetNX(ctx, s.formatKey, format, 0).Err()
}

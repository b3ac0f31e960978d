package redis

import (
	"context"
	"errors"
	"strconv"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

const (
	// pollEvery is how late a change is seen by other processes, at most, while Redis answers.
	pollEvery = time.Second
	// pollTimeout bounds each step of a poll. A Redis that comes back is noticed within it and pollEvery.
	pollTimeout = time.Second
)

// cursor is how far the log of a bucket's changes was read.
type cursor struct {
	id string // "" of an empty bucket
	n  string
}

// never is a cursor that fits no log.
var never = cursor{id: "?", n: "0"}

// Watch implements [store.Watcher]. It asks once a second; nothing depends on a message that could be lost. Where the
// connection was another one than before, everything may have changed: after a failover the log may say under the same numbers
// something else.
func (s *Store) Watch(ctx context.Context, changed func(keys []string)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.polling, cancel)()
	var at [buckets]cursor
	for i := range at {
		at[i] = never
	}
	dialled, away := int64(-1), false
	t := time.NewTicker(pollEvery)
	defer t.Stop()
	for {
		keys, everything, err := s.poll(ctx, &at)
		if n := s.dialled.Load(); err == nil && n != dialled {
			dialled, everything = n, true
		}
		if ctx.Err() != nil {
			return
		}
		// Told when it changes, and not each second.
		if err != nil && !away {
			s.warn("the store does not answer; tokens at hand go on being used: " + s.fault(ctx, err).Error())
		} else if err == nil && away {
			s.warn("the store answers again")
		}
		away = err != nil
		switch {
		case everything:
			s.restore(ctx)
			changed(nil)
		case len(keys) > 0:
			changed(keys)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// poll asks all buckets at once what is new. The error is the first of a bucket that did not answer; its cursor stays where
// it was.
func (s *Store) poll(ctx context.Context, at *[buckets]cursor) (keys []string, everything bool, err error) {
	var cmds [buckets]*goredis.Cmd
	_, err = s.poller.Pipelined(ctx, func(p goredis.Pipeliner) error {
		for i, c := range at {
			b := &s.buckets[i]
			cmds[i] = p.Eval(ctx, news, []string{b.changes, b.head}, c.id, c.n, logged)
		}
		return nil
	})
	for i, cmd := range cmds {
		answer, cmdErr := cmd.Slice()
		if cmdErr != nil {
			err = errors.Join(err, cmdErr)
			continue
		}
		if len(answer) != 4 {
			err = errors.Join(err, errors.New("it gives changes that are none"))
			continue
		}
		id, _ := answer[0].(string)
		n, _ := answer[1].(string)
		gap, _ := answer[2].(int64)
		if _, numErr := strconv.ParseInt(n, 10, 64); numErr != nil {
			n = "0"
		}
		at[i] = cursor{id, n}
		everything = everything || gap != 0
		changes, _ := answer[3].([]any)
		for _, c := range changes {
			if key, ok := c.(string); ok {
				keys = append(keys, key)
			}
		}
	}
	return keys, everything, err
}

// restore writes the format again if Redis was emptied.
func (s *Store) restore(ctx context.Context) {
	_ = s.client.SetNX(ctx, s.format, format, 0).Err()
}

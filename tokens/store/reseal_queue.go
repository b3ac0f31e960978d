package store

import (
	"context"
	"errors"
	"time"
)

const (
	// resealQueuePause is the time between two entries of the queue. They have
	// no locks, and replacing one is a single operation.
	resealQueuePause = time.Millisecond
	// resealQueueBatch is how many entries are sealed in one turn.
	resealQueueBatch = 20_000
)

// runQueue seals some entries of the queue. end is set if none is left. It
// reads the queue from its beginning: what was sealed before costs little, and
// the entries before the others are the first to leave.
//
// A damaged entry stays. It is dead when it is taken.
func (p *resealPass) runQueue(ctx context.Context, q Queue) (end bool, err error) {
	var keys []QueueKey
	var unknown []byte // the payload of an entry whose key this process lacks
	var unknownErr error
	err = q.Scan(ctx, func(e QueueEntry) bool {
		if p.target.isTarget(e.Payload) {
			return true
		}
		_, _, err := p.s.ring.open(e.String(), e.Payload)
		switch {
		case err == nil:
			keys = append(keys, e.QueueKey)
		case errors.Is(err, errUnknownKey) || errors.Is(err, errUnknownVersion):
			unknown, unknownErr = e.Payload, err
		}
		return len(keys) < resealQueueBatch
	})
	if err != nil {
		return false, err
	}
	if unknown != nil && errors.Is(p.s.explain(ctx, unknown, unknownErr), ErrForeignKey) {
		p.foreign.Add(1)
	}
	reseal := func(ctx context.Context, key QueueKey) error { return p.resealEntry(ctx, q, key) }
	if err := paced(ctx, keys, resealQueuePause, reseal); err != nil {
		return false, err
	}
	return len(keys) < resealQueueBatch, nil
}

// resealEntry seals one entry, unless it is gone.
func (p *resealPass) resealEntry(ctx context.Context, q Queue, key QueueKey) error {
	e, err := findEntry(ctx, q, key)
	if err != nil || e == nil || p.target.isTarget(e.Payload) {
		return err
	}
	payload, _, err := p.s.ring.open(key.String(), e.Payload)
	if err != nil {
		return nil
	}
	p.sealed.Add(1)
	return q.Replace(ctx, key, e.Payload, p.target.seal(key.String(), payload))
}

package store

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Resealer is a store whose records can be sealed with another key, which
// [Seal] returns.
type Resealer interface {
	// Reseal seals the records with the key of the store that are not yet, some
	// 12,000 a minute, and the entries of the queue, 60,000 a minute. Then it
	// waits for the next change of the key. It returns when ctx ends. Of several
	// processes one works, and another resumes what it has left. Only the seal
	// of a record changes, under its lock.
	Reseal(ctx context.Context, log *slog.Logger)
}

const (
	// resealPause is the time between two records: 200 a second.
	resealPause = 5 * time.Millisecond
	// resealers is how many records are sealed concurrently.
	resealers = 16
	// resealTurn is how long a process works before it saves its progress.
	// resealLease is longer: until then no other process takes over.
	resealTurn  = 30 * time.Second
	resealLease = time.Minute
	// resealIdle is how often a process looks for something to do.
	resealIdle = 15 * time.Second
	// keySettle is how long after a change of the key other processes may still
	// write records that are sealed with the key before, see keyRefresh.
	keySettle  = 3 * keyRefresh
	resealName = "wxproxy reseal"
)

func encodeHistory(h *keyHistory) []byte {
	b, err := json.Marshal(h)
	if err != nil {
		panic("BUG: key history cannot be encoded: " + err.Error())
	}
	return b
}

// Reseal implements [Resealer].
func (s *sealedStore) Reseal(ctx context.Context, log *slog.Logger) {
	warned := false
	for {
		more, err := s.resealTurn(ctx, log)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !warned {
			log.Warn("re-sealing records failed, retrying", "error", err)
		}
		warned = err != nil
		if more && err == nil {
			continue
		}
		select {
		case <-time.After(resealIdle):
		case <-ctx.Done():
			return
		}
	}
}

// resealTurn works for a while if there is something to do and no other process
// works. more is set if something is left.
func (s *sealedStore) resealTurn(ctx context.Context, log *slog.Logger) (more bool, err error) {
	st, err := s.refreshKey(ctx)
	if err != nil || !st.history.Pending || st.by == nil {
		return false, err
	}
	target, began := s.ring.target.Load(), time.Now()
	if s.changedTo != target {
		s.changedTo, s.changedAt = target, began
	}
	settled := st.history.Settled
	if st.history.After == "" { // a pass begins
		settled = began.Sub(s.changedAt) >= keySettle
	}
	name := claimName(resealName)
	first, err := s.inner.Claim(ctx, name, time.Now().Add(resealLease))
	if err != nil || !first {
		return false, err
	}
	defer s.inner.Unclaim(context.WithoutCancel(ctx), name)
	pass := &resealPass{s: s, target: target}
	end, err := pass.run(ctx, st.history.After)
	if err != nil {
		return false, err
	}
	more, done, err := pass.save(ctx, end, settled)
	if err != nil {
		return false, err
	}
	if n := pass.sealed.Load(); n > 0 {
		log.Info("records sealed with the current key", "records", n)
	}
	if done {
		log.Info("all records are sealed with the current key, previous_key is not needed any more")
	}
	return more && pass.foreign.Load() == 0, nil
}

// save saves the progress. done is set if no record is left, and more if the
// pass is to be continued, or repeated at once.
func (p *resealPass) save(ctx context.Context, end, settled bool) (more, done bool, err error) {
	s := p.s
	err = s.inner.Update(ctx, keysKey, func(_ context.Context, raw []byte) ([]byte, error) {
		text, _, err := s.ring.open(keysKey, raw)
		var h keyHistory
		if err != nil || json.Unmarshal(text, &h) != nil || s.ring.target.Load() != p.target {
			return Keep, nil
		}
		h.Changed = h.Changed || p.sealed.Load() > 0
		h.After, h.Settled = p.after, settled
		more = !end || h.Changed
		if end {
			// A process that had the key before may have written meanwhile. So
			// the last pass is one that finds nothing, and begins when none
			// can write such a record any more.
			done = !h.Changed && settled && p.foreign.Load() == 0
			h.Pending, h.After, h.Changed, h.Settled = !done, "", false, false
		}
		return p.target.seal(keysKey, encodeHistory(&h)), nil
	})
	return more, done, err
}

// resealPass is a part of one pass over all records.
type resealPass struct {
	s               *sealedStore
	target          *sealer
	after           string // key of the last record that was looked at
	sealed, foreign atomic.Int64
}

// run seals records from the one after `after` on, until it has worked for
// resealTurn. Then it seals the entries of the queue, if it has time for that.
// end is set if it has reached the last record and all entries.
func (p *resealPass) run(ctx context.Context, after string) (end bool, err error) {
	began := time.Now()
	p.after = after
	for !end && err == nil && time.Since(began) < resealTurn {
		end, err = p.batch(ctx, began.Add(resealTurn))
	}
	q, hasQueue := As[Queuer](p.s.inner)
	if !end || err != nil || !hasQueue {
		return end, err
	}
	if time.Since(began) > resealTurn/2 {
		return false, nil
	}
	return p.runQueue(ctx, q.Queue())
}

// batch seals some records. It reads their beginnings first, because List must
// not be held up.
func (p *resealPass) batch(ctx context.Context, until time.Time) (end bool, err error) {
	const size = 1000
	var keys []string
	looked := 0
	end = true
	last := p.after
	err = p.s.inner.List(ctx, "", p.after, func(key string, sealed []byte) bool {
		if looked++; len(keys) == size || looked%size == 0 && !time.Now().Before(until) {
			end = false
			return false
		}
		last = strings.Clone(key)
		if !isReserved(key) && sealed != nil && !p.target.isTarget(sealed) {
			keys = append(keys, last)
		}
		return true
	})
	if err != nil {
		return false, err
	}
	if err := paced(ctx, keys, resealPause, p.reseal); err != nil {
		return false, err
	}
	p.after = last
	return end, nil
}

// paced calls do with each of keys, with a pause between two calls and a few of
// them concurrently. It stops when one fails or ctx ends.
func paced[K any](
	ctx context.Context, keys []K, pause time.Duration, do func(context.Context, K) error,
) error {
	var all sync.WaitGroup
	slots := make(chan struct{}, resealers)
	var failed atomic.Pointer[error]
	pace := time.NewTicker(pause)
	defer pace.Stop()
	for _, key := range keys {
		select {
		case <-pace.C:
		case <-ctx.Done():
		}
		if ctx.Err() != nil || failed.Load() != nil {
			break
		}
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			if err := do(ctx, key); err != nil {
				failed.Store(&err)
			}
		})
	}
	all.Wait()
	if f := failed.Load(); f != nil {
		return *f
	}
	return ctx.Err()
}

// reseal seals one record. A damaged one stays: whatever reads it moves it.
func (p *resealPass) reseal(ctx context.Context, key string) error {
	err := p.s.inner.Update(ctx, key, func(ctx context.Context, sealed []byte) ([]byte, error) {
		if sealed == nil || p.target.isTarget(sealed) {
			return Keep, nil
		}
		record, _, err := p.s.ring.open(key, sealed)
		if err != nil {
			if errors.Is(p.s.explain(ctx, sealed, err), ErrForeignKey) {
				p.foreign.Add(1)
			}
			return Keep, nil
		}
		p.sealed.Add(1)
		return p.target.seal(key, record), nil
	})
	if errors.Is(err, ErrDamaged) {
		return nil // it was moved
	}
	return err
}

package redis

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"wxproxy/tokens/store"
)

// Update implements [store.Store]. Who waits for a key in this process waits in a queue; its first waits for the lock in
// Redis, asking now and then. The lock is extended while fn runs. It is lost when Redis cannot be reached until the lease has
// ended, or says that somebody else has it: then the context of fn ends with store.ErrLost as its cause. What fn returns
// all the same is saved if nobody else has written meanwhile.
func (s *Store) Update(ctx context.Context, key string, fn func(ctx context.Context, old []byte) ([]byte, error)) error {
	if s.closed.Load() {
		return store.ErrClosed
	}
	l := &lock{s: s, ctx: ctx, key: key, names: s.bucket(key)}
	// In the end unlocked, whatever has happened: also if fn panics, or the store is closed before it could save.
	defer l.drop()
	return s.locks.Update(ctx, key, l, func(ctx context.Context, old []byte) ([]byte, error) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		l.guard(cancel)
		defer l.rest()
		record, err := fn(ctx, old)
		if err != nil || record != nil && len(record) == 0 {
			l.drop() // before the next in the queue asks for it
		}
		return record, err
	})
}

// lock is one update's, and what [store.KeyLocks] reads and writes with: to read is to lock, to write is to unlock.
type lock struct {
	s     *Store
	ctx   context.Context // the caller's
	key   string
	names *names

	owner string      // random; "": not asked for
	free  atomic.Bool // unlocked, as far as we can
	read  string      // SHA-1 of the record, "" where there was none

	since time.Time // we have it

	mu     sync.Mutex
	end    time.Time // of the lease, by our clock, never later than by that of Redis
	timer  *time.Timer
	cancel context.CancelCauseFunc // nil: nothing is to be extended
}

// Between two tries for a lock that another process holds.
const (
	firstPause = 4 * time.Millisecond
	lastPause  = 120 * time.Millisecond
	// standBack is how long a process leaves a lock alone that another one waits for: for longer than that one pauses. It does so
	// after it has worked for some turnTime; otherwise a long queue in one process would keep the others out.
	standBack = 200 * time.Millisecond
	turnTime  = 250 * time.Millisecond
)

// Read locks, and gives the record, nil where there is none.
func (l *lock) Read(string) ([]byte, error) {
	if until, ok := l.s.back.LoadAndDelete(l.key); ok {
		if err := l.wait(time.Until(until.(time.Time))); err != nil {
			return nil, err
		}
	}
	l.owner = rand.Text()
	pause := firstPause
	for {
		asked := time.Now()
		answer, err := take.Run(l.ctx, l.s.client, []string{l.names.lock + l.key, l.names.records, l.names.want + l.key}, l.owner, l.s.lease.Milliseconds(), l.key).Result()
		if err != nil {
			// It may be ours without our knowing. Nobody waits for a Redis that is away to hear that it is not.
			l.free.Store(true)
			go l.unlock()
			return nil, l.s.fault(l.ctx, err)
		}
		if row, ok := answer.([]any); ok && len(row) == 1 {
			l.since, l.end = asked, asked.Add(l.s.lease)
			if err := l.ctx.Err(); err != nil {
				return nil, err
			}
			record, ok := row[0].(string)
			if !ok {
				return nil, nil
			}
			l.read = sum(record)
			return []byte(record), nil
		}
		// By chance, so that of several who wait none is always the last; and not long after the lease has ended.
		wait := pause/2 + mathrand.N(pause)
		if left, ok := answer.(int64); ok && left >= 0 {
			wait = min(wait, time.Duration(left+1)*time.Millisecond)
		}
		pause = min(pause*3/2, lastPause)
		if err := l.wait(wait); err != nil {
			l.free.Store(true) // it never was ours
			return nil, err
		}
	}
}

// wait returns early with an error when nobody wants the lock any more.
func (l *lock) wait(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-l.ctx.Done():
		return l.ctx.Err()
	case <-l.s.closing:
		return store.ErrClosed
	}
}

// unlocked is told what the script said. Where another process waits, the next in our queue stands back now and then: the more
// likely the longer we have worked.
func (l *lock) unlocked(said int) {
	if said < 2 || mathrand.N(turnTime) > time.Since(l.since) {
		return
	}
	until := time.Now().Add(standBack)
	l.s.back.Store(l.key, until)
	time.AfterFunc(standBack, func() { l.s.back.CompareAndDelete(l.key, until) })
}

func sum(record string) string {
	b := sha1.Sum([]byte(record)) // as Redis can
	return hex.EncodeToString(b[:])
}

// guard extends the lease until rest is called, and calls lost when it has ended.
func (l *lock) guard(lost context.CancelCauseFunc) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cancel = lost
	l.timer = time.AfterFunc(l.s.lease/3, l.extend)
}

func (l *lock) rest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cancel = nil
	l.timer.Stop()
}

func (l *lock) extend() {
	l.mu.Lock()
	end, lost := l.end, l.cancel
	l.mu.Unlock()
	if lost == nil {
		return
	}
	asked := time.Now()
	// Not the caller's context: where that has ended the work may still take its time.
	ctx, stop := context.WithDeadline(context.Background(), end)
	held, err := extend.Run(ctx, l.s.client, []string{l.names.lock + l.key}, l.owner, l.s.lease.Milliseconds()).Int()
	stop()
	switch {
	case err == nil && held == 0:
		lost(fmt.Errorf("%w: somebody else may have it", store.ErrLost))
		return
	case err == nil:
		end = asked.Add(l.s.lease)
	case !time.Now().Before(end):
		lost(fmt.Errorf("%w: %w", store.ErrLost, l.s.fault(context.Background(), err)))
		return
	}
	next := l.s.lease / 3
	if err != nil {
		next = l.s.lease / 20
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.end = end; l.cancel != nil {
		l.timer = time.AfterFunc(min(next, time.Until(end)), l.extend)
	}
}

// Write saves and unlocks. It tries for as long as a lease, whatever the caller's context says: a refresh token exists once.
func (l *lock) Write(_ string, record []byte) error {
	n := l.names
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), max(l.s.lease, 2*ioTimeout))
	defer cancel()
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		saved, err := save.Run(ctx, l.s.client, []string{n.lock + l.key, n.records, n.names, n.changes, n.head, n.want + l.key},
			l.owner, l.key, record, l.read, logged).Int()
		switch {
		case err == nil && saved > 0:
			l.free.Store(true)
			l.unlocked(saved)
			return nil
		case err == nil:
			l.free.Store(true)
			return l.s.located(store.ErrLost)
		case !passing(err):
			return l.s.fault(context.Background(), err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return l.s.fault(context.Background(), err)
		}
	}
}

// drop unlocks if that is not done yet. Where it fails the lease ends by itself.
func (l *lock) drop() {
	if l.owner != "" && !l.free.Swap(true) {
		l.unlock()
	}
}

func (l *lock) unlock() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), ioTimeout)
	defer cancel()
	if said, err := release.Run(ctx, l.s.client, []string{l.names.lock + l.key, l.names.want + l.key}, l.owner).Int(); err == nil {
		l.unlocked(said)
	}
}

// passing says that another try may be answered: nothing is wrong with what was asked.
func passing(err error) bool {
	word, isAnswer := answerOf(err)
	return !isAnswer && !errors.Is(err, goredis.ErrClosed) || isAnswer && passingWords[word]
}

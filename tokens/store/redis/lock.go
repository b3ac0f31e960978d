package redis

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/hex"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"wxproxy/tokens/store"
)

// Update implements [store.Store].
//
// The updates of a key in this process wait in a queue. The first of them
// competes for the lock in Redis with other processes, by asking again and
// again.
//
// While fn runs, the lease of the lock is extended. The lock is lost if Redis
// cannot be reached until the lease has expired, or if another process holds
// the lock. Then the context of fn ends with [store.ErrLost] as its cause. What
// fn returns nevertheless is saved if no other process has written meanwhile.
func (s *Store) Update(ctx context.Context, key string, fn store.UpdateFunc) error {
	if s.closed.Load() {
		return store.ErrClosed
	}
	l := &lock{s: s, ctx: ctx, key: key, bucket: s.bucket(key)}
	// Also if fn panics, or if the store is closed before the record was saved.
	defer l.ensureReleased()
	return s.locks.Update(ctx, key, l, func(ctx context.Context, old []byte) ([]byte, error) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		l.startExtending(cancel)
		defer l.stopExtending()
		record, err := fn(ctx, old)
		if !store.Writes(record, err) {
			// Nothing to save. Release it before the next update in the queue
			// asks for the lock.
			l.ensureReleased()
		}
		return record, err
	})
}

// lock is the lock of one Update. It is the [store.Backend] of that update:
// reading acquires the lock, and writing releases it, each in one script.
type lock struct {
	s      *Store
	ctx    context.Context // of the caller of Update
	key    string
	bucket *bucketKeys

	owner      string      // random; "" before the lock is requested
	released   atomic.Bool // the lock was released, or never acquired
	read       string      // the record that was read; "" if there was none
	readSum    string      // SHA-1 of read; "" if there was none
	acquiredAt time.Time

	mu sync.Mutex
	// leaseEnd is when the lease expires at the earliest: it is computed from
	// the time before the request was sent, so Redis never ends it before.
	leaseEnd time.Time
	timer    *time.Timer             // next extension
	lost     context.CancelCauseFunc // nil while the lease is not to be extended
}

// Pauses between two attempts to acquire or save. They grow from firstPause to
// lastPause.
const (
	firstPause = 4 * time.Millisecond
	lastPause  = 120 * time.Millisecond
)

// Read acquires the lock and returns the record, or nil if there is none.
func (l *lock) Read(string) ([]byte, error) {
	if until, ok := l.s.yields.LoadAndDelete(l.key); ok {
		if err := l.sleep(time.Until(until.(time.Time))); err != nil {
			return nil, err
		}
	}
	l.owner = rand.Text()
	keys := []string{l.bucket.lock + l.key, l.bucket.records, l.bucket.want + l.key}
	pause := firstPause
	for {
		sentAt := time.Now()
		reply, err := acquireScript.Run(l.ctx, l.s.client, keys,
			l.owner, l.s.lease.Milliseconds(), l.key).Result()
		if err != nil {
			// The lock may be acquired although the reply was lost. Release it
			// in the background: the caller must not wait for an unreachable
			// Redis.
			l.released.Store(true)
			go l.release()
			return nil, l.s.convertError(l.ctx, err)
		}
		if row, ok := reply.([]any); ok && len(row) == 1 {
			return l.acquired(sentAt, row[0])
		}
		// Another process holds the lock. The random part keeps a waiter from
		// always being the last; and there is no point in sleeping for longer
		// than the remaining lease.
		wait := pause/2 + mathrand.N(pause)
		if left, ok := reply.(int64); ok && left >= 0 {
			wait = min(wait, time.Duration(left+1)*time.Millisecond)
		}
		pause = min(pause*3/2, lastPause)
		if err := l.sleep(wait); err != nil {
			l.released.Store(true) // it was never acquired
			return nil, err
		}
	}
}

// acquired notes that the lock is held, and returns the record in the reply.
func (l *lock) acquired(sentAt time.Time, record any) ([]byte, error) {
	l.acquiredAt, l.leaseEnd = sentAt, sentAt.Add(l.s.lease)
	if err := l.ctx.Err(); err != nil {
		return nil, err
	}
	text, ok := record.(string)
	if !ok {
		return nil, nil
	}
	l.read, l.readSum = text, sha1Hex(text)
	return []byte(text), nil
}

// sha1Hex identifies a record. SHA-1 because Redis scripts have no other hash;
// records are sealed, so an attacker cannot choose them to collide.
func sha1Hex(record string) string {
	b := sha1.Sum([]byte(record))
	return hex.EncodeToString(b[:])
}

// sleep returns early with an error if the caller's context ends or the store
// is closed.
func (l *lock) sleep(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-l.ctx.Done():
		return l.ctx.Err()
	case <-l.s.closing:
		return store.ErrClosed
	}
}

// Write saves the record and releases the lock. It keeps trying for the length
// of a lease or longer, even if the caller's context has ended: WeChat issues a
// refresh token only once, so it must not be dropped for a short outage.
func (l *lock) Write(_ string, record []byte) error {
	b := l.bucket
	keys := []string{b.lock + l.key, b.records, b.names, b.changes, b.head, b.want + l.key}
	saveTimeout := max(l.s.lease, 2*l.s.timeouts.io)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), saveTimeout)
	defer cancel()
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		saved, err := saveScript.Run(ctx, l.s.client, keys,
			l.owner, l.key, record, l.readSum, changeLogSize).Int()
		switch {
		case err == nil && saved > 0:
			l.released.Store(true)
			l.yieldTurn(saved)
			return nil
		case err == nil:
			l.released.Store(true)
			return l.s.withName(store.ErrLost)
		case !isTransient(err):
			return l.s.convertError(context.Background(), err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return l.s.convertError(context.Background(), err)
		}
	}
}

// Quarantine copies the record to [store.DamagedPrefix], and then deletes it and
// releases the lock. The copy may be in another bucket, so the two are not
// atomic. After a crash in between, the damaged record is moved again.
//
// The copy needs no lock of its own: only the holder of the record's lock
// writes it.
func (l *lock) Quarantine(key string) error {
	if l.read == "" {
		return l.Write(key, nil)
	}
	moved := store.DamagedPrefix + key
	b := l.s.bucket(moved)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), 2*l.s.timeouts.io)
	defer cancel()
	keys := []string{b.records, b.names}
	if err := copyScript.Run(ctx, l.s.client, keys, moved, l.read).Err(); err != nil {
		return l.s.convertError(context.Background(), err)
	}
	return l.Write(key, nil)
}

// ensureReleased releases the lock unless that was done before. If it fails,
// the lease expires.
func (l *lock) ensureReleased() {
	if l.owner != "" && !l.released.Swap(true) {
		l.release()
	}
}

// release asks Redis to release the lock, whether or not it is held.
func (l *lock) release() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), l.s.timeouts.io)
	defer cancel()
	keys := []string{l.bucket.lock + l.key, l.bucket.want + l.key}
	if reply, err := releaseScript.Run(ctx, l.s.client, keys, l.owner).Int(); err == nil {
		l.yieldTurn(reply)
	}
}

// Without turns, a long queue in one process could keep the others out forever:
// its next update asks for the lock at once, the others only after a pause.
const (
	// yieldPause is how long a process leaves a lock to others. It is longer
	// than the longest pause of a waiter (1.5 times lastPause).
	yieldPause = 200 * time.Millisecond
	// turnLength is how long a process keeps a contended lock, on average at
	// most, before it yields.
	turnLength = 250 * time.Millisecond
)

// yieldTurn is called after a release with the reply of the script. If another
// process waits for the lock (reply 2), the next update of this process may
// have to wait for yieldPause. That is the more likely the longer this update
// took.
func (l *lock) yieldTurn(reply int) {
	if reply < 2 || mathrand.N(turnLength) > time.Since(l.acquiredAt) {
		return
	}
	until := time.Now().Add(yieldPause)
	l.s.yields.Store(l.key, until)
	time.AfterFunc(yieldPause, func() { l.s.yields.CompareAndDelete(l.key, until) })
}

package store

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// KeyLocks.Close waits for drainTimeout until the updates in flight have
// finished, then cancels their contexts and waits for cancelTimeout. The unit
// and the manifests in deploy/ grant a process at least the sum of both to
// stop.
const (
	drainTimeout  = 25 * time.Second
	cancelTimeout = 5 * time.Second
)

// Backend reads and writes the records of a store. [KeyLocks] provides the
// locking above it: it never calls Read and Write concurrently for one key.
type Backend interface {
	// Read returns a copy of the record, or nil if there is none. It returns
	// [ErrDamaged] for a record that cannot be opened.
	Read(key string) ([]byte, error)
	// Write saves the record durably, or deletes it if record is nil. It does
	// not keep record after it returns.
	Write(key string, record []byte) error
	// Quarantine moves the record that was read to [DamagedPrefix], as it is
	// stored. It returns nil once both changes are durable.
	Quarantine(key string) error
}

// KeyLocks holds the locks of a store that a single process owns, and
// implements Update for its [Backend]. In front of a lock that several
// processes share, it is the queue of this process.
//
// Each key has a lock of its own. With striped locks, two keys could share one,
// and an update inside an update (account, then component) could wait for
// itself. A lock exists only while it is held, so the memory in use depends on
// the updates in flight, not on the number of keys.
//
// Waiters get the lock in the order in which they came (FIFO).
type KeyLocks struct {
	updateCtx     context.Context // ends when Close cancels the updates in flight
	cancelUpdates context.CancelFunc
	closeBegun    chan struct{} // closed when Close begins
	drained       chan struct{} // closed when Close has begun and no lock is held

	mu sync.Mutex
	// queues holds the waiters of each locked key, as elements of type chan
	// struct{}. A key that is not locked has no entry.
	queues  map[string]*list.List
	closing bool // Close has begun

	// writeMu is held for reading while a record is written. Close holds it for
	// writing to wait for such a write before it gives up an update.
	writeMu   sync.RWMutex
	abandoned bool // guarded by writeMu: Close has returned, write nothing more
}

// NewKeyLocks returns locks of which none is held.
func NewKeyLocks() *KeyLocks {
	l := &KeyLocks{
		closeBegun: make(chan struct{}),
		drained:    make(chan struct{}),
		queues:     map[string]*list.List{},
	}
	l.updateCtx, l.cancelUpdates = context.WithCancel(context.Background())
	return l
}

// Update implements [Store.Update] for the records in b.
//
// fn may update another key. An update of the same key inside fn waits for
// itself until its context ends. After Close has begun, an inner update returns
// [ErrClosed] like any other. If fn panics, Update unlocks, saves nothing, and
// lets the panic continue.
//
// The context of fn ends with ctx, and when Close cancels updates. Update keeps
// the lock nevertheless until fn returns, and saves its result: WeChat may have
// issued a refresh token at the last moment, and issues it only once.
func (l *KeyLocks) Update(ctx context.Context, key string, b Backend, fn UpdateFunc) error {
	if key == "" {
		return ErrEmptyKey
	}
	if err := l.lock(ctx, key); err != nil {
		return err
	}
	defer l.unlock(key)

	record, err := l.compute(ctx, key, b, fn)
	if !Writes(record, err) {
		return err
	}

	l.writeMu.RLock()
	defer l.writeMu.RUnlock()
	switch {
	case l.abandoned:
		return ErrLost
	case err == nil:
		return b.Write(key, record)
	}
	if failed := b.Quarantine(key); failed != nil {
		return failed
	}
	return err
}

// compute reads the record and returns what fn makes of it: [Quarantine] and
// the error if the record cannot be read. The caller holds the lock of key.
func (l *KeyLocks) compute(
	ctx context.Context, key string, b Backend, fn UpdateFunc,
) ([]byte, error) {
	old, err := b.Read(key)
	if errors.Is(err, ErrDamaged) {
		return Quarantine, err
	}
	if err != nil {
		return nil, err
	}
	lockCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(l.updateCtx, func() { cancel(ErrClosed) })()
	return fn(lockCtx, old)
}

// lock returns nil once the caller holds the lock of key. It returns an error
// and does not hold the lock if ctx has ended, even if both happen at once.
func (l *KeyLocks) lock(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	if l.closing {
		l.mu.Unlock()
		return ErrClosed
	}
	queue, locked := l.queues[key]
	if !locked {
		l.queues[key] = list.New()
		l.mu.Unlock()
		return nil
	}
	granted := make(chan struct{})
	element := queue.PushBack(granted)
	l.mu.Unlock()

	var err error
	select {
	case <-granted:
		if err = ctx.Err(); err != nil {
			l.unlock(key)
		}
		return err
	case <-ctx.Done():
		err = ctx.Err()
	case <-l.closeBegun:
		err = ErrClosed
	}
	l.mu.Lock()
	select {
	case <-granted: // granted after the first select: pass it on
		l.passOn(key)
	default:
		queue.Remove(element)
	}
	l.mu.Unlock()
	return err
}

func (l *KeyLocks) unlock(key string) {
	l.mu.Lock()
	l.passOn(key)
	l.mu.Unlock()
}

// passOn grants the lock to the first waiter, or removes it if there is none.
// After Close has begun it removes the lock in any case, because the waiters
// leave with [ErrClosed]. The caller holds l.mu.
func (l *KeyLocks) passOn(key string) {
	queue := l.queues[key]
	if first := queue.Front(); first != nil && !l.closing {
		close(queue.Remove(first).(chan struct{}))
		return
	}
	delete(l.queues, key)
	if l.closing && len(l.queues) == 0 {
		close(l.drained)
	}
}

// Close rejects new updates and those that wait for a lock, and returns when
// the updates in flight have finished. After 25 seconds it cancels their
// contexts. Five seconds later it gives up: the remaining updates return
// [ErrLost] instead of saving, and Close returns an error with their number.
//
// When Close has returned, nothing is written any more and the backend may be
// closed. Close must be called only once.
func (l *KeyLocks) Close() error {
	l.mu.Lock()
	l.closing = true
	close(l.closeBegun)
	if len(l.queues) == 0 {
		close(l.drained)
	}
	l.mu.Unlock()
	defer l.cancelUpdates()

	if l.drainedWithin(drainTimeout) {
		return nil
	}
	l.cancelUpdates()
	if l.drainedWithin(cancelTimeout) {
		return nil
	}
	l.writeMu.Lock() // waits for a record that is being written
	l.abandoned = true
	l.writeMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queues) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d updates had not finished when the store was closed", ErrLost, len(l.queues))
}

// drainedWithin reports whether all updates finish within d.
func (l *KeyLocks) drainedWithin(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-l.drained:
		return true
	case <-t.C:
		return false
	}
}

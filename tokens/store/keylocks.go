package store

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrClosed is what every method of a Store says once its Close was called; updates
// that are under way at that moment may finish.
var ErrClosed = errors.New("the store is closed")

// How long the Close of a store waits: first for updates to finish of themselves, then for
// them to follow the end of their contexts.
const (
	drainTimeout  = 25 * time.Second
	cancelTimeout = 5 * time.Second
)

// Backend is where the records of a store of one process lie, below its locks.
type Backend interface {
	// Read gives a copy of the record, nil where there is none.
	Read(key string) ([]byte, error)
	// Write saves the record durably and does not keep it; nil deletes.
	Write(key string, record []byte) error
}

// KeyLocks are the locks of a store that belongs to one process: it is the Update of such a
// store, whatever its [Backend], and the queue in front of a lock that processes share. There is a lock for each key, and none that two keys share: with
// striped locks an update inside an update (account, then component) would now and then
// wait for itself. What is kept grows with the updates under way, not with the keys ever seen.
//
// Waiters are served in the order in which they came.
type KeyLocks struct {
	updateCtx     context.Context // ends when Close has lost its patience
	cancelUpdates context.CancelFunc
	closeBegun    chan struct{} // closed by Close: nobody is let in any more
	drained       chan struct{} // closed when, after that, the last update has ended

	mu      sync.Mutex
	queues  map[string]*list.List // of each locked key; the elements are chan struct{}
	closing bool

	writeMu   sync.RWMutex // lockCtx for reading while a record is written
	abandoned bool         // behind saving: the medium is about to go away
}

// NewKeyLocks gives a table in which nothing is locked.
func NewKeyLocks() *KeyLocks {
	l := &KeyLocks{
		closeBegun: make(chan struct{}),
		drained:    make(chan struct{}),
		queues:     map[string]*list.List{},
	}
	l.updateCtx, l.cancelUpdates = context.WithCancel(context.Background())
	return l
}

// Update does what [Store] says of it, with the records of m.
//
// An update of a key inside an update of the same key waits for itself until its context ends;
// one of another key is an update of its own, refused like any other once Close was called.
// A panic of fn unlocks, saves nothing, and goes on.
//
// The context of fn ends with ctx, and when Close has waited for long enough. The lock is held
// all the same until fn returns, and what fn returns after the end of its context is saved: WeChat
// may have handed out, at the last moment, what it will not hand out again.
func (l *KeyLocks) Update(ctx context.Context, key string, b Backend, fn func(ctx context.Context, old []byte) ([]byte, error)) error {
	if key == "" {
		return errors.New("a record needs a key")
	}
	if err := l.lock(ctx, key); err != nil {
		return err
	}
	defer l.unlock(key)

	old, err := b.Read(key)
	if err != nil {
		return err
	}
	lockCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(l.updateCtx, func() { cancel(ErrClosed) })()
	record, err := fn(lockCtx, old)
	if err != nil {
		return err
	}
	if record != nil && len(record) == 0 { // Keep
		return nil
	}

	l.writeMu.RLock()
	defer l.writeMu.RUnlock()
	if l.abandoned {
		return ErrLost
	}
	return b.Write(key, record)
}

// lock returns nil when key is the caller's. It is not if ctx has ended, even in the same moment.
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
	case <-granted: // the lock came while we turned to go: it goes to the next
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

// pass gives the lock to whoever has waited longest, or forgets it. While the store closes nobody
// gets it: those who wait are on their way out. l.mu is held.
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

// Close refuses new updates and those that still wait for a lock, and returns when those under way
// have ended. After 25 seconds their contexts end. Those that do not follow within another 5 are
// given up: they get ErrLost instead of being saved, and Close says how many there are. The medium may
// be taken away when Close has returned; it is to be called once.
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
	l.writeMu.Lock() // waits for what is being written now
	l.abandoned = true
	l.writeMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queues) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d updates had not ended when the store was closed", ErrLost, len(l.queues))
}

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

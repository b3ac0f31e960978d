package tokens

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"wxproxy/tokens/store"
)

// quarantine is the store of a Broker. To the rest of the Broker a damaged
// record is a missing one, which leads to WeChat: it is moved to
// [store.DamagedPrefix], logged, and counted. It is safe for concurrent use.
//
// A record is moved under its lock, and only if it is still damaged there:
//
//  1. reader:  read a damaged record
//  2. renewal: lock; move the damaged record; save a new one; unlock
//  3. reader:  lock; the record is good: leave it; unlock
type quarantine struct {
	store.Store
	tasks *taskGroup
	log   *slog.Logger
	lines *rate.Limiter // of the log

	mu     sync.Mutex
	moving map[string]bool // keys that are being moved in the background
}

const (
	// maxMoves bounds the moves in the background. A damaged record beyond that
	// is moved when it is read again.
	maxMoves = 64
	// maxUpdates bounds the attempts of one Update. Each but the last has moved
	// a damaged record, so more than two mean that something writes damaged
	// records all the time.
	maxUpdates = 4
	// Up to damageLinesBurst moves are logged at once, then one in each
	// damageLinesEvery: a broken disk must not fill another one with logs.
	damageLinesBurst = 100
	damageLinesEvery = time.Second
)

func newQuarantine(s store.Store, tasks *taskGroup, log *slog.Logger) *quarantine {
	return &quarantine{
		Store: s, tasks: tasks, log: log, moving: map[string]bool{},
		lines: rate.NewLimiter(rate.Every(damageLinesEvery), damageLinesBurst),
	}
}

// Load implements [store.Store]. It does not wait until a damaged record was
// moved, which takes the record's lock.
func (q *quarantine) Load(ctx context.Context, key string) ([]byte, error) {
	raw, err := q.Store.Load(ctx, key)
	if errors.Is(err, store.ErrDamaged) {
		q.moveLater(key, nil)
		return nil, store.ErrNotFound
	}
	return raw, err
}

// Update implements [store.Store]. After a damaged record was moved, it calls
// fn without a record.
func (q *quarantine) Update(ctx context.Context, key string, fn store.UpdateFunc) (err error) {
	for range maxUpdates {
		if err = q.Store.Update(ctx, key, fn); !errors.Is(err, store.ErrDamaged) {
			return err
		}
		q.moved(key, err)
	}
	return fmt.Errorf("the record is damaged again and again: %v", err)
}

// Unwrap returns the inner store, see [store.As].
func (q *quarantine) Unwrap() store.Store { return q.Store }

// List implements [store.Store]. It skips damaged records.
func (q *quarantine) List(
	ctx context.Context, prefix, after string, yield func(key string, record []byte) bool,
) error {
	return q.Store.List(ctx, prefix, after, func(key string, record []byte) bool {
		if record == nil {
			q.moveLater(key, nil)
			return true
		}
		return yield(key, record)
	})
}

// moveLater moves the record under key in the background, if it is still
// damaged: if the store cannot open it, or if check, which may be nil, returns
// an error that wraps [store.ErrDamaged].
func (q *quarantine) moveLater(key string, check func(raw []byte) error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.moving[key] || len(q.moving) >= maxMoves {
		return
	}
	q.moving[key] = true
	go func() {
		_ = q.tasks.run(q.tasks.background, taskTimeout, func(ctx context.Context) error {
			q.move(ctx, key, check)
			return nil
		})
		q.mu.Lock()
		delete(q.moving, key)
		q.mu.Unlock()
	}()
}

func (q *quarantine) move(ctx context.Context, key string, check func(raw []byte) error) {
	err := q.Store.Update(ctx, key, func(_ context.Context, raw []byte) ([]byte, error) {
		if raw != nil && check != nil {
			if err := check(raw); err != nil {
				return store.Quarantine, err
			}
		}
		return store.Keep, nil
	})
	switch {
	case errors.Is(err, store.ErrDamaged):
		q.moved(key, err)
	case err != nil && ctx.Err() == nil && q.lines.Allow():
		q.log.Warn("moving a damaged record failed", "key", key, "error", err)
	}
}

// moved logs that the record under key was moved. The reason contains nothing
// of the record.
func (q *quarantine) moved(key string, reason error) {
	if q.lines.Allow() {
		q.log.Error("damaged record moved away, continuing without it", "key", key,
			"reason", reason)
	}
}

// damagedCountLifetime is how long a count of the damaged records serves.
const damagedCountLifetime = time.Second

// damagedCounter counts the records below [store.DamagedPrefix]. It is safe for
// concurrent use.
type damagedCounter struct {
	store store.Store
	tasks *taskGroup
	now   func() time.Time

	mu    sync.Mutex
	n     int
	until time.Time // from then on they are counted again
}

// get implements [Stats.DamagedRecords].
func (c *damagedCounter) get() (n int, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if now.Before(c.until) && c.until.Sub(now) <= damagedCountLifetime {
		return c.n, true
	}
	ctx, cancel := context.WithTimeout(c.tasks.ctx, statusTimeout)
	defer cancel()
	err := store.Innermost(c.store).List(ctx, store.DamagedPrefix, "", func(string, []byte) bool {
		n++
		return true
	})
	if err != nil {
		return 0, false
	}
	c.n, c.until = n, now.Add(damagedCountLifetime)
	return n, true
}

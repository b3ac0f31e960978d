package namespace

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"wxproxy/tokens/store"
)

// oldPrefixes begin the names of records in stores of format 1. The tickets are
// the last to be moved: until then they say whose the other records are.
var oldPrefixes = []string{accountPrefix, "code/", "name/", "spent/", "sync/", ticketPrefix}

const ticketPrefix = "ticket/"

// hasOldName reports whether a record in the database has a name of format 1.
func hasOldName(stored string) bool {
	for _, p := range oldPrefixes {
		if strings.HasPrefix(stored, p) {
			return true
		}
	}
	return false
}

const (
	// moveBatch is how many names are read before their records are moved.
	moveBatch = 4096
	// movers is how many records are moved concurrently. A file store commits
	// concurrent writes together, and Redis has 64 connections.
	movers = 64
	// progressInterval is the time between two messages about the progress.
	progressInterval = 10 * time.Second
)

// Move gives the records of stores of format 1 their present names. Call it
// before anything else uses the store: what has not been moved yet is missing.
//
// First it marks the store, so that earlier versions of wxproxy, which would
// take all records for missing, refuse to open it. Any number of processes may
// run Move concurrently, and one that was interrupted is resumed by the next.
// A record under its new name stands unless the old one is newer; see isNewer.
//
// Records that cannot be read are moved to [store.DamagedPrefix], and logged.
// Errors are those of the store, and the one of ctx.
func (n *Namespace) Move(ctx context.Context) error {
	if u, ok := store.As[store.Upgrader](n.inner); ok {
		if err := u.Upgrade(ctx); err != nil {
			return err
		}
	}
	owner, err := n.oldOwner(ctx)
	if err != nil {
		return err
	}
	m := &mover{n: n, owner: owner, began: time.Now()}
	m.logged = m.began
	for _, prefix := range oldPrefixes {
		if err := m.moveAll(ctx, prefix); err != nil {
			return fmt.Errorf("moving records to their new names: %w", err)
		}
	}
	if m.moved.Load() > 0 {
		m.log("records moved to names with the appid of their component")
	}
	return nil
}

// moveInBackground runs Move unless it is running already.
func (n *Namespace) moveInBackground(ctx context.Context) {
	if !n.moving.CompareAndSwap(false, true) {
		return
	}
	n.moves.Go(func() {
		defer n.moving.Store(false)
		if err := n.Move(ctx); err != nil && ctx.Err() == nil {
			n.log.Warn("moving records to their new names failed", "error", err)
		}
	})
}

// oldOwner returns the component to which records under old names belong. It is
// the one whose ticket is stored, even if another one is configured now: a
// mistake in the configuration must not give the accounts to another platform.
// Without a ticket it is the configured component, which may be "".
func (n *Namespace) oldOwner(ctx context.Context) (owner string, err error) {
	newest, configured := int64(-1), n.platform.Load().Component
	err = n.inner.List(ctx, ticketPrefix, "", func(stored string, record []byte) bool {
		appid := strings.TrimPrefix(stored, ticketPrefix)
		if created := parseTimes(record).event(); appid == configured || created > newest {
			owner, newest = strings.Clone(appid), created
		}
		return appid != configured
	})
	if owner == "" {
		owner = configured
	}
	return owner, err
}

// mover is one run of Move.
type mover struct {
	n     *Namespace
	owner string // component of the records that do not name theirs
	began time.Time

	moved, damaged atomic.Int64
	logged         time.Time // when the progress was logged last
}

func (m *mover) log(msg string) {
	m.logged = time.Now()
	m.n.log.Info(msg, "moved", m.moved.Load(), "damaged", m.damaged.Load(),
		"took", m.logged.Sub(m.began).Round(time.Millisecond))
}

// rename is a record's old name in the database, and its new one.
type rename struct{ from, to string }

// moveAll moves the records whose names begin with prefix.
func (m *mover) moveAll(ctx context.Context, prefix string) error {
	for after, more := "", true; more; {
		var batch []rename
		err := m.n.inner.List(ctx, prefix, after, func(stored string, record []byte) bool {
			after = strings.Clone(stored)
			if to := m.target(after, record); to != "" {
				batch = append(batch, rename{after, to})
			}
			return len(batch) < moveBatch
		})
		if err != nil {
			return err
		}
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(movers)
		for _, r := range batch {
			g.Go(func() error { return m.move(gctx, r) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
		more = len(batch) == moveBatch
		if time.Since(m.logged) >= progressInterval {
			m.log("moving records to names with the appid of their component")
		}
	}
	return nil
}

// target returns the new name of a record, or "" if its component is unknown.
func (m *mover) target(stored string, record []byte) string {
	kind, name, _ := strings.Cut(stored, "/")
	owner := m.owner
	switch kind + "/" {
	case ticketPrefix, "sync/":
		owner = name
	case accountPrefix:
		var account struct {
			Kind string `json:"kind"`
		}
		// An account that cannot be parsed is moved like the others.
		_ = json.Unmarshal(record, &account)
		switch account.Kind {
		case "app":
			return ownPrefix + stored
		case "component":
			owner = name
		}
	}
	if owner == "" {
		return ""
	}
	return (&Platform{Component: owner}).prefix() + stored
}

// move moves one record. The old one is deleted last, so that a killed process
// loses nothing.
func (m *mover) move(ctx context.Context, r rename) error {
	for deleted := false; !deleted; {
		read, err := m.copy(ctx, r)
		if err == nil {
			deleted, err = m.deleteUnchanged(ctx, r.from, read)
		}
		switch {
		case errors.Is(err, store.ErrNotFound):
			return nil // another process has moved it
		case errors.Is(err, store.ErrDamaged):
			// If the old record is good, it was the one under the new name, and
			// is out of the way now.
			damaged, err := m.isDamaged(ctx, r.from)
			if err != nil || damaged {
				return err
			}
		case err != nil:
			return err
		}
	}
	m.moved.Add(1)
	return nil
}

// isDamaged reports whether the record under key was damaged. It is moved to
// [store.DamagedPrefix] then.
func (m *mover) isDamaged(ctx context.Context, key string) (bool, error) {
	err := m.n.inner.Update(ctx, key, func(context.Context, []byte) ([]byte, error) {
		return store.Keep, nil
	})
	if !errors.Is(err, store.ErrDamaged) {
		return false, err
	}
	m.damaged.Add(1)
	m.n.log.Error("damaged record moved away, continuing without it", "record", key, "reason", err)
	return true, nil
}

// copy saves a record under its new name and returns it. The record is read
// again under the lock of that name: another process may have moved it, and
// used and deleted it since.
func (m *mover) copy(ctx context.Context, r rename) (read []byte, err error) {
	err = m.n.inner.Update(ctx, r.to, func(ctx context.Context, current []byte) ([]byte, error) {
		var err error
		if read, err = m.n.inner.Load(ctx, r.from); err != nil {
			return nil, err
		}
		if current != nil && !isNewer(read, current) {
			return store.Keep, nil
		}
		return bytes.Clone(read), nil
	})
	return read, err
}

// deleteUnchanged deletes a record and returns true, unless a process of an
// earlier version has changed it since it was read.
func (m *mover) deleteUnchanged(
	ctx context.Context, key string, read []byte,
) (deleted bool, err error) {
	err = m.n.inner.Update(ctx, key, func(_ context.Context, current []byte) ([]byte, error) {
		deleted = current == nil || bytes.Equal(current, read)
		if current == nil || !deleted {
			return store.Keep, nil
		}
		return nil, nil
	})
	return deleted, err
}

// times are what says which of two records of one name is newer. A record that
// does not have them, or cannot be parsed, has zeros.
type times struct {
	Created    int64 `json:"created"` // of tickets and codes, by WeChat's clock
	Authorized int64 `json:"authorized"`
	Revoked    int64 `json:"revoked"`
	Issued     int64 `json:"issued"` // of tokens, by wxproxy's clock
}

func parseTimes(record []byte) (t times) {
	_ = json.Unmarshal(record, &t)
	return t
}

// event returns the newest of WeChat's times.
func (t times) event() int64 { return max(t.Created, t.Authorized, t.Revoked) }

// isNewer reports whether the record a is newer than b: an event that WeChat
// has reported decides, and among records of the same event the tokens.
func isNewer(a, b []byte) bool {
	x, y := parseTimes(a), parseTimes(b)
	return x.event() > y.event() || x.event() == y.event() && x.Issued > y.Issued
}

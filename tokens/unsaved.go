package tokens

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"wxproxy/tokens/store"
)

// unsavedStore is the store of a Broker. It keeps what WeChat has issued and
// the database could not save, and saves it as soon as it can. It is safe for
// concurrent use.
//
// WeChat issues a token once: it has already replaced the one before. So a
// grant whose save failed is not dropped. It becomes a change of a record that
// is still to be made:
//
//   - Load and List return the record as it will be. So the token serves,
//     although no other process knows it.
//   - Update makes the change first, and calls its function only after the
//     change was saved. So nothing more is fetched for the account, and an
//     operator's action or a push finds the record as it should be.
//   - In the background the change is tried twice a second, and when the Broker
//     is closed.
//
// If the process ends before that, the account is as after a crash during a
// renewal: WeChat lists the refresh token that it holds.
//
// A change belongs to the record that it was made from. Another process may
// have written meanwhile:
//
//  1. process 1: fetch token T1; the save fails
//  2. process 2: fetch token T2, which invalidates T1; save it
//  3. process 1: save T1 (must not happen)
//
// So each change looks at the stored record, and drops itself if that holds
// another grant. A record that is missing was lost, and is written again: an
// account that an operator forgot has a record that says so.
type unsavedStore struct {
	store.Store
	// unwritable returns why a record cannot be written at present; see
	// [store.Monitored.Writable].
	unwritable func(key string) error

	tasks *taskGroup
	now   func() time.Time
	log   *slog.Logger

	mu      sync.Mutex
	changes map[string][]*unsavedChange // by key of the record, in the order of making
	saving  bool                        // a goroutine tries to save them
}

// unsavedChange is a change of one record. From the time it is added it is made
// before any other change of that record. It is visible only after its save has
// failed: until then, what WeChat issued must not be used.
type unsavedChange struct {
	key string
	// apply returns the new record, given the stored one, which is nil if there
	// is none. It returns nil if there is nothing to save: the change was made
	// already, or the stored record is newer.
	apply  func(stored []byte) ([]byte, error)
	failed bool
}

const (
	// saveUnsavedPause is the time between two attempts to save what is
	// unsaved.
	saveUnsavedPause = 500 * time.Millisecond
	// unwritablePause is the Retry-After of what is not fetched because it
	// could not be saved.
	unwritablePause = 2 * time.Second
	// closeSavePatience is how long Close tries to save what is unsaved if its
	// context has no deadline, and at least a fifth of it if it has ended.
	closeSavePatience = 5 * time.Second
)

// errUnsaved: an earlier change of the record has to be saved first.
var errUnsaved = errors.New("an earlier change of this record is not saved yet")

func newUnsavedStore(
	inner store.Store, unwritable func(key string) error,
	tasks *taskGroup, now func() time.Time, log *slog.Logger,
) *unsavedStore {
	return &unsavedStore{
		Store: inner, unwritable: unwritable, tasks: tasks, now: now, log: log,
		changes: map[string][]*unsavedChange{},
	}
}

// Unwrap returns the store below, see [store.As].
func (u *unsavedStore) Unwrap() store.Store { return u.Store }

// writable returns nil, or an ErrUnavailable if the record key cannot be
// written at present. What WeChat issues must not be fetched then.
func (u *unsavedStore) writable(key string) error {
	err := u.unwritable(key)
	if err == nil {
		return nil
	}
	return &unavailableError{
		reason:  storeUnavailable + "it cannot be written: " + err.Error(),
		retryAt: u.now().Add(unwritablePause), cause: err,
	}
}

// add returns a new change of the record key. It must be called before the save
// begins, under the record's lock if the caller holds it, so that no other
// update comes in between. The caller passes the change to finish.
func (u *unsavedStore) add(
	key string, apply func(stored []byte) ([]byte, error),
) *unsavedChange {
	c := &unsavedChange{key: key, apply: apply}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.changes[key] = append(u.changes[key], c)
	return c
}

// finish ends the save of c, whose error is err. It returns nil if the change
// was saved or is kept. A nil c is no change, and finish returns err.
func (u *unsavedStore) finish(c *unsavedChange, err error) error {
	if c == nil {
		return err
	}
	if err == nil {
		u.remove(c.key, []*unsavedChange{c})
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	// Another update may have saved it meanwhile.
	if slices.Contains(u.changes[c.key], c) {
		c.failed = true
		u.log.Error("what WeChat issued could not be saved, it serves from memory until it is",
			"record", c.key, "error", err)
		if !u.saving {
			u.saving = true
			go u.run()
		}
	}
	return nil
}

// remove removes changes that were saved or have dropped themselves.
func (u *unsavedStore) remove(key string, done []*unsavedChange) {
	u.mu.Lock()
	defer u.mu.Unlock()
	left := slices.DeleteFunc(u.changes[key], func(c *unsavedChange) bool {
		return slices.Contains(done, c)
	})
	if u.changes[key] = left; len(left) == 0 {
		delete(u.changes, key)
	}
}

// of returns the changes of a record, nil if there are none.
func (u *unsavedStore) of(key string) []*unsavedChange {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.changes[key])
}

// visible returns the changes of a record whose save has failed.
func (u *unsavedStore) visible(key string) []*unsavedChange {
	u.mu.Lock()
	defer u.mu.Unlock()
	var failed []*unsavedChange
	for _, c := range u.changes[key] {
		if c.failed {
			failed = append(failed, c)
		}
	}
	return failed
}

// apply makes the changes in their order. It returns nil if none applies.
func apply(changes []*unsavedChange, stored []byte) (record []byte, err error) {
	for _, c := range changes {
		changed, err := c.apply(stored)
		if err != nil {
			return nil, err
		}
		if changed != nil {
			stored, record = changed, changed
		}
	}
	return record, nil
}

// Load implements [store.Store]. If the database fails, it returns a record
// with unsaved changes from memory.
func (u *unsavedStore) Load(ctx context.Context, key string) ([]byte, error) {
	stored, err := u.Store.Load(ctx, key)
	changes := u.visible(key)
	if len(changes) == 0 {
		return stored, err
	}
	record, applyErr := apply(changes, stored)
	if applyErr != nil { // the stored record is damaged, and will be moved
		record, _ = apply(changes, nil)
	}
	if record != nil {
		return record, nil
	}
	return stored, err
}

// List implements [store.Store]. Records that are not in the database at all
// are missing.
func (u *unsavedStore) List(
	ctx context.Context, prefix, after string, yield func(key string, record []byte) bool,
) error {
	return u.Store.List(ctx, prefix, after, func(key string, stored []byte) bool {
		if changes := u.visible(key); len(changes) > 0 {
			if record, err := apply(changes, stored); err == nil && record != nil {
				stored = record
			}
		}
		return yield(key, stored)
	})
}

// Update implements [store.Store].
func (u *unsavedStore) Update(ctx context.Context, key string, fn store.UpdateFunc) error {
	for {
		if len(u.visible(key)) > 0 {
			if err := u.save(ctx, key); err != nil {
				return fmt.Errorf("saving what WeChat issued before: %w", err)
			}
		}
		err := u.Store.Update(ctx, key, func(ctx context.Context, stored []byte) ([]byte, error) {
			// The save of an update before this one may have failed just now.
			if changes := u.of(key); len(changes) > 0 {
				if record, err := apply(changes, stored); err != nil || record != nil {
					return nil, errUnsaved
				}
			}
			return fn(ctx, stored)
		})
		if !errors.Is(err, errUnsaved) {
			return err
		}
		if err := u.save(ctx, key); err != nil {
			return fmt.Errorf("saving what WeChat issued before: %w", err)
		}
	}
}

// save makes the changes of a record. After an error they remain.
func (u *unsavedStore) save(ctx context.Context, key string) error {
	var changes []*unsavedChange
	saved := false
	err := u.Store.Update(ctx, key, func(_ context.Context, stored []byte) ([]byte, error) {
		changes = u.of(key)
		record, err := apply(changes, stored)
		switch saved = record != nil; {
		case err != nil:
			return store.Quarantine, err // the next attempt finds no record
		case !saved:
			return store.Keep, nil
		}
		return record, nil
	})
	if err != nil {
		return err
	}
	u.remove(key, changes)
	if len(changes) > 0 && changes[0].failed {
		u.log.Info("unsaved record done", "record", key, "saved", saved)
	}
	return nil
}

// keys returns the records with changes whose save has failed.
func (u *unsavedStore) keys() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	var keys []string
	for key, changes := range u.changes {
		if slices.ContainsFunc(changes, func(c *unsavedChange) bool { return c.failed }) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// accounts returns how many accounts have an unsaved grant.
func (u *unsavedStore) accounts() int {
	n := 0
	for _, key := range u.keys() {
		if strings.HasPrefix(key, accountPrefix) {
			n++
		}
	}
	return n
}

// run tries to save what is unsaved, until nothing is left or the Broker is
// closed; see flush.
func (u *unsavedStore) run() {
	t := time.NewTicker(saveUnsavedPause)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-u.tasks.background.Done():
			return // saving stays set: no other goroutine is started
		}
		for _, key := range u.keys() {
			if u.unwritable(key) != nil {
				continue // the monitor pings the store meanwhile
			}
			_ = u.tasks.run(u.tasks.background, taskTimeout, func(ctx context.Context) error {
				return u.save(ctx, key)
			})
		}
		u.mu.Lock()
		u.saving = len(u.changes) > 0
		done := !u.saving
		u.mu.Unlock()
		if done {
			return
		}
	}
}

// flush saves what is unsaved. It is called when nothing else uses the store
// any more, tries until ctx ends, at least once, and logs what is lost.
func (u *unsavedStore) flush(ctx context.Context) {
	end := time.Now().Add(closeSavePatience)
	if deadline, ok := ctx.Deadline(); ok {
		end = deadline
	}
	if soonest := time.Now().Add(closeSavePatience / 5); ctx.Err() != nil || end.Before(soonest) {
		end = soonest
	}
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), end)
	defer cancel()
	for {
		var err error
		for _, key := range u.keys() {
			err = errors.Join(err, u.save(ctx, key))
		}
		if err == nil {
			return
		}
		select {
		case <-time.After(saveUnsavedPause / 5):
		case <-ctx.Done():
			u.log.Error("stopping although what WeChat issued could not be saved, "+
				"the next start recovers it from WeChat's list",
				"records", u.keys(), "error", err)
			return
		}
	}
}

// unsavedRecord makes apply a change of encoded records. The stored record is
// nil if there is none.
func unsavedRecord[T record](apply func(stored *T) *T) func([]byte) ([]byte, error) {
	return func(raw []byte) ([]byte, error) {
		stored, err := decodeRecord[T](raw)
		if err != nil {
			return nil, err
		}
		if changed := apply(stored); changed != nil {
			return encodeRecord(changed), nil
		}
		return nil, nil
	}
}

// addGrant adds the change of an account's record from the one that was stored,
// nil if there was none, to made, which holds what WeChat issued.
func (u *unsavedStore) addGrant(appid string, from, made *account) *unsavedChange {
	made = made.clone()
	return u.add(accountKey(appid), unsavedRecord(func(stored *account) *account {
		switch {
		case stored.hasGrantOf(made), stored != nil && !stored.hasGrantOf(from):
			return nil // saved already, or newer
		}
		next := made.clone()
		if stored != nil && stored.ProfiledAt > next.ProfiledAt {
			next.Name, next.Type = stored.Name, stored.Type
			next.UserName, next.ProfiledAt = stored.UserName, stored.ProfiledAt
		}
		return next
	}))
}

// clone returns a copy, nil of nil.
func (a *account) clone() *account {
	if a == nil {
		return nil
	}
	b := *a
	return &b
}

// hasGrantOf reports whether a and b hold the same tokens of the same
// authorization. Two nil accounts do.
func (a *account) hasGrantOf(b *account) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Access == b.Access && a.Refresh == b.Refresh && a.ExpiresAt == b.ExpiresAt &&
		a.CodeFingerprint == b.CodeFingerprint && a.IsRevoked == b.IsRevoked &&
		a.ForgottenAt == b.ForgottenAt
}

// saveGrant changes the record of appid with what WeChat issued for it. It
// returns nil if the change was saved or is kept. apply gets the stored record,
// nil if there is none, and returns the one to save, or nil if that is newer.
// It may be called several times, also later, and concurrently, and must not
// change anything else.
func (u *unsavedStore) saveGrant(
	ctx context.Context, appid string, apply func(stored *account) *account,
) error {
	c := u.add(accountKey(appid), unsavedRecord(apply))
	return u.finish(c, u.save(ctx, c.key))
}

package tokens

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"wxproxy/tokens/store"
)

// SigningKey returns [store.KeySize] random bytes that are kept in the store
// under name. The first call for a name generates them. All replicas get the
// same bytes, even after a restart, so what is signed with them stays valid as
// long as the store exists.
//
// If onChange is not nil, the key is replaced every 30 days. onChange is called
// before SigningKey returns, and after each change until the Broker is closed,
// with the key that signs now and the others that have to be accepted. Those
// are the next one, ten minutes before it signs, so that every replica knows it
// by then, and the previous one, for three hours. The key that SigningKey
// returns is the first of them all, and stays.
func (b *Broker) SigningKey(
	ctx context.Context, name string, onChange func(current []byte, others ...[]byte),
) ([]byte, error) {
	return b.signingKeys.get(ctx, name, onChange)
}

const (
	// keyLifetime is how long a key signs that is replaced at all.
	keyLifetime = 30 * 24 * time.Hour
	// keyLead is how long a key is known before it signs. It is many times
	// keyPollInterval.
	keyLead = 10 * time.Minute
	// keyOverlap is how long a key is accepted after it has signed. Stand-ins
	// are valid for 2 h 5 min.
	keyOverlap = 3 * time.Hour
	// keyPollInterval is how often a process reads the keys that are replaced.
	keyPollInterval = time.Minute
)

// signingKeys keeps the signing keys in the store, and remembers those that
// this process uses. It is safe for concurrent use.
type signingKeys struct {
	store store.Store
	tasks *taskGroup
	now   func() time.Time
	log   *slog.Logger
	// clockIsFarOff reports whether this machine's clock is of no use; see
	// clocks.farOff. This process replaces no keys then: one with a clock a
	// month ahead would do so once a minute, and reject what others signed. May
	// be nil.
	clockIsFarOff func() bool

	mu    sync.Mutex
	inUse map[string]signingKeyRecord // by name; nil until the first key is used
}

// get implements [Broker.SigningKey].
func (k *signingKeys) get(
	ctx context.Context, name string, onChange func(current []byte, others ...[]byte),
) ([]byte, error) {
	r, err := k.read(ctx, name, onChange != nil)
	if err != nil {
		return nil, err
	}
	if onChange != nil {
		onChange(r.current(), r.others()...)
		k.tasks.wg.Go(func() { k.follow(name, r, onChange) })
	}
	return r.Key, nil
}

// follow polls the key of that name until the Broker is closed.
func (k *signingKeys) follow(
	name string, known signingKeyRecord, onChange func(current []byte, others ...[]byte),
) {
	t := time.NewTicker(keyPollInterval)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-k.tasks.background.Done():
			return
		}
		r, changed, err := k.poll(name, known)
		if err != nil {
			continue // the store does not respond, which others report
		}
		if changed {
			onChange(r.current(), r.others()...)
		}
		known = r
	}
}

// poll reads the key of that name, which is known, and replaces it if that is
// due. changed reports whether the keys are others now.
func (k *signingKeys) poll(
	name string, known signingKeyRecord,
) (r signingKeyRecord, changed bool, err error) {
	ctx, cancel := context.WithTimeout(k.tasks.background, taskTimeout)
	defer cancel()
	if r, err = k.read(ctx, name, true); err != nil {
		return known, false, err
	}
	if string(r.Key) != string(known.Key) {
		k.reportForeign(name)
		return known, false, nil
	}
	return r, !r.equal(known), nil
}

// read returns the key of that name, and generates it if there is none. If it
// is to be replaced, read does what is due for that. Nearly always nothing is,
// which takes no lock to find out.
func (k *signingKeys) read(
	ctx context.Context, name string, replace bool,
) (r signingKeyRecord, err error) {
	replace = replace && (k.clockIsFarOff == nil || !k.clockIsFarOff())
	stored, err := loadRecord[signingKeyRecord](ctx, k.store, signingKeyKey(name))
	if err == nil && stored != nil && stored.check() == nil {
		r = *stored
	}
	if err == nil && (r.Key == nil || replace && r.advance(k.now())) {
		err = k.change(ctx, name, func(stored *signingKeyRecord) (*signingKeyRecord, error) {
			if stored == nil {
				stored = k.usedOrNew(name)
			} else if err := stored.check(); err != nil {
				return nil, err
			}
			if replace {
				stored.advance(k.now())
			}
			r = *stored
			return stored, nil
		})
	}
	if err != nil {
		return r, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.inUse == nil {
		k.inUse = map[string]signingKeyRecord{}
	}
	if in, ok := k.inUse[name]; !ok || string(in.Key) == string(r.Key) {
		k.inUse[name] = r
	}
	return r, nil
}

// usedOrNew returns a copy of the keys in use under name: the store may have
// lost them a moment ago, and restore does not know yet. Without any it
// generates a key.
func (k *signingKeys) usedOrNew(name string) *signingKeyRecord {
	k.mu.Lock()
	defer k.mu.Unlock()
	if used, ok := k.inUse[name]; ok {
		return &used
	}
	return &signingKeyRecord{recordFormat: currentFormat, Key: newSigningKey()}
}

func newSigningKey() []byte {
	key := make([]byte, store.KeySize)
	rand.Read(key) // never fails
	return key
}

// check returns an error if a key has an unexpected length.
func (r *signingKeyRecord) check() error {
	for i, key := range [][]byte{r.Key, r.Current, r.Next, r.Previous} {
		if n := len(key); n != store.KeySize && (i == 0 || n != 0) {
			return fmt.Errorf("%w: got %d bytes, want %d", errUnusable, n, store.KeySize)
		}
	}
	return nil
}

// current returns the key that signs now.
func (r *signingKeyRecord) current() []byte {
	if len(r.Current) > 0 {
		return r.Current
	}
	return r.Key
}

// others returns the keys besides the current one that are accepted.
func (r *signingKeyRecord) others() (keys [][]byte) {
	for _, key := range [][]byte{r.Next, r.Previous} {
		if len(key) > 0 {
			keys = append(keys, key)
		}
	}
	return keys
}

// equal reports whether both have the same keys in the same places.
func (r *signingKeyRecord) equal(other signingKeyRecord) bool {
	return string(r.current()) == string(other.current()) &&
		string(r.Next) == string(other.Next) && string(r.Previous) == string(other.Previous)
}

// advance does what is due at now, and reports whether that changed r. A time
// that is twice as far ahead as it can be was written by a clock that was wrong,
// and counts as reached. Clocks of replicas may differ by less.
func (r *signingKeyRecord) advance(now time.Time) (changed bool) {
	ms := millis(now)
	reached := func(at int64, most time.Duration) bool {
		return ms >= at || at-ms > 2*most.Milliseconds()
	}
	if len(r.Previous) > 0 && reached(r.PreviousUntil, keyOverlap) {
		r.Previous, r.PreviousUntil, changed = nil, 0, true
	}
	if len(r.Next) > 0 && len(r.Previous) == 0 && reached(r.NextFrom, keyLead) {
		r.Previous, r.PreviousUntil = r.current(), millis(now.Add(keyOverlap))
		r.Current, r.Since, changed = r.Next, ms, true
		r.Next, r.NextFrom = nil, 0
	}
	switch {
	case len(r.Next) > 0:
	case r.Since == 0, reached(r.Since, keyLead) && r.Since > ms:
		r.Since, changed = ms, true
	case ms-r.Since >= keyLifetime.Milliseconds():
		r.Next, r.NextFrom, changed = newSigningKey(), millis(now.Add(keyLead)), true
	}
	return changed
}

// change changes the record of a key under its lock, so that of many replicas
// that start at once, one generates the key.
func (k *signingKeys) change(
	ctx context.Context, name string, fn func(stored *signingKeyRecord) (*signingKeyRecord, error),
) error {
	return changeRecord(ctx, k.store, signingKeyKey(name), fn)
}

// restore writes the keys in use to the store if they are missing there,
// because it lost them. What was signed with them stays valid, and a process
// that starts now uses the same keys.
func (k *signingKeys) restore(ctx context.Context) error {
	k.mu.Lock()
	inUse := maps.Clone(k.inUse)
	k.mu.Unlock()
	var errs []error
	for name, used := range inUse {
		differs := false
		err := k.change(ctx, name, func(r *signingKeyRecord) (*signingKeyRecord, error) {
			if r != nil {
				differs = string(r.Key) != string(used.Key)
				return nil, nil
			}
			return &used, nil
		})
		if differs {
			k.reportForeign(name)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("signing key %q: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// reportForeign logs that another process has generated a key for the emptied
// store. What one of the two signs, the other rejects.
func (k *signingKeys) reportForeign(name string) {
	k.log.Error("signing key differs from the store's, restart this process", "key", name)
}

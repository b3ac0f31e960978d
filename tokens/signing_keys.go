package tokens

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"

	"wxproxy/tokens/store"
)

// SigningKey returns [store.KeySize] random bytes that are kept in the store
// under name. The first call for a name generates them. All replicas get the
// same bytes, even after a restart, so what is signed with them stays valid as
// long as the store exists.
func (b *Broker) SigningKey(ctx context.Context, name string) ([]byte, error) {
	return b.signingKeys.get(ctx, name)
}

// signingKeys keeps the signing keys in the store, and remembers those that
// this process uses. It is safe for concurrent use.
type signingKeys struct {
	store store.Store
	log   *slog.Logger

	mu    sync.Mutex
	inUse map[string][]byte // by name; nil until the first key is used
}

// get returns the key of that name, and generates it if there is none.
func (k *signingKeys) get(ctx context.Context, name string) (key []byte, err error) {
	err = k.change(ctx, name, func(r *signingKeyRecord) (*signingKeyRecord, error) {
		if r != nil {
			if n := len(r.Key); n != store.KeySize {
				return nil, fmt.Errorf("%w: got %d bytes, want %d", errUnusable, n, store.KeySize)
			}
			key = r.Key
			return nil, nil
		}
		key = make([]byte, store.KeySize)
		rand.Read(key)
		return &signingKeyRecord{recordFormat: currentFormat, Key: key}, nil
	})
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.inUse == nil {
		k.inUse = map[string][]byte{}
	}
	k.inUse[name] = key
	return key, nil
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
	for name, key := range inUse {
		differs := false
		err := k.change(ctx, name, func(r *signingKeyRecord) (*signingKeyRecord, error) {
			if r != nil {
				differs = string(r.Key) != string(key)
				return nil, nil
			}
			return &signingKeyRecord{recordFormat: currentFormat, Key: key}, nil
		})
		if differs {
			// Another process generated a key for the emptied store. What one
			// of the two signs, the other rejects.
			k.log.Error("signing key differs from the store's, restart this process", "key", name)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("signing key %q: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

package tokens

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"sync"

	"wxproxy/tokens/store"
)

// Key gives [store.KeySize] random bytes that are made when they are first asked for, and kept in the store under
// name: all replicas get the same, also after a restart. What is signed with it stays good as long as the store.
func (b *Broker) Key(ctx context.Context, name string) (key []byte, err error) {
	err = b.store.Update(ctx, secretKey(name), func(_ context.Context, raw []byte) ([]byte, error) {
		r, err := decodeSecret(raw)
		if err != nil {
			return nil, err
		}
		if r != nil {
			if len(r.Key) != store.KeySize {
				return nil, fmt.Errorf("%w: the key %q is too short", store.ErrCorrupt, name)
			}
			key = r.Key
			return store.Keep, nil
		}
		key = make([]byte, store.KeySize)
		rand.Read(key)
		return encode(&secretRecord{Version: recordVersion, Key: key}), nil
	})
	if err != nil {
		return nil, err
	}
	b.keys.put(name, key)
	return key, nil
}

// signingKeys are the keys that were asked for; see restoreKeys.
type signingKeys struct {
	mu     sync.Mutex
	byName map[string][]byte
}

func (k *signingKeys) put(name string, key []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.byName == nil {
		k.byName = map[string][]byte{}
	}
	k.byName[name] = key
}

func (k *signingKeys) all() map[string][]byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.byName)
}

package server

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"wxproxy/cmd/wxproxy/internal/config"
	"wxproxy/tokens"
	"wxproxy/tokens/namespace"
	"wxproxy/tokens/store"
	"wxproxy/tokens/store/bolt"
	"wxproxy/tokens/store/redis"
)

// errMemoryStore: the store of another process cannot be inspected.
var errMemoryStore = errors.New(`store.url: a store in memory ends with its process; ` +
	`use "file:PATH" or "redis://HOST:6379"`)

// VerifyStore reads all records of the store that cfg names, and reports the
// damaged ones. It changes nothing. A file must not be in use.
func VerifyStore(
	ctx context.Context, cfg config.Config, report func(store.Damage),
) (store.Verification, error) {
	var v store.Verification
	s, err := openInner(ctx, cfg, true)
	if err != nil {
		return v, err
	}
	key, err := sealingKey(cfg)
	if err != nil {
		return v, errors.Join(err, s.Close())
	}
	previous, err := cfg.Store.PreviousKeys()
	if err != nil {
		return v, errors.Join(fmt.Errorf("store.previous_key: %w", err), s.Close())
	}
	check := func(key string, record []byte) error {
		return tokens.CheckRecord(namespace.Kind(key), record)
	}
	v, err = store.Verify(ctx, s, key, previous, check, report)
	if err = errors.Join(err, s.Close()); err != nil {
		err = fmt.Errorf("store.url: %w", err)
	}
	return v, err
}

// RemoveDamaged deletes the damaged records that were moved away, and returns
// how many there were. A file must not be in use.
func RemoveDamaged(ctx context.Context, cfg config.Config) (removed int, err error) {
	s, err := openInner(ctx, cfg, false)
	if err != nil {
		return 0, err
	}
	var keys []string
	err = s.List(ctx, store.DamagedPrefix, "", func(key string, _ []byte) bool {
		keys = append(keys, strings.Clone(key))
		return true
	})
	for _, key := range keys {
		if err != nil {
			break
		}
		err = s.Update(ctx, key, func(context.Context, []byte) ([]byte, error) { return nil, nil })
		removed++
	}
	if err = errors.Join(err, s.Close()); err != nil {
		err = fmt.Errorf("store.url: %w", err)
	}
	return removed, err
}

// sealingKey returns the key of the store: the one of the configuration, or the
// one in the file beside the store.
func sealingKey(cfg config.Config) ([]byte, error) {
	key, err := cfg.Store.SealingKey()
	if err != nil {
		return nil, fmt.Errorf("store.key: %w", err)
	}
	path, isFile := strings.CutPrefix(cfg.Store.URL, "file:")
	if key != nil || !isFile {
		return key, nil
	}
	if key, err = store.LoadOrCreateKey(path+".key", false); err != nil {
		return nil, fmt.Errorf("store.key: %w", err)
	}
	return key, nil
}

// openInner opens the store that cfg names without decrypting its records. It
// creates none. With readOnly nothing is written.
func openInner(ctx context.Context, cfg config.Config, readOnly bool) (s store.Store, err error) {
	switch path, isFile := strings.CutPrefix(cfg.Store.URL, "file:"); {
	case cfg.Store.URL == "memory:":
		return nil, errMemoryStore
	case config.IsRedis(cfg.Store.URL):
		s, err = redis.Open(ctx, cfg.Store.URL, redis.Options{ReadOnly: readOnly})
	case isFile && readOnly:
		s, err = bolt.OpenReadOnly(ctx, path)
	default:
		s, err = bolt.Open(ctx, path)
	}
	if errors.Is(err, store.ErrInUse) {
		err = fmt.Errorf("%w: stop wxproxy first", err)
	}
	if err != nil {
		return nil, fmt.Errorf("store.url: %w", err)
	}
	return s, nil
}

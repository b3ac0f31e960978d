// Package store defines where wxproxy keeps its records: the contract of a
// [Store], the locks of one that a single process owns, and the sealing of
// records with AES-256-GCM. It also holds the store in memory. The databases
// are in packages of their own below it.
package store

import (
	"context"
	"errors"
)

// What a Store can say. Everything else that it returns is a fault of its medium.
var (
	// ErrNotFound: there is nothing under that key.
	ErrNotFound = errors.New("not in the store")
	// ErrLost: the lock was lost while fn ran (its lease ended, or the store was closed);
	// nothing was saved.
	ErrLost = errors.New("the store's lock was lost, nothing was saved")
	// ErrInUse: another process has the store open.
	ErrInUse = errors.New("the store is in use by another process")
	// ErrCorrupt: what is stored cannot be read. Nothing was overwritten.
	ErrCorrupt = errors.New("the store is damaged")
	// ErrWrongKey: what is stored was sealed with another key. Nothing was overwritten.
	ErrWrongKey = errors.New("the store was sealed with another key")
)

// Store keeps small records (below 64 KiB) under short keys, durably: when Update
// returns nil, the record survives a kill and a power cut, as far as the medium can.
//
// Implementations are safe for concurrent use and pass the suite in tokens/store/storetest.
type Store interface {
	// Load returns the record, which the caller may keep and change, or ErrNotFound.
	// It never waits for a lock.
	Load(ctx context.Context, key string) ([]byte, error)

	// Update is the only way to write. It locks key against every other Update of that
	// key, here and in all replicas, loads the record (old is nil where there is none),
	// calls fn once, saves what it returns if the lock is still held, and unlocks.
	//
	// What fn returns: a record to save; nil without an error to delete; Keep (or any empty record)
	// to leave the record as it was; an error to leave it as it was and have that error returned.
	// The context given to fn ends when the lock can no longer be counted on: fn must
	// end with it. A record that it returns all the same is saved while the lock is held: a
	// refresh token exists once. Updates of different keys do not wait for each other, so fn
	// may call Update for another key (the order account, then component, prevents
	// deadlock).
	//
	// Where ctx ends while Update waits for the lock, ctx.Err() is returned and fn is not called.
	Update(ctx context.Context, key string, fn func(ctx context.Context, old []byte) ([]byte, error)) error

	// List calls yield with the records whose keys begin with prefix, in order of the keys,
	// beginning after the key `after` ("" for all), until yield returns false. yield must not
	// call the store.
	List(ctx context.Context, prefix, after string, yield func(key string, record []byte) bool) error

	// Ping says whether the store answers.
	Ping(ctx context.Context) error

	// Close waits for updates under way, while Load and List still answer. Afterwards every
	// method fails with ErrClosed.
	Close() error
}

// Watcher is a Store that other processes write to as well.
type Watcher interface {
	// Watch calls changed, a call at a time and until ctx ends, with the keys of records that anybody has saved or deleted
	// (this process too) within some 2 s of that; with nil where any record may have been, as at the beginning, and when the store
	// could not be asked for a while.
	Watch(ctx context.Context, changed func(keys []string))
}

// Keep, returned by the function of an Update, leaves the record as it was.
var Keep = []byte{}

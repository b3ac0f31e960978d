// Package redis keeps records in Redis, where any number of processes share them.
package redis

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"wxproxy/tokens/store"
)

// Options of a Store. The zero value is legal.
type Options struct {
	// Lease is how long a lock outlives a process that was killed while it held it; a living one extends it for as
	// long as its work takes. 0: 6 s.
	Lease time.Duration
	// Warn is told what the operator should know and nobody asked for, while the store is opened and later. nil: nobody is.
	Warn func(problem string)

	prefix string // of all keys; "": wxproxy. Tests share a cluster
}

// Store is a connected Redis. It is safe for concurrent use.
type Store struct {
	at       string // whom errors speak of
	kind     kind
	client   goredis.UniversalClient
	poller   goredis.UniversalClient // for Watch alone, with one connection
	dialled  atomic.Int64            // connections that poller has made
	buckets  [buckets]names
	format   string
	lease    time.Duration
	warn     func(string)
	locks    *store.KeyLocks
	back     sync.Map      // keys whose lock is left to other processes → until when
	closing  chan struct{} // closed when Close begins
	closed   atomic.Bool   // set when nothing is answered any more
	close    func() error
	polling  context.Context // ends with Close
	stopPoll context.CancelFunc
}

var (
	_ store.Store   = (*Store)(nil)
	_ store.Watcher = (*Store)(nil)
)

// OpenSealed is [Open] with [store.Seal] in front, which all replicas open with the same key, of [store.KeySize] bytes.
func OpenSealed(ctx context.Context, url string, key []byte, o Options) (store.Store, error) {
	s, err := Open(ctx, url, o)
	if err != nil {
		return nil, err
	}
	sealed, err := store.Seal(ctx, s, key)
	if err != nil {
		if errors.Is(err, store.ErrWrongKey) {
			err = fmt.Errorf("%w than the one given", err)
		}
		return nil, errors.Join(s.located(err), s.Close())
	}
	return sealed, nil
}

// Open connects to a Redis (6.2 or later) and makes sure that it can be relied on. The URL is one of
//
//	redis://[USER:PASSWORD@]HOST[:PORT][/DB]
//	redis+sentinel://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]/MASTERNAME[/DB][?sentinel_password=PASSWORD]
//	redis+cluster://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]
//	redis+unix://[USER:PASSWORD@]/PATH[?db=DB]
//
// where the first three may begin with rediss: then they go by TLS, verified, and ?ca_file=PATH names the authority if it is
// none that the system knows.
//
// Errors say in a sentence what is wrong with that Redis and what to do, and never show a password. store.ErrCorrupt: a newer
// wxproxy has written there.
func Open(ctx context.Context, url string, o Options) (*Store, error) {
	t, err := parse(url)
	if err != nil {
		return nil, err
	}
	if o.Lease <= 0 {
		o.Lease = 6 * time.Second
	}
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	if o.prefix == "" {
		o.prefix = "wxproxy"
	}
	s := &Store{
		at: t.String(), kind: t.kind, format: formatKey(o.prefix), lease: o.Lease, warn: o.Warn,
		locks: store.NewKeyLocks(), closing: make(chan struct{}),
	}
	for i := range s.buckets {
		s.buckets[i] = bucket(o.prefix, i)
	}
	if s.client, err = t.newClient(settings{pool: poolSize, pipes: 4, tries: tries, timeout: ioTimeout}); err != nil {
		return nil, err
	}
	if s.poller, err = t.newClient(settings{pool: 1, pipes: 1, timeout: pollTimeout, connected: &s.dialled}); err != nil {
		return nil, errors.Join(err, s.client.Close())
	}
	s.polling, s.stopPoll = context.WithCancel(context.Background())
	s.close = sync.OnceValue(func() error {
		close(s.closing)
		s.stopPoll()
		err := s.locks.Close()
		s.closed.Store(true)
		return errors.Join(err, s.poller.Close(), s.client.Close())
	})
	if err := s.inspect(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// poolSize is the most connections that one process has to one server. A script takes some 50 µs there, so more of them would
// not be quicker; Load and Update that come when all are busy wait their turn.
const poolSize = 64

// bucket is where key belongs.
func (s *Store) bucket(key string) *names { return &s.buckets[bucketOf(key)] }

// Load implements [store.Store].
func (s *Store) Load(ctx context.Context, key string) ([]byte, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	record, err := s.client.HGet(ctx, s.bucket(key).records, key).Bytes()
	if errors.Is(err, goredis.Nil) {
		return nil, store.ErrNotFound
	}
	if err != nil {
		return nil, s.fault(ctx, err)
	}
	return record, nil
}

func (s *Store) usable(ctx context.Context) error {
	if s.closed.Load() {
		return store.ErrClosed
	}
	return ctx.Err()
}

// Ping implements [store.Store]. It writes: a Redis that answers, and is a replica, or full, or cannot save, is of no use.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	cmds, err := s.client.Pipelined(ctx, func(p goredis.Pipeliner) error {
		for i := range s.buckets {
			if i > 0 && s.kind != cluster {
				break // all on one server
			}
			p.Set(ctx, s.buckets[i].ping, "", time.Minute)
		}
		return nil
	})
	for _, c := range cmds {
		if err := c.Err(); err != nil {
			return s.fault(outer, err)
		}
	}
	return s.fault(outer, err)
}

// pingTimeout is shorter than the patience of those who ask, who would not be told otherwise which Redis it is.
const pingTimeout = time.Second

// Close implements [store.Store]; see [store.KeyLocks.Close] for how long it waits.
func (s *Store) Close() error { return s.close() }

// Package redis implements a store in Redis, which any number of wxproxy
// processes share. It works with a single server, Sentinel and Cluster; Valkey
// works like Redis.
//
// Scripts do everything that must be atomic; scripts.go documents them and the
// keys in Redis. Locks are leases that their holder extends, see lock.go.
// Changes are read from a log once a second, see watch.go, because a message
// could be lost.
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

// Options configures a Store. The zero value is valid.
type Options struct {
	// Lease is how long a lock outlives a killed process that held it. A
	// running process extends the lease for as long as its update takes.
	// default: 6s
	Lease time.Duration
	// Warn is called with problems that are not errors, during Open and later,
	// possibly from several goroutines. nil discards them.
	Warn func(problem string)
	// PreviousKeys only open records, see [store.Seal].
	PreviousKeys [][]byte
	// ReadOnly makes Open write nothing. Without it, Open checks that this
	// Redis can be written to, and notes the format in an empty one. Updates
	// are possible nevertheless.
	ReadOnly bool

	importing bool     // for Import
	prefix    string   // of all keys in Redis. default: wxproxy. Tests share a cluster
	timeouts  timeouts // default: see defaultTimeouts. Tests need longer ones
}

// defaultLease is a compromise. A shorter one would end during a short pause of
// the process or the network, a longer one delays the account of a killed
// process for longer.
const defaultLease = 6 * time.Second

func (o Options) withDefaults() Options {
	if o.Lease <= 0 {
		o.Lease = defaultLease
	}
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	if o.prefix == "" {
		o.prefix = "wxproxy"
	}
	if o.timeouts == (timeouts{}) {
		o.timeouts = defaultTimeouts
	}
	return o
}

// Store is a connection to Redis. It is safe for concurrent use.
type Store struct {
	name        string // of the Redis, for errors; contains no password
	topology    topology
	client      goredis.UniversalClient
	watchClient goredis.UniversalClient // for Watch alone, with one connection
	watchDials  atomic.Int64            // number of connections of watchClient so far
	buckets     [bucketCount]bucketKeys
	queue       *queue
	formatKey   string
	lease       time.Duration
	timeouts    timeouts
	warn        func(string)
	locks       *store.KeyLocks // the queue of this process in front of each lock

	// yields maps a key to the time until which this process leaves its lock to
	// other processes, see lock.yieldTurn.
	yields sync.Map

	closing   chan struct{} // closed when Close begins
	closed    atomic.Bool   // set when Close has waited for the updates in flight
	close     func() error
	watchCtx  context.Context // ends when Close begins
	stopWatch context.CancelFunc
}

var (
	_ store.Store       = (*Store)(nil)
	_ store.Watcher     = (*Store)(nil)
	_ store.Clock       = (*Store)(nil)
	_ store.Upgrader    = (*Store)(nil)
	_ store.Partitioned = (*Store)(nil)
)

// OpenSealed is [Open] followed by [store.Seal]. All replicas need the same
// key, of [store.KeySize] bytes.
func OpenSealed(ctx context.Context, url string, key []byte, o Options) (store.Store, error) {
	s, err := Open(ctx, url, o)
	if err != nil {
		return nil, err
	}
	sealed, err := store.Seal(ctx, s, key, o.PreviousKeys...)
	if err != nil {
		if errors.Is(err, store.ErrWrongKey) {
			err = fmt.Errorf("%w than the one given", err)
		}
		return nil, errors.Join(s.withName(err), s.Close())
	}
	return sealed, nil
}

// Open connects to a Redis (6.2 or later) and checks that it is suitable: it
// can be written to, does not evict records, and holds no newer format. The URL
// is one of
//
//	redis://[USER:PASSWORD@]HOST[:PORT][/DB]
//	redis+sentinel://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]/MASTERNAME[/DB][?sentinel_password=PASSWORD]
//	redis+cluster://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]
//	redis+unix://[USER:PASSWORD@]/PATH[?db=DB]
//
// With rediss instead of redis, the first three use TLS and verify the
// certificate. ?ca_file=PATH then replaces the system's certificate
// authorities.
//
// Errors say what is wrong with this Redis and what to do, and never contain a
// password. [store.ErrCorrupt] means that a newer wxproxy has written there.
func Open(ctx context.Context, url string, o Options) (*Store, error) {
	t, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	o = o.withDefaults()
	s := &Store{
		name: t.String(), topology: t.topology, formatKey: formatKey(o.prefix),
		lease: o.Lease, timeouts: o.timeouts, warn: o.Warn,
		locks: store.NewKeyLocks(), closing: make(chan struct{}),
	}
	for i := range s.buckets {
		s.buckets[i] = newBucketKeys(o.prefix, i)
	}
	s.queue = newQueue(s, o.prefix)
	name := clientName
	if o.importing {
		name = importClientName
	}
	s.client, err = t.newClient(clientOptions{
		name:     name,
		poolSize: poolSize, pipelines: pipelinePoolSize, retries: retries,
		dialTimeout: o.timeouts.dial, ioTimeout: o.timeouts.io,
	})
	if err != nil {
		return nil, err
	}
	s.watchClient, err = t.newClient(clientOptions{
		name:     name,
		poolSize: 1, pipelines: 1, dials: &s.watchDials,
		dialTimeout: o.timeouts.poll, ioTimeout: o.timeouts.poll,
	})
	if err != nil {
		return nil, errors.Join(err, s.client.Close())
	}
	s.watchCtx, s.stopWatch = context.WithCancel(context.Background())
	s.close = sync.OnceValue(func() error {
		close(s.closing)
		s.stopWatch()
		err := s.locks.Close()
		s.closed.Store(true)
		return errors.Join(err, s.watchClient.Close(), s.client.Close())
	})
	if err := s.inspect(ctx, o.importing, o.ReadOnly); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// bucket returns the keys of the bucket that holds the record key.
func (s *Store) bucket(key string) *bucketKeys { return &s.buckets[bucketOf(key)] }

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
		return nil, s.convertError(ctx, err)
	}
	return record, nil
}

// usable returns an error if the store is closed or ctx has ended.
func (s *Store) usable(ctx context.Context) error {
	if s.closed.Load() {
		return store.ErrClosed
	}
	return ctx.Err()
}

// Ping implements [store.Store]. It writes a key, because a Redis that responds
// but is a replica, is full or cannot save is of no use. In a cluster it writes
// to every bucket, and so to every node that holds records.
func (s *Store) Ping(ctx context.Context) error {
	return s.ping(ctx, s.buckets[:s.Partitions()])
}

// Time implements [store.Clock]. In a cluster it is the clock of any node.
func (s *Store) Time(ctx context.Context) (time.Time, error) {
	if err := s.usable(ctx); err != nil {
		return time.Time{}, err
	}
	t, err := s.client.Time(ctx).Result()
	return t, s.convertError(ctx, err)
}

// Partitions implements [store.Partitioned]. Each bucket is one in a cluster,
// whose nodes can fail one by one.
func (s *Store) Partitions() int {
	if s.topology == cluster {
		return bucketCount
	}
	return 1
}

// Partition implements [store.Partitioned].
func (s *Store) Partition(key string) int { return bucketOf(key) % s.Partitions() }

// PingPartition implements [store.Partitioned].
func (s *Store) PingPartition(ctx context.Context, partition int) error {
	return s.ping(ctx, s.buckets[partition:partition+1])
}

// ping writes a key to each of the buckets.
func (s *Store) ping(ctx context.Context, buckets []bucketKeys) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	pingCtx, cancel := context.WithTimeout(ctx, s.timeouts.ping)
	defer cancel()
	cmds, err := s.client.Pipelined(pingCtx, func(p goredis.Pipeliner) error {
		for i := range buckets {
			p.Set(pingCtx, buckets[i].ping, "", time.Minute)
		}
		return nil
	})
	// The outer context is passed on: if only the ping's own timeout ended, the
	// error must name this Redis instead of the context.
	for _, c := range cmds {
		if err := c.Err(); err != nil {
			return s.convertError(ctx, err)
		}
	}
	return s.convertError(ctx, err)
}

// Close implements [store.Store]; see [store.KeyLocks.Close] for how long it
// waits.
func (s *Store) Close() error { return s.close() }

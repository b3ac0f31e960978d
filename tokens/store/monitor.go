package store

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// Partitioned is a [Store] whose partitions can fail one by one, such as a
// Redis Cluster of which one node is down.
type Partitioned interface {
	// Partitions returns how many there are. It does not change.
	Partitions() int
	// Partition returns the partition of a record's key, from 0 on.
	Partition(key string) int
	// PingPartition is Ping for one of them.
	PingPartition(ctx context.Context, partition int) error
}

// MonitorOptions configures [Monitor]. The zero value is valid.
type MonitorOptions struct {
	// Observe is called after each operation: load, update, list, claim,
	// unclaim, ping, queue_add, queue_take, queue_settle, or queue for the
	// others of the queue. result is one of [Results]. took is the time that
	// the store took, negative if it is unknown. Observe may be nil.
	//
	// The time of an update is that of saving: from the return of its function
	// until the record is durable. The function itself may wait for WeChat, and
	// the lock for the function of another update.
	Observe func(operation, result string, took time.Duration)
	Log     *slog.Logger // nil disables it
}

// Results are the results of an operation, as [MonitorOptions].Observe gets
// them.
const (
	ResultOK       = "ok"       // also without a record, and if the function of an update failed
	ResultFailed   = "failed"   // the database failed
	ResultLost     = "lost"     // the lock was lost, and nothing was saved
	ResultDamaged  = "damaged"  // a record cannot be read
	ResultCanceled = "canceled" // the context ended, or the store was closed
)

// Monitored is a [Store] that knows whether it can be written. It is safe for
// concurrent use. [Monitor] returns one.
//
// A failed write makes it unwritable. From then on it pings the store, at first
// after 100 ms and later every two seconds, until a Ping succeeds. A failed
// read makes it ping, too, and is no proof by itself. Errors that are not the
// database's make no difference; see [IsDatabaseError].
type Monitored struct {
	inner Store
	o     MonitorOptions
	parts Partitioned // nil if there is one partition

	closing chan struct{} // closed by Close
	close   func() error

	mu      sync.Mutex
	faults  map[int]fault // by partition; those that cannot be written
	last    uint64        // number of the last fault
	probing bool          // a goroutine pings the store
}

// fault is why a partition cannot be written.
type fault struct {
	err    error
	number uint64 // later faults have higher ones
}

// Pauses between two pings of a store that cannot be written.
const (
	firstProbePause = 100 * time.Millisecond
	lastProbePause  = 2 * time.Second
	// probeTimeout bounds one ping.
	probeTimeout = 5 * time.Second
)

var _ Store = (*Monitored)(nil)

// Monitor returns inner with a watch on whether it can be written. If inner is
// a [Monitored] already, it returns that one.
func Monitor(inner Store, o MonitorOptions) *Monitored {
	if m, ok := inner.(*Monitored); ok {
		return m
	}
	if o.Observe == nil {
		o.Observe = func(string, string, time.Duration) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	m := &Monitored{inner: inner, o: o, faults: map[int]fault{}, closing: make(chan struct{})}
	m.close = sync.OnceValue(func() error {
		close(m.closing)
		return inner.Close()
	})
	if p, ok := As[Partitioned](inner); ok && p.Partitions() > 1 {
		m.parts = p
	}
	return m
}

// Unwrap returns the store that is monitored; see [As].
func (m *Monitored) Unwrap() Store { return m.inner }

// Writable returns nil, or why the record key cannot be written at present. It
// does not ask the store. "" stands for all records.
func (m *Monitored) Writable(key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.faults) == 0 {
		return nil
	}
	if m.parts != nil && key != "" {
		return m.faults[m.parts.Partition(key)].err
	}
	for _, f := range m.faults {
		return f.err
	}
	return nil
}

// IsDatabaseError reports whether err means that the database itself failed.
// That is so for all errors of a [Store] but its sentinels and those of a
// context. An error that a function returned to Update must not be passed.
func IsDatabaseError(err error) bool {
	for _, other := range []error{
		nil, ErrNotFound, ErrLost, ErrDamaged, ErrForeignKey, ErrCorrupt, ErrWrongKey, ErrEmptyKey,
		ErrQueueKey, ErrClosed, context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, other) {
			return false
		}
	}
	return true
}

// resultOf returns the result of an operation that returned err.
func resultOf(err error) string {
	switch {
	case IsDatabaseError(err):
		return ResultFailed
	case errors.Is(err, ErrLost):
		return ResultLost
	case errors.Is(err, ErrDamaged), errors.Is(err, ErrForeignKey),
		errors.Is(err, ErrCorrupt), errors.Is(err, ErrWrongKey):
		return ResultDamaged
	case err == nil, errors.Is(err, ErrNotFound), errors.Is(err, ErrEmptyKey),
		errors.Is(err, ErrQueueKey):
		return ResultOK
	}
	return ResultCanceled
}

func (m *Monitored) partition(key string) int {
	if m.parts == nil {
		return 0
	}
	return m.parts.Partition(key)
}

// Load implements [Store].
func (m *Monitored) Load(ctx context.Context, key string) ([]byte, error) {
	began := time.Now()
	record, err := m.inner.Load(ctx, key)
	m.o.Observe("load", resultOf(err), time.Since(began))
	m.suspect(err)
	return record, err
}

// Update implements [Store].
func (m *Monitored) Update(ctx context.Context, key string, fn UpdateFunc) error {
	var fnErr error
	var returned time.Time // of fn; zero if it was not called, or nothing is to be saved
	err := m.inner.Update(ctx, key, func(ctx context.Context, old []byte) ([]byte, error) {
		var record []byte
		record, fnErr = fn(ctx, old)
		if fnErr == nil && (record == nil || len(record) > 0) {
			returned = time.Now()
		}
		return record, fnErr
	})
	if fnErr != nil {
		m.o.Observe("update", ResultOK, -1)
		return err
	}
	took := time.Duration(-1)
	if !returned.IsZero() {
		took = time.Since(returned)
	}
	m.o.Observe("update", resultOf(err), took)
	if IsDatabaseError(err) {
		m.failed(m.partition(key), err)
	}
	return err
}

// List implements [Store]. Its duration includes that of yield.
func (m *Monitored) List(
	ctx context.Context, prefix, after string, yield func(key string, record []byte) bool,
) error {
	began := time.Now()
	err := m.inner.List(ctx, prefix, after, yield)
	m.o.Observe("list", resultOf(err), time.Since(began))
	m.suspect(err)
	return err
}

// Claim implements [Store].
func (m *Monitored) Claim(ctx context.Context, key string, until time.Time) (bool, error) {
	began := time.Now()
	first, err := m.inner.Claim(ctx, key, until)
	m.o.Observe("claim", resultOf(err), time.Since(began))
	m.writeFailed(err)
	return first, err
}

// Unclaim implements [Store].
func (m *Monitored) Unclaim(ctx context.Context, key string) error {
	began := time.Now()
	err := m.inner.Unclaim(ctx, key)
	m.o.Observe("unclaim", resultOf(err), time.Since(began))
	m.writeFailed(err)
	return err
}

// Ping implements [Store]. Its result decides whether the store is writable.
func (m *Monitored) Ping(ctx context.Context) error {
	if m.parts == nil {
		return m.pingPartition(ctx, 0)
	}
	before := m.lastFault()
	began := time.Now()
	err := m.inner.Ping(ctx)
	m.o.Observe("ping", resultOf(err), time.Since(began))
	if err == nil {
		for i := range m.parts.Partitions() {
			m.repaired(i, before)
		}
	}
	m.suspect(err) // it does not say which partitions failed
	return err
}

// pingPartition is Ping for one partition.
func (m *Monitored) pingPartition(ctx context.Context, partition int) (err error) {
	before := m.lastFault()
	began := time.Now()
	if m.parts == nil {
		err = m.inner.Ping(ctx)
	} else {
		err = m.parts.PingPartition(ctx, partition)
	}
	m.o.Observe("ping", resultOf(err), time.Since(began))
	switch {
	case err == nil:
		m.repaired(partition, before)
	case IsDatabaseError(err):
		m.failed(partition, err)
	}
	return err
}

// Close implements [Store]. It ends the pings.
func (m *Monitored) Close() error { return m.close() }

// writeFailed is failed for a write whose partition is unknown: the names of
// claims are hashed below, and entries of the queue may be in several.
func (m *Monitored) writeFailed(err error) {
	if m.parts != nil {
		m.suspect(err)
	} else if IsDatabaseError(err) {
		m.failed(0, err)
	}
}

// suspect pings the store if err is one of the database.
func (m *Monitored) suspect(err error) {
	if IsDatabaseError(err) {
		m.mu.Lock()
		m.probe()
		m.mu.Unlock()
	}
}

// failed notes that a partition cannot be written.
func (m *Monitored) failed(partition int, err error) {
	m.mu.Lock()
	first := len(m.faults) == 0
	m.last++
	m.faults[partition] = fault{err, m.last}
	m.probe()
	m.mu.Unlock()
	if first {
		m.o.Log.Error("store cannot be written, so no tokens are fetched", "error", err)
	}
}

// repaired notes that a partition can be written, unless a write has failed
// since the fault before.
func (m *Monitored) repaired(partition int, before uint64) {
	m.mu.Lock()
	f, failed := m.faults[partition]
	if failed = failed && f.number <= before; failed {
		delete(m.faults, partition)
	}
	last := failed && len(m.faults) == 0
	m.mu.Unlock()
	if last {
		m.o.Log.Info("store can be written again")
	}
}

func (m *Monitored) lastFault() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

// probe starts to ping the store unless that is being done. It requires m.mu.
func (m *Monitored) probe() {
	if !m.probing {
		m.probing = true
		go m.runProbe()
	}
}

// runProbe pings the store until all partitions can be written, or until it is
// closed.
func (m *Monitored) runProbe() {
	for pause := firstProbePause; ; pause = min(2*pause, lastProbePause) {
		select {
		case <-time.After(pause):
		case <-m.closing:
			return // and no other probe starts
		}
		ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
		err := m.probeOnce(ctx)
		cancel()
		m.mu.Lock()
		done := errors.Is(err, ErrClosed) || err == nil && len(m.faults) == 0
		m.probing = !done
		m.mu.Unlock()
		if done {
			return
		}
	}
}

// probeOnce pings each partition, and returns the error of one that failed.
func (m *Monitored) probeOnce(ctx context.Context) error {
	if m.parts == nil {
		return m.pingPartition(ctx, 0)
	}
	var failure error
	for i := range m.parts.Partitions() {
		if err := m.pingPartition(ctx, i); err != nil {
			failure = err
		}
	}
	return failure
}

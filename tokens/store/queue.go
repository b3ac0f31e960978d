package store

import (
	"context"
	"strings"
	"time"
)

// Queuer is a [Store] that also has a queue. [Seal] returns one if the store
// that it encrypts is one.
type Queuer interface {
	// Queue returns the queue of the store. It is closed with the store.
	Queue() Queue
}

// Queue keeps events for services until they are delivered. An entry is one
// event for one service. When Add returns nil, its entries survive a killed
// process and a power failure, like the records of the [Store].
//
// The entries of one account for one service are a lane. They are taken one at
// a time, by one process, in the order in which they were added. Lanes do not
// wait for each other. Delivery is at least once: a process that is killed
// after a delivery and before Settle leaves an entry that is taken again.
//
// Entries are no records: Load, List and Update do not see them, and changes of
// the queue are not reported by a [Watcher]. The queue of a store in a database
// that several processes share uses the clock of the database. A stored time
// that is further ahead than MaxQueuePause counts as now.
//
// Implementations are safe for concurrent use and pass the tests in package
// storetest. Methods return [ErrClosed] after the store was closed, and the
// error of ctx when it ends.
type Queue interface {
	// Add adds entries, which all have the same AppID, in one step: either all
	// are added or none. It leaves out each one that the queue has, or that was
	// added before and is still known: Add knows a key for as long as it was
	// told then, also after the entry is gone. It returns how many it has
	// added.
	//
	// Of an entry it uses the key, Payload and Created. A new entry is waiting.
	// Its lane is due at once, unless a process has taken it, or its last try
	// has failed less than MinQueuePause ago. Then it is due at the end of that
	// pause.
	Add(ctx context.Context, known time.Duration, entries ...QueueEntry) (added int, err error)

	// Take returns the first entry of lanes that are due: at most want[service]
	// of each service, the longest overdue first, and none of services that
	// want does not name. It reserves each of these lanes until lease has
	// passed or the entry was settled. Entries have their Payload.
	//
	// An entry whose Payload cannot be opened is dead at once, is not returned,
	// and does not delay its lane.
	Take(ctx context.Context, want map[string]int, lease time.Duration) ([]TakenEntry, error)

	// Settle reports what became of an entry that was taken, and ends the
	// reservation of its lane. A settled attempt is counted in Attempts.
	//
	// If the lease has passed meanwhile, a delivered entry is still removed.
	// All other outcomes then change nothing, and there is no error. An entry
	// that was dropped meanwhile is no error either.
	Settle(ctx context.Context, t TakenEntry, o QueueOutcome) error

	// Wake makes the lanes of a service due that wait after a failed try.
	Wake(ctx context.Context, service string) error

	// Sizes returns the size of the queue of each service that has entries. It
	// is cheap enough to be called once a second.
	Sizes(ctx context.Context) (map[string]QueueSize, error)

	// List returns the entries that match f, without their Payload: those from
	// offset on, limit at most. Waiting ones come before dead ones, and the
	// oldest by Created first. total is how many match. Entries that are added
	// or settled meanwhile may or may not be included.
	List(ctx context.Context, f QueueFilter, offset, limit int) (total int, entries []QueueEntry, err error)

	// Find returns the entries of an event, sorted by service, with their
	// Payload. Payload is nil if it cannot be opened. Without any, the error is
	// [ErrNotFound].
	Find(ctx context.Context, id string) ([]QueueEntry, error)

	// Revive makes an entry due at once. A dead one becomes waiting, gets its
	// old place in its lane, and has the present time as Since. The error is
	// [ErrNotFound] if there is none. An entry that is being delivered stays as
	// it is.
	Revive(ctx context.Context, key QueueKey) error

	// Expire makes an entry dead that is not tried any more, and reason its
	// Error. It does not change when the lane is due. The error is
	// [ErrNotFound] if there is none. An entry that is being delivered, or is
	// dead, stays as it is.
	Expire(ctx context.Context, key QueueKey, reason string) error

	// Drop removes an entry, waiting or dead. The error is [ErrNotFound] if
	// there is none.
	Drop(ctx context.Context, key QueueKey) error

	// Scan calls yield with each entry, with its Payload, until yield returns
	// false. Entries of one lane come in their order. yield must not call the
	// queue. Scan is for exports and for [Seal].
	Scan(ctx context.Context, yield func(QueueEntry) bool) error

	// Restore adds entries that Scan has returned, with all that is in them and
	// at the ends of their lanes. It leaves out those that the queue has.
	Restore(ctx context.Context, entries ...QueueEntry) error

	// Replace replaces the Payload of an entry if it is old. Otherwise it
	// changes nothing, and there is no error. It is for [Seal].
	Replace(ctx context.Context, key QueueKey, old, payload []byte) error
}

const (
	// MinQueuePause is the least pause between two tries of one lane, and
	// MaxQueuePause the longest.
	MinQueuePause = 500 * time.Millisecond
	MaxQueuePause = time.Minute
)

// QueueKey names an entry. None of the parts is empty or contains a slash.
type QueueKey struct {
	Service string
	AppID   string // of the account
	ID      string // of the event; the same for all services
}

// queuePrefix begins the text of a QueueKey.
const queuePrefix = "queue/"

// String returns the key as one text. The keys of a lane have the same prefix.
func (k QueueKey) String() string {
	return queuePrefix + k.Service + "/" + k.AppID + "/" + k.ID
}

// ParseQueueKey parses what String has returned.
func ParseQueueKey(s string) (k QueueKey, ok bool) {
	rest, ok := strings.CutPrefix(s, queuePrefix)
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 3 {
		return QueueKey{}, false
	}
	k = QueueKey{Service: parts[0], AppID: parts[1], ID: parts[2]}
	return k, k.IsValid()
}

// IsValid reports whether no part is empty or contains a slash.
func (k QueueKey) IsValid() bool {
	for _, part := range []string{k.Service, k.AppID, k.ID} {
		if part == "" || strings.Contains(part, "/") {
			return false
		}
	}
	return true
}

// QueueEntry is an event for one service. Times have milliseconds.
type QueueEntry struct {
	QueueKey
	Payload []byte // up to 2 MiB

	Created  time.Time // when the event was pushed
	Since    time.Time // when it was added or revived, by the clock of the queue
	Dead     bool      // it is not tried any more
	Attempts int       // tries that were settled
	// Next is when the entry is tried next, at the earliest. It is zero if the
	// entry is dead, or others of its lane come first.
	Next time.Time
	// Error says why the last try failed, in at most 200 bytes. It is stored
	// without encryption and contains nothing of the Payload.
	Error string
}

// TakenEntry is an entry that [Queue.Take] returned.
type TakenEntry struct {
	QueueEntry
	Lease string // names the reservation
}

// QueueResult is what became of a try.
type QueueResult int

// Results of a try. The zero value is none of them.
const (
	QueueDelivered QueueResult = iota + 1 // the entry is removed
	QueueFailed                           // it is tried again after a pause
	QueueDead                             // it is kept, and not tried again
)

// QueueOutcome is what [Queue.Settle] needs to know of a try.
type QueueOutcome struct {
	Result QueueResult
	Pause  time.Duration // until the next try, if the result is QueueFailed
	Error  string        // why it failed; cut to 200 bytes
}

// QueueSize is the size of the queue of a service.
type QueueSize struct {
	Waiting, Dead int       // number of entries
	Bytes         int64     // of the payloads of all entries, as they are stored
	Oldest        time.Time // Created of the oldest waiting entry; zero if there is none
}

// QueueFilter selects entries. The zero value selects all.
type QueueFilter struct {
	State          QueueState
	Service, AppID string // "" matches all
}

// QueueState is the state of an entry in a QueueFilter.
type QueueState int

// States of entries.
const (
	AnyQueueState QueueState = iota
	WaitingEntries
	DeadEntries
)

// matches reports whether f selects an entry.
func (f QueueFilter) matches(e *QueueEntry) bool {
	return (f.State == AnyQueueState || e.Dead == (f.State == DeadEntries)) &&
		(f.Service == "" || f.Service == e.Service) && (f.AppID == "" || f.AppID == e.AppID)
}

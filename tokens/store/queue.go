package store

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode/utf8"
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
// that several processes share uses the clock of the database. The end of a
// pause or lease that is further ahead than MaxQueuePause was stored by a wrong
// clock, and counts as now.
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
	// has failed (QueueFailed) less than MinQueuePause ago. Then it is due at
	// the end of that pause. The errors of [CheckQueueEntries] add nothing.
	Add(ctx context.Context, known time.Duration, entries ...QueueEntry) (added int, err error)

	// Take returns the first entry of lanes that are due: at most want[service]
	// of each service, the longest overdue first, and none of services that
	// want does not name. It reserves each of these lanes until lease has
	// passed or the entry was settled, also if the entry is dropped meanwhile.
	// A lease is at most MaxQueuePause: a longer one is cut to that. Entries
	// have their Payload.
	//
	// An entry whose Payload cannot be opened is dead at once, is not returned,
	// and does not delay its lane.
	Take(ctx context.Context, want map[string]int, lease time.Duration) ([]TakenEntry, error)

	// Settle reports what became of an entry that was taken, and ends the
	// reservation of its lane. A settled attempt is counted in Attempts. It
	// uses o as [QueueOutcome.Cut] returns it. After QueueFailed the lane is
	// due when the pause ends, otherwise at once.
	//
	// If the lease has passed and the lane was taken again meanwhile, a
	// delivered entry is still removed. All other outcomes then change nothing,
	// the new reservation stays, and there is no error. An entry that was
	// dropped or expired meanwhile is no error either, and stays so.
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
	List(
		ctx context.Context, f QueueFilter, offset, limit int,
	) (total int, entries []QueueEntry, err error)

	// Find returns the entries of an event, sorted by service, with their
	// Payload. Payload is nil if it cannot be opened. Without any, the error is
	// [ErrNotFound].
	Find(ctx context.Context, id string) ([]QueueEntry, error)

	// Revive makes the lane of an entry due at once. A dead entry becomes
	// waiting, gets its old place in its lane, keeps Attempts and Error, and
	// has the present time as Since. The error is [ErrNotFound] if there is no
	// entry. A reservation of the lane stays, and so does an entry that is
	// being delivered.
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
	// false. Entries of one lane come in their order, dead ones among the
	// others. Payload is nil if it cannot be opened. yield must not call the
	// queue. Scan is for exports and for [Seal].
	Scan(ctx context.Context, yield func(QueueEntry) bool) error

	// Restore adds entries that Scan has returned, with all that is in them but
	// Next, at the ends of their lanes, which are due at once. It leaves out
	// those that the queue has. Entries that it adds are known only for as long
	// as the queue has them. They may be of several accounts. If a key is
	// invalid, it adds none.
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

// maxQueueKeyPart is the maximum length of each part of a QueueKey in bytes.
const maxQueueKeyPart = 1024

// QueueKey names an entry. No part is empty, contains a slash, or is longer
// than 1,024 bytes.
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

// IsValid reports whether all parts are as QueueKey says.
func (k QueueKey) IsValid() bool {
	for _, part := range [...]string{k.Service, k.AppID, k.ID} {
		if part == "" || len(part) > maxQueueKeyPart || strings.Contains(part, "/") {
			return false
		}
	}
	return true
}

// ErrQueueKey reports entries that a [Queue] does not accept.
var ErrQueueKey = errors.New("queue: a key is invalid, or keys are of several accounts")

// CheckQueueEntries returns [ErrQueueKey] unless the keys are valid and, if
// they must be those of one account, have the same AppID.
func CheckQueueEntries(oneAccount bool, entries []QueueEntry) error {
	for i := range entries {
		e := &entries[i]
		if !e.IsValid() || oneAccount && e.AppID != entries[0].AppID {
			return ErrQueueKey
		}
	}
	return nil
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

// maxQueueError is the maximum length of [QueueEntry].Error in bytes.
const maxQueueError = 200

// Cut returns o with a Pause of 0 to MaxQueuePause, and an Error of valid UTF-8
// that is at most 200 bytes long.
func (o QueueOutcome) Cut() QueueOutcome {
	o.Pause = min(max(o.Pause, 0), MaxQueuePause)
	o.Error = strings.ToValidUTF8(o.Error, "\uFFFD")
	if n := maxQueueError; len(o.Error) > n {
		for !utf8.RuneStart(o.Error[n]) {
			n--
		}
		o.Error = o.Error[:n]
	}
	return o
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

// Matches reports whether f selects an entry.
func (f QueueFilter) Matches(e *QueueEntry) bool {
	return (f.State == AnyQueueState || e.Dead == (f.State == DeadEntries)) &&
		(f.Service == "" || f.Service == e.Service) && (f.AppID == "" || f.AppID == e.AppID)
}

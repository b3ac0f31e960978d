package store

import (
	"context"
	"errors"
	"time"
)

// Errors that a [Store] returns, mostly wrapped. Every other error means that
// the database failed.
var (
	// ErrNotFound reports that there is no record under the key.
	ErrNotFound = errors.New("record not found in the store")
	// ErrLost reports that the lock was lost while fn ran, because its lease
	// expired or the store was closed. Nothing was saved.
	ErrLost = errors.New("store lock lost, nothing saved")
	// ErrInUse reports that another process has the store open.
	ErrInUse = errors.New("store is in use by another process")
	// ErrDamaged reports that one record cannot be opened, while the rest of
	// the store works. See [Store.Update] for what becomes of such a record.
	ErrDamaged = errors.New("damaged record")
	// ErrCorrupt reports that stored data cannot be read. Nothing was
	// overwritten.
	ErrCorrupt = errors.New("store is damaged")
	// ErrWrongKey reports that the store was sealed with another key. Nothing
	// was overwritten.
	ErrWrongKey = errors.New("store was sealed with another key")
	// ErrNotEmpty reports that a store that has to be empty holds records.
	ErrNotEmpty = errors.New("store is not empty")
	// ErrEmptyKey reports that a record or a claim was to have no key.
	ErrEmptyKey = errors.New("empty record key")
	// ErrClosed is what every method returns after Close. Updates that run when
	// Close is called may still finish.
	ErrClosed = errors.New("store is closed")
)

// DamagedPrefix begins the keys under which damaged records lie. The record KEY
// is moved to DamagedPrefix + KEY, as the database holds it: still encrypted,
// and with its checksum. A later damaged record of the same key replaces it.
const DamagedPrefix = "damaged/"

// Keep is returned by an [UpdateFunc] to leave the record as it was.
var Keep = []byte{}

// Quarantine is returned by an [UpdateFunc], with an error that wraps
// [ErrDamaged], for a record that cannot be opened. It is this very slice that
// counts: an error alone could be that of another record.
var Quarantine = make([]byte, 0, 1)

// isQuarantine reports whether record is Quarantine.
func isQuarantine(record []byte) bool {
	return len(record) == 0 && cap(record) == 1 && &record[:1][0] == &Quarantine[:1][0]
}

// Writes reports whether the results of an [UpdateFunc] change the record.
func Writes(record []byte, err error) bool {
	if err != nil {
		return isQuarantine(record)
	}
	return record == nil || len(record) > 0
}

// UpdateFunc computes the new value of a record. It runs once, while its Update
// holds the lock of the key. old is nil if there is no record; otherwise fn may
// keep and change it.
//
// The result decides what Update does:
//
//   - a record: save it
//   - nil without an error: delete the record
//   - [Keep], or any empty record: leave the record as it was
//   - [Quarantine] and an error that wraps [ErrDamaged]: move the record to
//     [DamagedPrefix] and return the error; the key has no record afterwards
//   - any other error: leave the record as it was and return the error
//
// ctx ends with the context of the caller, and when the lock may be lost; fn
// must return soon after that. A record that fn returns nevertheless is saved
// if the lock is still held: WeChat may have issued a refresh token at the last
// moment, and issues it only once.
type UpdateFunc = func(ctx context.Context, old []byte) ([]byte, error)

// Store keeps small records (less than 64 KiB) under short keys. When Update
// returns nil, the record survives a killed process and a power failure, as far
// as the database and its disk can promise that.
//
// Implementations are safe for concurrent use and pass the tests in package
// storetest.
type Store interface {
	// Load returns the record, which the caller may keep and change, or
	// [ErrNotFound]. It returns [ErrDamaged] for a record that cannot be
	// opened, and leaves it where it is. It never waits for a lock.
	Load(ctx context.Context, key string) ([]byte, error)

	// Update is the only way to write. It locks key against every other Update
	// of that key, in this process and in all replicas, loads the record, calls
	// fn, saves its result and unlocks. See [UpdateFunc] for the results of fn.
	//
	// If the stored record cannot be opened, Update moves it to [DamagedPrefix]
	// and returns [ErrDamaged] without calling fn. The next Update finds no
	// record. The move happens under the lock of key, so it never takes away a
	// good record that another process has written meanwhile.
	//
	// Updates of different keys do not wait for each other, so fn may call
	// Update for another key. All callers must use the same order, such as
	// account, then component; otherwise two updates could wait for each other.
	//
	// If ctx ends while Update waits for the lock, Update returns ctx.Err() and
	// does not call fn.
	Update(ctx context.Context, key string, fn UpdateFunc) error

	// List calls yield with the records whose keys begin with prefix, in the
	// byte order of the keys, until yield returns false. It starts after the
	// key after; "" means at the beginning. Records that are written meanwhile
	// may or may not be included. yield must not call the store.
	//
	// record is nil if it cannot be opened. A damaged record does not end the
	// list.
	List(ctx context.Context, prefix, after string, yield func(key string, record []byte) bool) error

	// Claim reports whether key was free, and then remembers it until the time
	// until. Of all callers in all processes, exactly one gets true, also
	// across restarts. After until, the key is free again and takes no space.
	// If until has passed, Claim remembers nothing and returns false.
	//
	// A claim is much cheaper than an Update: there is no lock, no record, and
	// no change that other processes poll. Claims and records have separate
	// keys. After an error, key may or may not be claimed.
	Claim(ctx context.Context, key string, until time.Time) (first bool, err error)

	// Unclaim makes key free before its time. A caller that got true uses it
	// if what it claimed the key for must be repeated. A key that is not
	// claimed is no error.
	Unclaim(ctx context.Context, key string) error

	// Ping reports whether the store is usable, for writing too.
	Ping(ctx context.Context) error

	// Close waits for updates in flight; Load and List keep working meanwhile.
	// Afterwards every method returns [ErrClosed]. Closing twice is allowed.
	Close() error
}

// Upgrader is a [Store] in a database that notes the version of its format, so
// that processes of an earlier version refuse to open it.
type Upgrader interface {
	// Upgrade notes the present version. A store keeps the version that it had
	// when it was opened until then, so that looking at it changes nothing.
	Upgrade(ctx context.Context) error
}

// As returns the first store that is a T: s, the store that s wraps, and so on.
// A store that wraps another one has the method Unwrap() Store.
func As[T any](s Store) (T, bool) {
	for {
		if t, ok := s.(T); ok {
			return t, true
		}
		u, ok := s.(interface{ Unwrap() Store })
		if !ok {
			var none T
			return none, false
		}
		s = u.Unwrap()
	}
}

// Innermost returns the store that s wraps, and that wraps no other: the
// database itself.
func Innermost(s Store) Store {
	for {
		u, ok := s.(interface{ Unwrap() Store })
		if !ok {
			return s
		}
		s = u.Unwrap()
	}
}

// Clock is a [Store] with a clock of its own.
type Clock interface {
	// Time returns the time of that clock, to the microsecond.
	Time(ctx context.Context) (time.Time, error)
}

// Watcher is a [Store] that other processes write to as well. Its records are in
// parts, each of which can fail, or lose its data, while the others work.
type Watcher interface {
	// PartOf returns the number of the part that holds the record key.
	PartOf(key string) int

	// Watch reports changes to changed until ctx ends, one call at a time and
	// within about 2 seconds. A part that does not respond delays the reports
	// of that part alone. changed must not wait for the store.
	Watch(ctx context.Context, changed func(Changes))
}

// Changes is what [Watcher.Watch] reports.
type Changes struct {
	// Keys are those of the records that any process, including this one, has
	// saved or deleted.
	Keys []string

	// Unknown has the parts in which every record may have changed, by number.
	// Each part is among them in its first report, and after it could not be
	// reached for a while. The value identifies the data of the part. It
	// becomes another one if the part lost records that were saved, and stays
	// the same otherwise, also across restarts of all processes.
	Unknown map[int]string
}

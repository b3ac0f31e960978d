package tokens

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// Keys of the records in the store. They are readable there, because only
// records are sealed: a key may hold an appid but never a secret.
const (
	accountPrefix       = "account/"
	pendingCodePrefix   = "code/"
	exchangedCodePrefix = "spent/"
	namePrefix          = "name/"
)

func accountKey(appid string) string     { return accountPrefix + appid }
func ticketKey(appid string) string      { return "ticket/" + appid }
func pendingCodeKey(appid string) string { return pendingCodePrefix + appid }
func syncKey(appid string) string        { return "sync/" + appid }
func signingKeyKey(name string) string   { return "key/" + name }

// exchangedCodeKey returns the key of the record of an exchanged code. It holds
// a hash of the code, because keys are not sealed.
func exchangedCodeKey(code wechat.Secret) string {
	sum := sha256.Sum256([]byte(code.Reveal()))
	return exchangedCodePrefix + hex.EncodeToString(sum[:])
}

// recordVersion is the format of the records. A record with another version was
// written by a newer wxproxy. It counts as damaged: the account is read from
// WeChat again, and the record is kept below [store.DamagedPrefix]. So a new
// version must be written only when every replica can read it: one release
// reads it, the next one writes it.
const recordVersion = 1

// recordFormat is embedded in every record, and is its first JSON field. The
// JSON names of all records are fixed: existing stores hold them.
type recordFormat struct {
	Version int `json:"v"`
}

var currentFormat = recordFormat{Version: recordVersion}

func (f recordFormat) formatVersion() int { return f.Version }

// record is a type that is kept in the store as JSON: it embeds recordFormat.
type record interface{ formatVersion() int }

// decodeRecord parses a record. It returns nil if there is none (raw is nil),
// and store.ErrDamaged if the record cannot be read.
func decodeRecord[T record](raw []byte) (*T, error) {
	if raw == nil {
		return nil, nil
	}
	r := new(T)
	if err := json.Unmarshal(raw, r); err != nil {
		// The decoder's error is left out: it could quote a secret.
		return nil, fmt.Errorf("%w: not a record of this kind", store.ErrDamaged)
	}
	if v := (*r).formatVersion(); v != recordVersion {
		return nil, fmt.Errorf("%w: written by a newer wxproxy: got format %d, want %d",
			store.ErrDamaged, v, recordVersion)
	}
	return r, nil
}

// CheckRecord returns an error that wraps [store.ErrDamaged] if raw is not a
// record of the kind that its key begins with, such as "account". Records of
// other kinds are not checked. The error contains nothing of the record.
func CheckRecord(kind string, raw []byte) error {
	check, ok := map[string]func(raw []byte) error{
		"account": checkRecord[account],
		"ticket":  checkRecord[ticket],
		"code":    checkRecord[pendingCode],
		"spent":   checkRecord[exchangedCode],
		"sync":    checkRecord[syncRecord],
		"key":     checkRecord[signingKeyRecord],
		"name":    checkRecord[nameRecord],
	}[kind]
	if !ok {
		return nil
	}
	return check(raw)
}

func checkRecord[T record](raw []byte) error {
	_, err := decodeRecord[T](raw)
	return err
}

func encodeRecord[T record](r *T) []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic("BUG: record cannot be encoded: " + err.Error())
	}
	return b
}

// loadRecord returns the record under key, or nil if there is none. A damaged
// record counts as missing, see [quarantine]. The errors are ErrUnavailable if
// the store does not respond, and the context's.
func loadRecord[T record](ctx context.Context, s store.Store, key string) (*T, error) {
	raw, err := s.Load(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, storeError(err)
	}
	r, _ := decodeOrMove[T](s, key, raw)
	return r, nil
}

// decodeOrMove parses a record that s returned under key. It returns false, and
// moves the record in the background, if it is damaged.
func decodeOrMove[T record](s store.Store, key string, raw []byte) (r *T, ok bool) {
	r, err := decodeRecord[T](raw)
	if err == nil {
		return r, r != nil
	}
	if q, ok := store.As[*quarantine](s); ok {
		q.moveLater(key, func(raw []byte) error {
			_, err := decodeRecord[T](raw)
			return err
		})
	}
	return nil, false
}

// listRecords calls yield with the records whose keys begin with prefix, until
// yield returns false. It skips damaged records.
func listRecords[T record](
	ctx context.Context, s store.Store, prefix string, yield func(key string, r *T) bool,
) error {
	return s.List(ctx, prefix, "", func(key string, raw []byte) bool {
		r, ok := decodeOrMove[T](s, key, raw)
		return !ok || yield(key, r)
	})
}

// errUnusable is returned by the functions of updateRecord for a record that
// can be parsed and is damaged nevertheless.
var errUnusable = errors.New("unusable content")

// updateRecord changes the record under key while it holds the key's lock. fn
// gets the stored record, nil if there is none, and may change it. It returns
// the record to save, or nil to leave the stored one as it is. An error from fn
// is returned, and nothing is saved. A damaged record counts as missing.
func updateRecord[T record](
	ctx context.Context, s store.Store, key string, fn func(ctx context.Context, stored *T) (*T, error),
) error {
	return s.Update(ctx, key, func(ctx context.Context, raw []byte) ([]byte, error) {
		stored, err := decodeRecord[T](raw)
		if err != nil {
			return store.Quarantine, err
		}
		changed, err := fn(ctx, stored)
		switch {
		case errors.Is(err, errUnusable):
			return store.Quarantine, fmt.Errorf("%w: %w", store.ErrDamaged, err)
		case err != nil:
			return nil, err
		case changed == nil:
			return store.Keep, nil
		}
		return encodeRecord(changed), nil
	})
}

// changeRecord is updateRecord for a change that does not wait for anything.
func changeRecord[T record](
	ctx context.Context, s store.Store, key string, fn func(stored *T) (*T, error),
) error {
	return updateRecord(ctx, s, key, func(_ context.Context, stored *T) (*T, error) {
		return fn(stored)
	})
}

// changeOrDelete replaces the record under key with what fn returns, and
// deletes it if that is nil. A record that cannot be read counts as missing:
// this is for operators' commands, which must work then, too.
func changeOrDelete[T record](
	ctx context.Context, s store.Store, key string, fn func(stored *T) *T,
) error {
	err := s.Update(ctx, key, func(_ context.Context, raw []byte) ([]byte, error) {
		stored, err := decodeRecord[T](raw)
		if err != nil {
			stored = nil
		}
		if changed := fn(stored); changed != nil {
			return encodeRecord(changed), nil
		}
		return nil, nil
	})
	if err != nil {
		return storeError(err)
	}
	return nil
}

// deleteRecord deletes the record under key if it exists and match, which may
// be nil, accepts it.
func deleteRecord[T record](
	ctx context.Context, s store.Store, key string, match func(*T) bool,
) error {
	return s.Update(ctx, key, func(_ context.Context, raw []byte) ([]byte, error) {
		stored, err := decodeRecord[T](raw)
		switch {
		case err != nil:
			return store.Quarantine, err
		case stored == nil || match != nil && !match(stored):
			return store.Keep, nil
		}
		return nil, nil
	})
}

// ticket is the newest component_verify_ticket.
type ticket struct {
	recordFormat
	Ticket          string `json:"ticket"`          // "" if only PushRequestedAt is known
	Created         int64  `json:"created"`         // the push's CreateTime
	Received        int64  `json:"received"`        // by wxproxy's clock
	PushRequestedAt int64  `json:"asked,omitempty"` // last api_start_push_ticket
}

// ticketLifetime is how long a ticket is valid after its push
// (Third-party_Platforms/2.0/api/Before_Develop/component_verify_ticket).
const ticketLifetime = 12 * time.Hour

// pendingCode is an authorization code that a push brought and that has not
// been exchanged yet.
type pendingCode struct {
	recordFormat
	Code    string `json:"code"`
	Created int64  `json:"created"` // the push's CreateTime
	Expires int64  `json:"expires"` // Unix milliseconds, by wxproxy's clock
	// Update is set if the push was updateauthorized, which does not bring a
	// forgotten account back.
	Update bool `json:"update,omitempty"`
}

// exchangedCode holds the account that an authorization code was exchanged for.
// The merchant's browser may present the code again.
type exchangedCode struct {
	recordFormat
	AppID    string          `json:"appid"`
	At       int64           `json:"at"`
	FuncInfo json.RawMessage `json:"func_info,omitempty"`
	// State is the fingerprint of the state with which a browser brought the
	// code; "" if none has, or if an earlier version wrote the record.
	State string `json:"state,omitempty"`
}

// stateFingerprint returns what is stored of the state that a browser brought.
// A browser without a state has one, too.
func stateFingerprint(state string) string {
	if state == "" {
		return "none"
	}
	sum := sha256.Sum256([]byte(state))
	return hex.EncodeToString(sum[:])
}

// signingKeyRecord is a signing key that all replicas share. Most keys are never
// replaced, and have Key alone. Times are Unix milliseconds.
type signingKeyRecord struct {
	recordFormat
	Key []byte `json:"key"` // the first one; it stays

	Current       []byte `json:"current,omitempty"` // signs now; empty: Key does
	Since         int64  `json:"since,omitempty"`   // since when; 0: unknown
	Next          []byte `json:"next,omitempty"`    // accepted already, signs soon
	NextFrom      int64  `json:"next_from,omitempty"`
	Previous      []byte `json:"previous,omitempty"` // has signed, still accepted
	PreviousUntil int64  `json:"previous_until,omitempty"`
}

// unixSeconds converts the CreateTime of a push. A push without one, whose time
// is zero, counts as the oldest.
func unixSeconds(t time.Time) int64 { return max(t.Unix(), 0) }

// fromSeconds is the reverse of unixSeconds; 0 is the zero time.
func fromSeconds(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(n, 0)
}

func millis(t time.Time) int64 { return t.UnixMilli() }

// Stored times were written by the clock of a process, and that clock may have
// been wrong, or may be now. So a stored time is never believed if it is
// further ahead than it can be.
const (
	// maxClockSkew is how far the clocks of replicas may differ. Beyond it a
	// stored time in the future was written by a wrong clock.
	maxClockSkew = 5 * time.Minute
	// longAgo is the time since what never happened.
	longAgo time.Duration = math.MaxInt64
)

// elapsed returns the time since a stored time: not less than 0, and longAgo
// for a time that a wrong clock wrote, or for none.
func elapsed(now time.Time, stored int64) time.Duration {
	d := now.Sub(fromMillis(stored))
	if stored == 0 || d < -maxClockSkew {
		return longAgo
	}
	return max(d, 0)
}

// isAfter reports whether a stored time is after t. It is not if a wrong clock
// wrote it.
func isAfter(stored int64, t, now time.Time) bool {
	return stored > millis(t) && elapsed(now, stored) != longAgo
}

// fromMillis is the reverse of millis; 0 is the zero time.
func fromMillis(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMilli(n)
}

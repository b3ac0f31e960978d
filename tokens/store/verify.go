package store

import (
	"context"
	"errors"
	"strings"
)

// Damage is one damaged record that [Verify] has found.
type Damage struct {
	Key     string // of the record; without DamagedPrefix
	Problem string // what is wrong with it; contains nothing of the record
	Moved   bool   // it lies below DamagedPrefix
}

// Verification is the result of [Verify].
type Verification struct {
	Records  int // all but those of the seal and the damaged ones
	Entries  int // of the queue, but for the damaged ones
	Damaged  int // those that were reported
	Previous int // records and entries that previous opens, and key does not
}

// Verify reads every record of inner, which holds the sealed records, and every
// entry of its queue. It reports the damaged ones, and changes nothing. key and
// previous are those of [Seal].
//
// check returns what is wrong with the content of a record, which is not
// damaged otherwise; it is not called for entries. report is called for each
// damaged record or entry. Neither may use the store.
//
// It returns [ErrWrongKey] if inner is sealed with other keys, and the errors of
// inner.
func Verify(
	ctx context.Context, inner Store, key []byte, previous [][]byte,
	check func(key string, record []byte) error, report func(Damage),
) (v Verification, err error) {
	ring, err := newKeyring(key, previous...)
	if err != nil {
		return v, err
	}
	st, err := loadSealState(ctx, inner, ring)
	if err == nil && st.check != nil {
		err = verifyCheck(ring, st.check)
	}
	if err != nil && !errors.Is(err, errCheckDamaged) {
		return v, err
	}
	damaged := func(d Damage) {
		v.Damaged++
		report(d)
	}
	err = inner.List(ctx, "", "", func(key string, sealed []byte) bool {
		if moved, ok := strings.CutPrefix(key, DamagedPrefix); ok {
			damaged(Damage{Key: strings.Clone(moved), Problem: "moved away", Moved: true})
			return true
		}
		if sealed == nil {
			damaged(Damage{Key: strings.Clone(key), Problem: "wrong checksum"})
			return true
		}
		if strings.HasPrefix(key, sealPrefix) {
			if _, _, err := ring.open(key, sealed); err != nil {
				damaged(Damage{Key: strings.Clone(key), Problem: err.Error()})
			}
			return true
		}
		record, by, err := ring.open(key, sealed)
		if err == nil {
			err = check(key, record)
		}
		if err != nil {
			damaged(Damage{Key: strings.Clone(key), Problem: err.Error()})
			return true
		}
		v.Records++
		if by != ring.current() {
			v.Previous++
		}
		return true
	})
	q, hasQueue := As[Queuer](inner)
	if err != nil || !hasQueue {
		return v, err
	}
	return v, q.Queue().Scan(ctx, func(e QueueEntry) bool {
		_, by, err := ring.open(e.String(), e.Payload)
		if err != nil {
			damaged(Damage{Key: e.String(), Problem: err.Error()})
			return true
		}
		v.Entries++
		if by != ring.current() {
			v.Previous++
		}
		return true
	})
}

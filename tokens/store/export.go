package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Exporter is a sealed store, whose records can be copied as they are stored.
type Exporter interface {
	// Export calls yield with each record as it is stored, encrypted, in the
	// byte order of the keys. That includes the check record of [Seal], so that
	// a store with these records is sealed with the same key. Entries of the
	// queue are among the records, see [ParseExported].
	//
	// It returns how many records it left out because they cannot be opened.
	// Damaged records that were moved away are left out, too, and not counted.
	// yield must not call the store; its error ends Export and is returned.
	Export(
		ctx context.Context, yield func(key string, sealed []byte) error,
	) (damaged int, err error)
}

// Export implements [Exporter].
func (s *sealedStore) Export(
	ctx context.Context, yield func(key string, sealed []byte) error,
) (damaged int, err error) {
	begun, err := loadSealState(ctx, s.inner, s.ring)
	if err != nil {
		return 0, err
	}
	// The keys of the entries are between those of records.
	damaged, err = s.exportRecords(ctx, "", exportedPrefix, begun, yield)
	if q := queueOf(s.inner); err == nil && q != nil {
		var lost int
		lost, err = s.exportQueue(ctx, q, yield)
		damaged += lost
	}
	if err != nil {
		return damaged, err
	}
	lost, err := s.exportRecords(ctx, afterExported, "", begun, yield)
	return damaged + lost, err
}

// exportRecords exports the records whose keys are greater than after and less
// than end; "" means no end.
func (s *sealedStore) exportRecords(
	ctx context.Context, after, end string, begun sealState,
	yield func(key string, sealed []byte) error,
) (damaged int, err error) {
	var yieldErr error
	err = s.inner.List(ctx, "", after, func(key string, sealed []byte) bool {
		if end != "" && key >= end {
			return false
		}
		if strings.HasPrefix(key, DamagedPrefix) {
			return true
		}
		if _, _, err := s.ring.open(key, sealed); err != nil {
			damaged++
			return true
		}
		if key == keysKey {
			sealed = s.exportedHistory(sealed, begun.history)
		}
		yieldErr = yield(key, sealed)
		return yieldErr == nil
	})
	if yieldErr != nil {
		return damaged, yieldErr
	}
	return damaged, err
}

// exportedHistory returns the history of the keys for an export that began when
// it was begun. Records that were read before their key was changed, or before
// all of them were sealed with it, are in the export as they were.
func (s *sealedStore) exportedHistory(sealed []byte, begun keyHistory) []byte {
	text, by, err := s.ring.open(keysKey, sealed)
	var h keyHistory
	if err != nil || json.Unmarshal(text, &h) != nil ||
		!begun.Pending && slices.Equal(h.IDs, begun.IDs) {
		return sealed
	}
	h.Pending, h.After, h.Changed, h.Settled = true, "", false, false
	return by.seal(keysKey, encodeHistory(&h))
}

// Opener opens records that [Seal] has encrypted, outside of their store. It is
// safe for concurrent use.
type Opener struct{ ring *keyring }

// NewOpener returns an Opener for the keys of [Seal].
func NewOpener(key []byte, previous ...[]byte) (*Opener, error) {
	r, err := newKeyring(key, previous...)
	if err != nil {
		return nil, err
	}
	return &Opener{r}, nil
}

// Check returns nil if the record key of an export opens. It returns
// [ErrWrongKey] for a check record that another key has sealed, and otherwise
// an error about the record.
func (o *Opener) Check(key string, sealed []byte) error {
	if key == checkKey {
		return verifyCheck(o.ring, sealed)
	}
	e, isEntry, err := ParseExported(key, sealed)
	if isEntry {
		key, sealed = e.String(), e.Payload
	}
	if err == nil {
		_, _, err = o.ring.open(key, sealed)
	}
	return err
}

// CheckEmpty returns [ErrNotEmpty] if s, which is not sealed, holds a record
// besides that of [Seal], or its queue an entry.
func CheckEmpty(ctx context.Context, s Store) error {
	found := ""
	err := s.List(ctx, "", "", func(key string, _ []byte) bool {
		if !strings.HasPrefix(key, sealPrefix) {
			found = key
		}
		return found == ""
	})
	if err == nil && found != "" {
		err = fmt.Errorf("%w: it holds records such as %q", ErrNotEmpty, found)
	}
	if q := queueOf(s); err == nil && q != nil {
		sizes, sizesErr := q.Sizes(ctx)
		if err = sizesErr; err == nil && len(sizes) > 0 {
			err = fmt.Errorf("%w: its queue holds events", ErrNotEmpty)
		}
	}
	return err
}

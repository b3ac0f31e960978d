package tokens

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"
)

// syncRecord holds when the accounts were compared with WeChat's list, and how
// far the comparison is that runs. All replicas share it.
type syncRecord struct {
	recordFormat
	Begun int64 `json:"begun"`          // newest sign of life of the newest attempt
	Done  int64 `json:"done,omitempty"` // when the list was last adopted completely
	// Data identifies the data of each part of the store when the attempt that
	// led to Done began; see [store.Changes].
	Data map[int]string `json:"data,omitempty"`
	// Incomplete is set while accounts that are no longer listed are still to
	// be looked for.
	Incomplete bool `json:"incomplete,omitempty"`

	Owner string `json:"owner,omitempty"` // process that compares; random
	Beat  int    `json:"beat,omitempty"`  // changes at least every beatInterval while it does
	// Offset is how many accounts of the list were adopted since RunBegun, when
	// the data of the store was RunData.
	Offset   int            `json:"offset,omitempty"`
	RunBegun int64          `json:"run_begun,omitempty"`
	RunData  map[int]string `json:"run_data,omitempty"`
	// Attempts counts those since the list was last read any further.
	Attempts int `json:"attempts,omitempty"`

	// Held is how many accounts of HeldOf would be marked as revoked, if an
	// operator confirms it.
	Held   int `json:"held,omitempty"`
	HeldOf int `json:"held_of,omitempty"`
}

const (
	// syncInterval is how long a change that no push reported stays unnoticed
	// at most, while comparisons succeed.
	syncInterval = 24 * time.Hour
	// firstSyncPause follows a failed attempt. It doubles with each further one
	// until maxSyncPause, unless the attempt got further than those before.
	firstSyncPause = 10 * time.Second
	maxSyncPause   = time.Hour
	// beatInterval is how often the process that compares notes how far it is.
	beatInterval = 10 * time.Second
	// ownerTimeout is how long another process watches an unchanged Beat until
	// it takes over. Only its own clock counts.
	ownerTimeout = 45 * time.Second
	// maxCursorAge is how long a comparison that was interrupted is resumed
	// where it was. Later it begins anew.
	maxCursorAge = syncInterval
)

// syncPause returns the pause after n attempts in a row without progress.
func syncPause(n int) time.Duration {
	if n == 0 {
		return 0
	}
	return min(firstSyncPause<<min(n-1, 10), maxSyncPause)
}

// due reports whether a comparison is due, whichever process runs it. data is
// what is known about the parts of the store now.
func (r *syncRecord) due(now time.Time, data map[int]string) bool {
	if elapsed(now, r.Begun) < syncPause(r.Attempts) {
		return false
	}
	isUnfinished := r.Incomplete || r.RunBegun != 0 // also one that an operator began
	return isUnfinished || elapsed(now, r.Done) >= syncInterval || lostRecords(r.Data, data)
}

// lostRecords reports whether a part of the store has lost records between two
// observations. A part that is missing in one of them is not known to have.
func lostRecords(before, now map[int]string) bool {
	for part, id := range before {
		if other, ok := now[part]; ok && other != id {
			return true
		}
	}
	return false
}

// dataWatch remembers what a [store.Watcher] says about the parts of the store.
// The zero value knows of none. It is safe for concurrent use.
type dataWatch struct {
	mu    sync.Mutex
	parts map[int]string
}

// note adds what is known about some parts.
func (d *dataWatch) note(parts map[int]string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.parts == nil {
		d.parts = map[int]string{}
	}
	maps.Copy(d.parts, parts)
}

// known returns what is known about all parts that have responded.
func (d *dataWatch) known() map[int]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.parts)
}

// errTakenOver: another process runs the comparison, or the record of it was
// lost, so that it has to begin anew.
var errTakenOver = errors.New("another process compares the accounts, or the store lost records")

// change changes the record of comparisons, and saves it if fn returns true.
func (s *syncer) change(ctx context.Context, fn func(*syncRecord) bool) error {
	key := syncKey(s.component.appid())
	return changeRecord(ctx, s.store, key, func(rec *syncRecord) (*syncRecord, error) {
		if rec == nil {
			rec = &syncRecord{recordFormat: currentFormat}
		}
		if !fn(rec) {
			return nil, nil
		}
		return rec, nil
	})
}

// claim reports whether a comparison is due and this process has to run it: no
// other one does, or it has shown no sign of life for ownerTimeout.
func (s *syncer) claim(ctx context.Context) (claimed bool) {
	if !s.ready(ctx) {
		return false // the next ticket wakes the loop
	}
	// Nearly always nothing is due, which takes no lock to find out.
	rec, err := loadRecord[syncRecord](ctx, s.store, syncKey(s.component.appid()))
	if err != nil {
		return false
	}
	// What is known is read after the record. A record that another process has
	// written since would differ from it, as if the store had lost records.
	now, data := s.now(), s.data.known()
	if rec != nil {
		isAlive := s.isAlive(rec, now)
		if !rec.due(now, data) {
			s.noteParts(ctx, rec, data)
			return false
		}
		if isAlive {
			return false
		}
	}
	err = s.change(ctx, func(rec *syncRecord) bool {
		claimed = rec.due(now, s.data.known()) && !s.isAlive(rec, now)
		return claimed && s.begin(rec, now)
	})
	return claimed && err == nil
}

// noteParts adds parts of the store to the record that it does not know: those
// that did not respond when it was written, and all of a record of an earlier
// version.
func (s *syncer) noteParts(ctx context.Context, rec *syncRecord, data map[int]string) {
	isNew := false
	for part := range data {
		_, ok := rec.Data[part]
		isNew = isNew || !ok
	}
	if !isNew {
		return
	}
	_ = s.change(ctx, func(rec *syncRecord) bool {
		if rec.Done == 0 || lostRecords(rec.Data, data) {
			return false
		}
		if rec.Data == nil {
			rec.Data = map[int]string{}
		}
		maps.Copy(rec.Data, data)
		return true
	})
}

// isAlive reports whether another process runs the comparison. It is not, if
// its Beat has not changed since this process saw it ownerTimeout ago.
func (s *syncer) isAlive(rec *syncRecord, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rec.Owner == "" || rec.Owner == s.id {
		return false
	}
	if seen := (ownerBeat{rec.Owner, rec.Beat}); seen != s.seen {
		s.seen, s.seenAt = seen, now
		time.AfterFunc(ownerTimeout+time.Second, s.wake)
	}
	return now.Sub(s.seenAt) < ownerTimeout
}

// ownerBeat is a sign of life of a process that compares.
type ownerBeat struct {
	owner string
	beat  int
}

// begin notes in rec that this process compares, and always returns true. The
// cursor stays if what it stands for is still in the store.
func (s *syncer) begin(rec *syncRecord, now time.Time) bool {
	data := s.data.known()
	if rec.Owner != s.id {
		rec.Attempts++
	}
	rec.Owner, rec.Begun, rec.Beat = s.id, millis(now), rec.Beat+1
	if rec.Offset == 0 || lostRecords(rec.RunData, data) ||
		elapsed(now, rec.RunBegun) >= maxCursorAge {
		rec.Offset, rec.RunBegun, rec.RunData = 0, millis(now), data
	}
	return true
}

// note changes the record for the process that runs the comparison. It returns
// errTakenOver if that is another one.
func (s *syncer) note(ctx context.Context, fn func(*syncRecord)) error {
	isOurs := false
	err := s.change(ctx, func(rec *syncRecord) bool {
		if isOurs = rec.Owner == s.id; isOurs {
			rec.Begun, rec.Beat = millis(s.now()), rec.Beat+1
			fn(rec)
		}
		return isOurs
	})
	if err == nil && !isOurs {
		err = errTakenOver
	}
	return err
}

// noteAdopted notes that all of the list was adopted.
func (r *syncRecord) noteAdopted(now time.Time) {
	r.Done, r.Data, r.Incomplete = millis(now), r.RunData, true
	r.Offset, r.RunBegun, r.RunData = 0, 0, nil
}

// release lets another process, or a later attempt, continue. A process that is
// stopped is no failure.
func (s *syncer) release(stopped bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.tasks.ctx), statusTimeout)
	defer cancel()
	_ = s.note(ctx, func(rec *syncRecord) {
		rec.Owner = ""
		if stopped {
			rec.Attempts = max(rec.Attempts-1, 0)
		}
	})
}

package bolt

import "time"

// CatchFaults is tested on its own, because no test can make a disk fail.
var CatchFaults = catchFaults

// SetClock replaces the clock by which claims end. It must be called before the
// store is used.
func (s *Store) SetClock(now func() time.Time) { s.now = now }

// FailCommits makes every commit return the error that disk returns, if any. It
// must be called before the store is used.
func (s *Store) FailCommits(disk func() error) { s.disk = disk }

// ExpectRemovedFile makes the store wait for a removed file for this long only.
// It must be called before the store is used.
func (s *Store) ExpectRemovedFile(patience time.Duration) { s.recovery.removedPatience = patience }

package callback

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestJobIsTriedForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutbox(nil)
		start, tries := time.Now(), 0
		var failedAfter time.Duration
		o.add(job{
			do:     func(context.Context) error { tries++; return errors.New("down") },
			failed: func(error) { failedAfter = time.Since(start) },
		})
		time.Sleep(2 * jobTimeout)
		synctest.Wait()
		if failedAfter != jobTimeout || tries < 6 || tries > 12 {
			t.Errorf("got %d tries in %v, want 6 to 12 in %v", tries, failedAfter, jobTimeout)
		}
		if o.jobs != 0 || o.bytes != 0 {
			t.Errorf("got %d jobs of %d bytes at the end, want none", o.jobs, o.bytes)
		}
		if err := o.close(t.Context()); err != nil {
			t.Errorf("close: got error %v, want none", err)
		}
		if o.add(job{}) {
			t.Error("a job was accepted after close")
		}
	})
}

func TestPermanentErrorIsNotRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutbox(nil)
		start, tries := time.Now(), 0
		var failedAfter time.Duration
		o.add(job{
			do:     func(context.Context) error { tries++; return permanentError{errors.New("used")} },
			failed: func(error) { failedAfter = time.Since(start) },
		})
		if err := o.close(t.Context()); err != nil || tries != 1 || failedAfter != 0 {
			t.Errorf("got %d tries, failure after %v, error %v, want 1 try and failure at once",
				tries, failedAfter, err)
		}
	})
}

// close gives a job that waits for its next try exactly one, without the pause.
func TestCloseTriesWaitingJobOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutbox(nil)
		tries, failures := 0, 0
		o.add(job{
			do:     func(context.Context) error { tries++; return errors.New("down") },
			failed: func(error) { failures++ },
		})
		synctest.Wait() // until the first try has failed
		start := time.Now()
		err := o.close(t.Context())
		if took := time.Since(start); err != nil || took != 0 || tries != 2 || failures != 1 {
			t.Errorf("close: got error %v after %v, %d tries and %d failures, want none at once, 2 and 1",
				err, took, tries, failures)
		}
	})
}

func TestOutboxIsBoundedInBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutbox(nil)
		hold := make(chan struct{})
		j := job{size: maxJobBytes/4 + 1, do: func(context.Context) error { <-hold; return nil }}
		for n := range 3 {
			if !o.add(j) {
				t.Errorf("job %d was rejected, want 3 accepted", n+1)
			}
		}
		if o.add(j) {
			t.Errorf("job 4 was accepted, although together they have more than %d bytes", maxJobBytes)
		}
		close(hold)
		synctest.Wait()
		if !o.add(j) {
			t.Error("a job was rejected after the others had ended")
		}
		_ = o.close(t.Context())
	})
}

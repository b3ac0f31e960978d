package callback

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	maxJobs     = 1024
	maxJobBytes = 16 << 20
	// maxTries is the maximum number of concurrent tries. A job that waits for
	// its next try counts only to maxJobs.
	maxTries = 16

	jobTimeout = time.Minute      // of all tries together
	tryTimeout = 10 * time.Second // of one try
	firstPause = 500 * time.Millisecond
	maxPause   = 15 * time.Second // the pause doubles up to here
)

var errOutboxFull = errors.New("too many jobs are waiting, or wxproxy is stopping")

// job is work that is done after the response and is tried again if it fails.
type job struct {
	size   int                             // of what it holds in memory, in bytes
	do     func(ctx context.Context) error // an error: try again
	failed func(err error)                 // called once, when the job is given up
}

// permanentError is an error that no further try would change.
type permanentError struct{ error }

// outbox runs jobs concurrently and in no order, and tries each again for a
// minute. Jobs do not survive the process. An idle outbox has no goroutine. It
// is safe for concurrent use.
type outbox struct {
	panicked func(cause any) // called when a job panics

	tries   chan struct{} // a semaphore
	closing chan struct{} // closed: waiting jobs try once more at once
	ctx     context.Context
	cancel  context.CancelFunc

	mu      sync.Mutex
	closed  bool
	jobs    int
	bytes   int
	running sync.WaitGroup
}

// newOutbox returns an outbox that reports panics of jobs to panicked.
func newOutbox(panicked func(cause any)) *outbox {
	o := &outbox{
		panicked: panicked,
		tries:    make(chan struct{}, maxTries),
		closing:  make(chan struct{}),
	}
	o.ctx, o.cancel = context.WithCancel(context.Background())
	return o
}

// add takes a job. It returns false if there are too many, or if the outbox is
// closed; then it calls neither function of the job.
func (o *outbox) add(j job) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || o.jobs >= maxJobs || o.bytes+j.size > maxJobBytes {
		return false
	}
	o.jobs++
	o.bytes += j.size
	// o.mu is held, so close has not begun to wait.
	o.running.Go(func() { o.run(j) })
	return true
}

// run tries a job until it succeeds, fails for good, or its time is up.
func (o *outbox) run(j job) {
	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.jobs--
		o.bytes -= j.size
	}()
	ctx, cancel := context.WithTimeout(o.ctx, jobTimeout)
	defer cancel()
	closing := o.closing // nil after the last try
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		err := o.try(ctx, j)
		if err == nil {
			return
		}
		if _, permanent := errors.AsType[permanentError](err); permanent || closing == nil {
			j.failed(err)
			return
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-closing:
			timer.Stop()
			closing = nil
		case <-ctx.Done():
			timer.Stop()
			j.failed(err)
			return
		}
	}
}

// try runs a job once. A panic in it counts as a failure.
func (o *outbox) try(ctx context.Context, j job) (err error) {
	select {
	case o.tries <- struct{}{}:
		defer func() { <-o.tries }()
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	err = errInternal
	defer func() {
		if cause := recover(); cause != nil {
			o.panicked(cause)
		}
	}()
	return j.do(ctx)
}

// close rejects new jobs and waits for the others, each of which has one more
// try. When ctx ends, it cancels them and returns the error of ctx. A second
// call returns nil at once.
func (o *outbox) close(ctx context.Context) error {
	o.mu.Lock()
	already := o.closed
	o.closed = true
	o.mu.Unlock()
	if already {
		return nil
	}
	close(o.closing)
	done := make(chan struct{})
	go func() { o.running.Wait(); close(done) }()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
		o.cancel()
		<-done // every try ends with its context
	}
	o.cancel()
	return err
}

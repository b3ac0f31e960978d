package callback

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Bounds of what is done behind an answer.
const (
	maxJobs     = 1024
	maxJobBytes = 16 << 20
	maxTries    = 16 // at the same time; a job that waits for its next try counts to maxJobs only
	jobTime     = time.Minute
	tryTime     = 10 * time.Second
	firstPause  = 500 * time.Millisecond // doubled with each try
	lastPause   = 15 * time.Second
)

// job is something to be done behind an answer, with some patience.
type job struct {
	size   int                             // what it holds, in bytes
	do     func(ctx context.Context) error // an error: try again
	failed func(err error)                 // told once, when it is given up
}

// final is an error that no further try would change.
type final struct{ error }

// outbox does jobs, each by itself and in no order, and tries them again for a minute. Nothing of it outlives the
// process. At rest it has no goroutine.
type outbox struct {
	panicked func(cause any) // told of a defect in a job

	tries   chan struct{}
	closing chan struct{} // closed: what waits tries once more, now
	life    context.Context
	cancel  context.CancelFunc

	mu     sync.Mutex
	closed bool
	jobs   int
	bytes  int
	all    sync.WaitGroup
}

func newOutbox(panicked func(cause any)) *outbox {
	o := &outbox{panicked: panicked, tries: make(chan struct{}, maxTries), closing: make(chan struct{})}
	o.life, o.cancel = context.WithCancel(context.Background())
	return o
}

// add takes a job, or reports that there are too many, or that it is too late.
func (o *outbox) add(j job) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || o.jobs >= maxJobs || o.bytes+j.size > maxJobBytes {
		return false
	}
	o.jobs++
	o.bytes += j.size
	o.all.Go(func() { o.run(j) }) // not after close has begun to wait: o.mu is held
	return true
}

func (o *outbox) run(j job) {
	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.jobs--
		o.bytes -= j.size
	}()
	ctx, cancel := context.WithTimeout(o.life, jobTime)
	defer cancel()
	closing := o.closing
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := o.try(ctx, j)
		if err == nil {
			return
		}
		if _, is := errors.AsType[final](err); is {
			closing = nil
		}
		wait := time.NewTimer(pause)
		if closing == nil { // this was the last one
			wait.Stop()
			j.failed(err)
			return
		}
		select {
		case <-wait.C:
		case <-closing:
			wait.Stop()
			closing = nil
		case <-ctx.Done():
			wait.Stop()
			j.failed(err)
			return
		}
	}
}

func (o *outbox) try(ctx context.Context, j job) (err error) {
	select {
	case o.tries <- struct{}{}:
		defer func() { <-o.tries }()
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	err = errPanic
	defer func() {
		if cause := recover(); cause != nil {
			o.panicked(cause)
		}
	}()
	return j.do(ctx)
}

// close refuses new jobs and waits for those at hand, each of which has one more try, until ctx ends; then it ends them.
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
	go func() { o.all.Wait(); close(done) }()
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

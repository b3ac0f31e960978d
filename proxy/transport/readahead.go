package transport

import (
	"errors"
	"sync"
)

// readAhead reads a stream before anybody asks for it, so that what is behind it, a connection to WeChat, is free as soon as
// WeChat has sent everything, however slowly the caller takes it. What is read and not yet taken is bounded, for each stream
// and for all together; at the bound the stream flows as the caller takes it.
type readAhead struct {
	read     func([]byte) (int, error) // the stream; the filling goroutine's
	progress func()                    // called before each read, with mu held
	memory   Reservation

	mu      sync.Mutex
	changed sync.Cond
	chunks  [][]byte // what is read, the oldest first
	taken   int      // of the first of them
	err     error    // what comes behind the chunks
	stopped bool
}

const (
	readAheadChunk = 16 << 10 // as much as TLS gives at once
	// maxReadAhead is what is read ahead of one stream, bytes: the largest media of WeChat's have 10 MiB; and ReadAheadLimit of all.
	maxReadAhead   = 12 << 20
	ReadAheadLimit = 128 << 20
)

var readAheadChunks = sync.Pool{New: func() any { b := make([]byte, readAheadChunk); return &b }}

var errStopped = errors.New("nobody reads on")

// newReadAhead begins to read, in a goroutine of its own, and calls over when nothing is read any more: with the error that the
// stream ended with, or errStopped.
func newReadAhead(read func([]byte) (int, error), all *Budget, progress func(), over func(error)) *readAhead {
	a := &readAhead{read: read, memory: all.Reserve(), progress: progress}
	a.changed.L = &a.mu
	go func() { over(a.fill()) }()
	return a
}

func (a *readAhead) fill() error {
	for {
		if !a.mayRead() {
			return errStopped
		}
		b := readAheadChunks.Get().(*[]byte)
		n, err := a.read(*b)
		a.mu.Lock()
		switch {
		case a.stopped:
			readAheadChunks.Put(b)
			a.mu.Unlock()
			return errStopped
		case n > 0:
			a.chunks = append(a.chunks, (*b)[:n])
		default:
			readAheadChunks.Put(b)
		}
		a.err = err
		a.changed.Broadcast()
		a.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// mayRead waits until there is room for another chunk, which there always is when nothing is left to be taken.
func (a *readAhead) mayRead() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for !a.stopped && len(a.chunks) > 0 && (len(a.chunks) >= maxReadAhead/readAheadChunk || !a.memory.Resize(a.size()+readAheadChunk)) {
		a.changed.Wait()
	}
	if a.stopped {
		return false
	}
	a.progress()
	return true
}

// size is the memory of the chunks.
func (a *readAhead) size() int { return len(a.chunks) * readAheadChunk }

func (a *readAhead) Read(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.chunks) == 0 && a.err == nil && !a.stopped {
		a.changed.Wait()
	}
	switch {
	case a.stopped:
		return 0, errStopped
	case len(a.chunks) == 0:
		return 0, a.err
	}
	first := a.chunks[0]
	n := copy(p, first[a.taken:])
	if a.taken += n; a.taken == len(first) {
		a.drop()
	}
	return n, nil
}

// drop gives the first chunk back.
func (a *readAhead) drop() {
	first := a.chunks[0][:readAheadChunk]
	readAheadChunks.Put(&first)
	a.chunks[0], a.chunks, a.taken = nil, a.chunks[1:], 0
	if a.memory.size > 0 {
		a.memory.Resize(a.size())
	}
	a.changed.Broadcast()
}

// stop ends it; what is not taken is gone. interrupt ends a read that is under way; no other begins afterwards.
func (a *readAhead) stop(interrupt func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.chunks) > 0 {
		a.drop()
	}
	a.memory.Release()
	if a.stopped = true; a.err == nil {
		interrupt()
	}
	a.changed.Broadcast()
}

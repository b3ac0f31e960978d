package transport

import (
	"errors"
	"sync"
)

const (
	// readAheadChunk is the size of one buffer, bytes: what TLS decrypts at
	// once.
	readAheadChunk = 16 << 10
	// maxReadAhead bounds what is buffered of one stream, bytes. WeChat's
	// largest media files have 10 MiB.
	maxReadAhead = 12 << 20
	// ReadAheadLimit is a good limit for the budget that all streams share,
	// bytes.
	ReadAheadLimit = 128 << 20
)

var readAheadChunks = sync.Pool{New: func() any { b := make([]byte, readAheadChunk); return &b }}

// errStopped is the error of a stream that nothing is read from any more.
var errStopped = errors.New("read-ahead stopped")

// readAhead reads a source into memory before the data is asked for. The
// source, a connection to WeChat, is free as soon as WeChat has sent
// everything, however slow the reader is. What is buffered is bounded for each
// stream, and by a [Share]. At the bound, the source is read as fast as the
// reader reads.
//
// One goroutine fills, another one calls Read and stop.
type readAhead struct {
	read       func([]byte) (int, error) // the source; only the filling goroutine calls it
	beforeRead func()                    // called before each read, with mu held
	memory     Reservation               // guarded by mu

	mu      sync.Mutex
	changed sync.Cond // chunks, err or stopped; both goroutines wait for it
	chunks  [][]byte  // oldest first
	offset  int       // of what has been read from the first chunk
	err     error     // of the source; it is returned after the chunks
	stopped bool
}

// newReadAhead starts to read in a goroutine of its own. When that reads no
// more it calls done, with the error of the source or errStopped.
func newReadAhead(
	read func([]byte) (int, error), share *Share, beforeRead func(), done func(error),
) *readAhead {
	a := &readAhead{read: read, memory: share.Reserve(), beforeRead: beforeRead}
	a.changed.L = &a.mu
	go func() { done(a.fill()) }()
	return a
}

// fill reads until the source ends or stop is called. It never holds mu while
// it reads, so that the reader takes what is there.
func (a *readAhead) fill() error {
	for a.waitForSpace() {
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
	return errStopped
}

// waitForSpace waits until another chunk is allowed. It reports false after
// stop. An empty buffer may always have one chunk, even if the share has no
// room: every stream goes on.
func (a *readAhead) waitForSpace() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for !a.stopped && len(a.chunks) > 0 &&
		(len(a.chunks) >= maxReadAhead/readAheadChunk || !a.memory.Resize(a.size()+readAheadChunk)) {
		// Only this stream's reader wakes this goroutine. Room that another
		// stream gives back is noticed when the reader has taken a chunk.
		a.changed.Wait()
	}
	if a.stopped {
		return false
	}
	// Under mu, so that it cannot come after the interrupt of stop and undo
	// that.
	a.beforeRead()
	return true
}

// size returns the memory of the chunks, bytes.
func (a *readAhead) size() int { return len(a.chunks) * readAheadChunk }

// Read implements [io.Reader]. It waits for data, and returns the error of the
// source after all data, or errStopped.
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
	n := copy(p, first[a.offset:])
	if a.offset += n; a.offset == len(first) {
		a.dropFirst()
	}
	return n, nil
}

// dropFirst gives the memory of the first chunk back.
func (a *readAhead) dropFirst() {
	first := a.chunks[0][:readAheadChunk]
	readAheadChunks.Put(&first)
	a.chunks[0], a.chunks, a.offset = nil, a.chunks[1:], 0
	if a.memory.Size() > 0 {
		a.memory.Resize(a.size())
	}
	a.changed.Broadcast()
}

// stop discards what is buffered. If a read of the source may be in progress,
// it calls interrupt, which has to make it return. No other read begins
// afterwards. stop can be called again.
func (a *readAhead) stop(interrupt func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.chunks) > 0 {
		a.dropFirst()
	}
	a.memory.Release()
	if a.stopped = true; a.err == nil {
		interrupt()
	}
	a.changed.Broadcast()
}

package transport

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
)

// The body of a request is read whole before it is forwarded. WeChat requires a
// Content-Length, which chunked bodies lack, and a second attempt after a
// rejected token needs the body again.

const (
	// PrereadBody is the number of bytes of a body that fasthttp waits for
	// before it calls the handler, if it is the MaxRequestBodySize of a server
	// that streams bodies. It is the least that fasthttp can be told. A request
	// is decided from its head, so nothing is gained by waiting for more.
	PrereadBody = 1
	// uncountedBody is the size of a buffer that does not count against a
	// budget, bytes. It is a fraction of what a connection takes anyway, and
	// most bodies fit into it.
	uncountedBody = 4 << 10
	// bodyGrowthFactor is the largest ratio of buffer to data that has arrived.
	// A smaller one would copy more.
	bodyGrowthFactor = 4
	// mediumBody and maxPooledBody are the sizes of the next buffers, which are
	// kept for other requests. Larger ones are not.
	mediumBody    = bodyGrowthFactor * uncountedBody
	maxPooledBody = bodyGrowthFactor * mediumBody
)

// ErrBodyBudget is returned by [Body.Read] if the bodies of other requests take
// all memory that there is for bodies.
var ErrBodyBudget = errors.New("no memory for the request body")

// Body is the body of a request, in memory. The zero value is empty. It is not
// safe for concurrent use.
type Body struct {
	b      []byte
	small  []byte      // an uncounted buffer, which is kept for the next request
	memory Reservation // of b, if that is not small
}

// Bytes returns what was read. It is valid until Release.
func (b *Body) Bytes() []byte { return b.b }

// Read reads the body of the request. share is what its memory counts against,
// apart from short bodies. A request without a body leaves b empty. now is the
// current time.
//
// It returns [fasthttp.ErrBodyTooLarge] for a body longer than limit, as soon
// as the headers or the data show it, ErrBodyBudget, [io.ErrUnexpectedEOF] for
// a body that is cut short, or the error of the connection, a timeout if the
// body arrives more slowly than [Pace] allows.
//
// The buffer grows with the data that has arrived, not with Content-Length.
// Otherwise a thousand clients that announce 32 MiB and send nothing would take
// all memory.
func (b *Body) Read(ctx *fasthttp.RequestCtx, limit int, share *Share, now time.Time) error {
	if !ctx.Request.IsBodyStream() {
		return nil
	}
	b.memory = share.Reserve()
	r := newBodyReader(ctx, limit, now)
	for {
		if len(b.b) == cap(b.b) && !b.grow(r.size, limit) {
			return ErrBodyBudget
		}
		space := b.b[len(b.b):cap(b.b)]
		if len(space) == 0 {
			space = make([]byte, 1) // for the end, or one byte too many
		}
		n, end, err := r.read(space)
		if err != nil {
			return err
		}
		b.b = b.b[:len(b.b)+n]
		if end {
			return nil
		}
	}
}

// grow makes room in the buffer, unless limit bytes are there already, and
// reports whether the memory for that could be reserved. size is the announced
// length, negative if it is unknown.
func (b *Body) grow(size, limit int) bool {
	if b.small == nil {
		b.small = make([]byte, 0, uncountedBody)
	}
	most := limit
	if size >= 0 {
		most = min(size, limit)
	}
	n := bodyGrowthFactor * len(b.b)
	switch {
	case len(b.b) == 0:
		b.b = b.small
		return true
	case len(b.b) >= most:
		return true
	case n > maxPooledBody:
		n = min(n, most)
	}
	if !b.memory.Resize(n) {
		return false
	}
	old := b.b
	b.b = append(newBodyBuffer(n), old...)
	keepBodyBuffer(old)
	return true
}

// Release empties b and gives its memory back. The slice that Bytes returned
// must not be used any more.
func (b *Body) Release() {
	keepBodyBuffer(b.b)
	b.b = nil
	b.memory.Release()
}

// Buffers that count against a budget while they are in use are pooled by their
// size. They are not kept together with a Body: requests without a body would
// hold them then, uncounted.
var (
	mediumBuffers = sync.Pool{New: func() any { return new([mediumBody]byte) }}
	largeBuffers  = sync.Pool{New: func() any { return new([maxPooledBody]byte) }}
)

// newBodyBuffer returns an empty buffer with a capacity of n bytes.
func newBodyBuffer(n int) []byte {
	switch n {
	case mediumBody:
		return mediumBuffers.Get().(*[mediumBody]byte)[:0]
	case maxPooledBody:
		return largeBuffers.Get().(*[maxPooledBody]byte)[:0]
	}
	return make([]byte, 0, n)
}

// keepBodyBuffer keeps a buffer for another request if it has a pool.
func keepBodyBuffer(b []byte) {
	switch cap(b) {
	case mediumBody:
		mediumBuffers.Put((*[mediumBody]byte)(b[:mediumBody]))
	case maxPooledBody:
		largeBuffers.Put((*[maxPooledBody]byte)(b[:maxPooledBody]))
	}
}

// DiscardBody reads the body of a request that is rejected, so that the
// connection can serve the next one. It needs no memory. Its errors are those
// of [Body.Read], except ErrBodyBudget.
func DiscardBody(ctx *fasthttp.RequestCtx, limit int, now time.Time) error {
	if !ctx.Request.IsBodyStream() {
		return nil
	}
	scratch := discardBuffers.Get().(*[discardSize]byte)
	defer discardBuffers.Put(scratch)
	r := newBodyReader(ctx, limit, now)
	for {
		if _, end, err := r.read(scratch[:]); err != nil || end {
			return err
		}
	}
}

// discardSize is the size of a buffer for bytes that are not kept. A short one
// is enough: fasthttp reads more than this from the connection at once.
const discardSize = 512

var discardBuffers = sync.Pool{New: func() any { return new([discardSize]byte) }}

// bodyReader reads the body of one request. It checks its length, its end, and
// how fast it arrives.
type bodyReader struct {
	ctx    *fasthttp.RequestCtx
	stream io.Reader
	limit  int
	size   int // as announced; negative: chunked
	total  int // what was read
	clock  bodyClock
}

func newBodyReader(ctx *fasthttp.RequestCtx, limit int, now time.Time) bodyReader {
	r := bodyReader{
		ctx: ctx, stream: ctx.RequestBodyStream(), limit: limit,
		size: ctx.Request.Header.ContentLength(),
	}
	r.clock.conn = ConnOf(ctx.Conn())
	if r.size < 0 || r.size > uncountedBody {
		r.clock.start(now)
	}
	return r
}

// read reads into p, and reports whether the body ends there.
func (r *bodyReader) read(p []byte) (n int, end bool, err error) {
	if r.size > r.limit {
		return 0, false, fasthttp.ErrBodyTooLarge
	}
	n, err = r.stream.Read(p)
	r.total += n
	switch {
	case err == io.EOF && r.isCutShort(n):
		return n, true, io.ErrUnexpectedEOF
	case err != nil && err != io.EOF:
		return n, true, err
	case r.total > r.limit:
		return n, true, fasthttp.ErrBodyTooLarge
	case err == io.EOF:
		return n, true, nil
	}
	// A short body has usually arrived whole, and its first byte says nothing:
	// see PrereadBody. So most requests need no other deadline than their
	// connection's.
	if r.total > PrereadBody {
		r.clock.received(n)
	}
	return n, false, nil
}

// isCutShort reports whether io.EOF came too early. last is the number of bytes
// that the last read returned.
//
// For chunked bodies fasthttp returns io.EOF also if the connection ends
// between two chunks. After a whole body it returns it without data, and has
// not read from the connection past the last chunk. So a connection whose end
// was seen has not delivered the last chunk.
func (r *bodyReader) isCutShort(last int) bool {
	if r.size >= 0 {
		return r.total != r.size
	}
	return last > 0 || sawEOF(r.ctx.Conn())
}

package transport

import (
	"errors"
	"io"
	"time"

	"github.com/valyala/fasthttp"
)

// The body of a request is read whole before it is forwarded. WeChat requires a
// Content-Length, which chunked bodies lack, and a second attempt after a
// rejected token needs the body again.

const (
	// initialBodySize is the buffer for a body of which nothing has arrived, and
	// maxPooledBody the largest buffer that is kept for another request, bytes.
	// Smaller buffers do not count against the budget.
	initialBodySize = 16 << 10
	maxPooledBody   = 64 << 10
	// prereadBody is the number of bytes of a body that fasthttp has read before
	// ReadBody is called. The rest is waited for.
	prereadBody = 8 << 10
	// bodyGrowthFactor is the largest ratio of buffer to data that has arrived. A
	// smaller one would copy more.
	bodyGrowthFactor = 4
)

// ErrBodyBudget is returned by [ReadBody] if the bodies of other requests take all
// memory that there is for bodies.
var ErrBodyBudget = errors.New("no memory for the request body")

// ReadBody appends the body of the request to buf and returns the result. memory
// counts what is more than a pooled buffer; the caller releases it when the body
// is no longer used. A request without a body returns buf as it is.
//
// It returns [fasthttp.ErrBodyTooLarge] for a body longer than limit, as soon as
// the headers or the data show it, ErrBodyBudget, [io.ErrUnexpectedEOF] for a
// body that is cut short, or the error of the connection. The first result can be
// recycled after an error, too.
//
// The buffer grows with the data that has arrived, not with Content-Length.
// Otherwise a thousand clients that announce 32 MiB and send nothing would take
// all memory.
func ReadBody(ctx *fasthttp.RequestCtx, buf []byte, limit int, memory *Reservation) ([]byte, error) {
	if !ctx.Request.IsBodyStream() {
		return buf, nil
	}
	n := ctx.Request.Header.ContentLength() // negative: chunked
	if n < 0 || n > prereadBody {
		ConnOf(ctx.Conn()).ExtendDeadline(time.Now())
	}
	stream := ctx.RequestBodyStream()
	for {
		if max(n, len(buf)) > limit {
			return buf, fasthttp.ErrBodyTooLarge
		}
		if len(buf) == cap(buf) {
			size := max(initialBodySize, bodyGrowthFactor*len(buf))
			if n >= 0 {
				size = min(size, n+1) // one more, to see the end
			}
			if size > maxPooledBody && !memory.Resize(size) {
				return buf, ErrBodyBudget
			}
			buf = append(make([]byte, 0, size), buf...)
		}
		m, err := stream.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+m]
		switch {
		case err == io.EOF && isCutShort(ctx, n, len(buf), m):
			return buf, io.ErrUnexpectedEOF
		case err == io.EOF && len(buf) <= limit:
			return buf, nil
		case err != nil && err != io.EOF:
			return buf, err
		}
		// Or io.EOF after too much data: the next round returns ErrBodyTooLarge.
	}
}

// isCutShort reports whether io.EOF came too early: after size of n bytes (n < 0:
// chunked), of which the last read returned last.
//
// For chunked bodies fasthttp returns io.EOF also if the connection ends between
// two chunks. After a whole body it returns it without data, and has not read
// from the connection past the last chunk. So a connection whose end was seen has
// not delivered the last chunk.
func isCutShort(ctx *fasthttp.RequestCtx, n, size, last int) bool {
	if n >= 0 {
		return size != n
	}
	return last > 0 || sawEOF(ctx.Conn())
}

// Recycle returns buf emptied for the next request, or nil if it is too large to
// be kept.
func Recycle(buf []byte) []byte {
	if cap(buf) > maxPooledBody {
		return nil
	}
	return buf[:0]
}

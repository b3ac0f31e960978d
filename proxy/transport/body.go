package transport

import (
	"errors"
	"io"
	"time"

	"github.com/valyala/fasthttp"
)

// The body of a request is held whole, because WeChat wants its length beforehand and a retry needs it again. But it is
// given room as it arrives: fasthttp by itself makes room for all that a header announces, and whoever
// announced 32 MiB on each of a thousand connections, and sent nothing, would have all memory.

const (
	// initialBodySize is what a body gets before any of it is there, and maxPooledBody the most that is kept for the next call.
	initialBodySize = 16 << 10
	maxPooledBody   = 64 << 10
	// prereadBody is what fasthttp has read of a body before it is asked for it.
	prereadBody = 8 << 10
	// bodyGrowthFactor is by how much more room there may be than bytes that arrived. Doubling would copy more.
	bodyGrowthFactor = 4
)

// ErrBodyBudget is the error of a body for which there is no memory now.
var ErrBodyBudget = errors.New("no memory for the request body")

// ReadBody reads the body of a request into buf, which it extends, and of which large ones are counted to memory. It returns
// [fasthttp.ErrBodyTooLarge] as soon as it can be told that the body is larger than limit, and ErrBodyBudget where there is no memory
// for it.
func ReadBody(ctx *fasthttp.RequestCtx, buf []byte, limit int, memory *Reservation) ([]byte, error) {
	if !ctx.Request.IsBodyStream() {
		return buf, nil // there is none
	}
	n := ctx.Request.Header.ContentLength() // -1: in chunks
	if n < 0 || n > prereadBody {
		ConnOf(ctx.Conn()).ExtendDeadline(time.Now())
	}
	stream := ctx.RequestBodyStream()
	for {
		size := max(n, len(buf))
		if size > limit {
			return buf, fasthttp.ErrBodyTooLarge
		}
		if len(buf) == cap(buf) {
			room := max(initialBodySize, bodyGrowthFactor*len(buf))
			if n >= 0 {
				room = min(room, n+1) // one more, to see the end
			}
			if room > maxPooledBody && !memory.Resize(room) {
				return buf, ErrBodyBudget
			}
			buf = append(make([]byte, 0, room), buf...)
		}
		m, err := stream.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+m]
		switch {
		case err == io.EOF && (n >= 0 && len(buf) != n || n < 0 && (m > 0 || sawEOF(ctx.Conn()))):
			// fasthttp says io.EOF of a chunked body that breaks off behind a chunk, too; and of one that is whole only
			// after its last chunk, for which it reads no further than that.
			return buf, io.ErrUnexpectedEOF
		case err == io.EOF && len(buf) <= limit:
			return buf, nil
		case err != nil && err != io.EOF:
			return buf, err
		}
		// At the end and over the limit: that is asked above, and the end comes again.
	}
}

// Recycle is what of a body's buffer serves the next request.
func Recycle(buf []byte) []byte {
	if cap(buf) > maxPooledBody {
		return nil
	}
	return buf[:0]
}

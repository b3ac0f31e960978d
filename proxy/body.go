package proxy

import (
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// The body of a request is held whole, because WeChat wants its length beforehand and a retry needs it again. But it is
// given room as it arrives: fasthttp by itself makes room for all that a header announces, and whoever
// announced 32 MiB on each of a thousand connections, and sent nothing, would have all memory.

const (
	// firstRoom is what a body gets before any of it is there, and keptRoom the most that is kept for the next call.
	firstRoom = 16 << 10
	keptRoom  = 64 << 10
	// readAhead is what fasthttp has read of a body before it is asked for it.
	readAhead = 8 << 10
	// growth is by how much more room there may be than bytes that arrived. Doubling would copy more.
	growth = 4
	// leastBodies is what the large bodies of all calls may take together, in bytes, and mostBodies how many of the largest that
	// the configuration allows: a caller with a key could have all memory otherwise.
	leastBodies = 512 << 20
	mostBodies  = 2
)

var errBodies = &problem{status: http.StatusServiceUnavailable, msg: "the bodies of other calls take all the memory that there is for them", retryAfter: time.Second,
	hint: "large uploads take turns: try again, send fewer at the same time, start more replicas"}

// holdings are what the large bodies of all calls take together.
type holdings struct{ total atomic.Int64 }

// grow makes what one call holds so many bytes, or reports that there is no room for that.
func (h *holdings) grow(held *int64, size, limit int) bool {
	more := int64(size) - *held
	if h.total.Add(more) > int64(limit) {
		h.total.Add(-more)
		return false
	}
	*held = int64(size)
	return true
}

// release gives back what one call holds.
func (h *holdings) release(held *int64) {
	h.total.Add(-*held)
	*held = 0
}

// readBody reads the body of a request into buf, which it extends; held is what of it counts to p.bodies. The errors are for
// refuse; where the request is larger than its sender may send, it is [fasthttp.ErrBodyTooLarge] as soon as that can be told.
func (p *Proxy) readBody(cx *fasthttp.RequestCtx, buf []byte, held *int64) ([]byte, error) {
	if !cx.Request.IsBodyStream() {
		return buf, nil // there is none
	}
	n := cx.Request.Header.ContentLength() // -1: in chunks
	if n < 0 || n > readAhead {
		underneath(cx.Conn()).putOff(time.Now())
	}
	limit, asked := min(longestForm, p.settings.Load().maxBody), false
	stream := cx.RequestBodyStream()
	for {
		size := max(n, len(buf))
		if size > limit && !asked {
			limit, asked = p.bodyLimit(&cx.Request.Header), true
		}
		if size > limit {
			return buf, fasthttp.ErrBodyTooLarge
		}
		if len(buf) == cap(buf) {
			room := max(firstRoom, growth*len(buf))
			if n >= 0 {
				room = min(room, n+1) // one more, to see the end
			}
			if room > keptRoom && !p.bodies.grow(held, room, max(p.leastBodies, mostBodies*p.settings.Load().maxBody)) {
				return buf, errBodies
			}
			buf = append(make([]byte, 0, room), buf...)
		}
		m, err := stream.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+m]
		switch {
		case err == io.EOF && (n >= 0 && len(buf) != n || n < 0 && (m > 0 || ended(cx.Conn()))):
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

// kept is what of a body's room serves the next call.
func kept(buf []byte) []byte {
	if cap(buf) > keptRoom {
		return nil
	}
	return buf[:0]
}

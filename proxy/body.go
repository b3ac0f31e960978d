package proxy

import (
	"io"

	"github.com/valyala/fasthttp"
)

// The body of a request is held whole, because WeChat wants its length beforehand and a retry needs it again. But it is
// given room as it arrives: fasthttp by itself makes room for all that a header announces, and whoever
// announced 32 MiB on each of a thousand connections, and sent nothing, would have all memory.

const (
	// firstRoom is what a body gets before any of it is there, and keptRoom the most that is kept for the next call.
	firstRoom = 16 << 10
	keptRoom  = 64 << 10
	// growth is by how much more room there may be than bytes that arrived. Doubling would copy more.
	growth = 4
)

// readBody reads the body of a request into buf, which it extends. The errors are for refuse; where the request is larger
// than its sender may send, it is [fasthttp.ErrBodyTooLarge] as soon as that can be told.
func (p *Proxy) readBody(cx *fasthttp.RequestCtx, buf []byte) ([]byte, error) {
	if !cx.Request.IsBodyStream() {
		return buf, nil // there is none
	}
	n := cx.Request.Header.ContentLength() // -1: in chunks
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

package sandbox

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"strconv"
	"time"

	"wxproxy/sandbox/internal/protocol"
)

// dripParts is the number of parts in which Fault.Drip sends a body.
const dripParts = 16

// writeResponse sends a response and applies what a fault, which can be nil,
// does to it. It panics with http.ErrAbortHandler where the connection is to be
// closed: net/http then closes it and logs nothing.
func writeResponse(w http.ResponseWriter, r *protocol.Request, resp *protocol.Response, f *Fault, compress bool) {
	if f == nil {
		f = &Fault{}
	}
	if !f.wait(r.Context()) || f.Break == BreakBefore {
		panic(http.ErrAbortHandler)
	}
	body, length := resp.Stream, resp.Length
	h := w.Header()
	switch {
	case body != nil:
	case compress || f.Gzip:
		compressed := gzipped(resp.Body)
		body, length = compressed, int64(compressed.Len())
		h.Set("Content-Encoding", "gzip")
	default:
		body = bytes.NewReader(resp.Body)
	}
	setHeader(h, resp)
	if !f.Chunked {
		h.Set("Content-Length", strconv.FormatInt(length, 10))
	}
	w.WriteHeader(resp.Status)
	flush := http.NewResponseController(w).Flush
	if f.Chunked || f.Break == BreakMiddle || f.Drip > 0 {
		_ = flush()
	}
	switch {
	case f.Break == BreakMiddle:
		_, _ = io.CopyN(w, body, length/2)
		_ = flush()
		panic(http.ErrAbortHandler)
	case f.Drip > 0:
		drip(r.Context(), w, body, length, time.Duration(f.Drip), flush)
	default:
		_, _ = io.Copy(w, body)
	}
}

// setHeader sets the headers that do not depend on how the body is sent.
func setHeader(h http.Header, resp *protocol.Response) {
	h.Set("Content-Type", resp.ContentType)
	if resp.Disposition != "" {
		// WeChat spells it like this; h.Set would write a capital D.
		h["Content-disposition"] = []string{resp.Disposition}
	}
	if resp.ErrCode != 0 {
		h["LogicRet"] = []string{strconv.Itoa(resp.ErrCode)} // observed at WeChat, not documented
	}
}

// gzipped returns the compressed body.
func gzipped(body []byte) *bytes.Buffer {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(body) // a bytes.Buffer does not fail
	z.Close()
	return &b
}

// drip sends the body in parts, with a pause before each.
func drip(ctx context.Context, w io.Writer, body io.Reader, length int64, pause time.Duration, flush func() error) {
	part := length/dripParts + 1
	for sent := int64(0); sent < length; sent += part {
		if !sleep(ctx, pause) {
			panic(http.ErrAbortHandler)
		}
		if _, err := io.CopyN(w, body, min(part, length-sent)); err != nil {
			return // the client is gone
		}
		_ = flush()
	}
}

// wait applies Delay and Hold. It returns false if the client is gone.
func (f *Fault) wait(ctx context.Context) bool {
	if f.Delay > 0 && !sleep(ctx, time.Duration(f.Delay)) {
		return false
	}
	if f.Hold == nil {
		return true
	}
	select {
	case <-f.Hold:
		return true
	case <-ctx.Done():
		return false
	}
}

// sleep pauses for d. It returns false if ctx ends before that.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

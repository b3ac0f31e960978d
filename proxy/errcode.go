package proxy

import (
	"bytes"
	"compress/gzip"
	"io"
	"sync"

	"github.com/valyala/fasthttp"

	"wxproxy/proxy/transport"
	"wxproxy/wechat"
)

var (
	gzipReaders = sync.Pool{New: func() any { return new(gzip.Reader) }}
	gzipMagic   = []byte{0x1f, 0x8b}

	inspectBuffers = sync.Pool{New: func() any { b := make([]byte, 0, transport.InspectLimit); return &b }}
)

// errcodeOf finds the top-level errcode of an answer, compressed or not, 0 where there is none; and says whether the
// answer shows a credential of ours.
func (c *call) errcodeOf(resp *fasthttp.Response) (code int, echo bool) {
	b := transport.BodyPrefix(resp)
	if bytes.HasPrefix(b, gzipMagic) {
		buf := inspectBuffers.Get().(*[]byte)
		defer inspectBuffers.Put(buf)
		b = unzipHead((*buf)[:transport.InspectLimit], b)
	}
	return wechat.FindErrCode(b), c.echoes(b)
}

// unzipHead undoes as much of the compression as there is room for in buf.
func unzipHead(buf, b []byte) []byte {
	z := gzipReaders.Get().(*gzip.Reader)
	defer gzipReaders.Put(z)
	if z.Reset(bytes.NewReader(b)) != nil {
		return nil
	}
	// A prefix of an answer ends in the middle: what could be read is what counts.
	n, _ := io.ReadFull(z, buf)
	return buf[:n]
}

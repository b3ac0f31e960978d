package transport

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

// Reasons why [ReadWhole] does not return a body. ErrTimeout is another one.
var (
	errTooLong    = errors.New("too large")
	errCompressed = errors.New("unknown encoding")
	errCharset    = errors.New("unknown character set")
	errPartial    = errors.New("partial content")
	errTruncated  = errors.New("truncated")
)

// ReadWhole reads the body of a response to its end, also if it is a [Stream],
// and decompresses it once. The result is the new body of resp. Only bodies in
// which text can be searched for are returned: not a part of a body, not what
// is still compressed, and no character set in which ASCII looks different.
//
// limit bounds the body, bytes, before and after it is decompressed. A body
// that has not arrived by the deadline ends with ErrTimeout. memory is for the
// body and a copy of it; if there is none, the error is ErrResponseBudget.
func ReadWhole(
	resp *fasthttp.Response, limit int, deadline time.Time, memory *Reservation,
) ([]byte, error) {
	if err := checkSearchable(resp); err != nil {
		return nil, err
	}
	if stream := resp.BodyStream(); stream != nil {
		if s, ok := stream.(*Stream); ok {
			s.end = deadline
		}
		body, err := readBounded(stream, limit, memory)
		resp.CloseBodyStream()
		if err != nil {
			return nil, err
		}
		resp.SwapBody(body)
	}
	body := resp.Body()
	if bytes.HasPrefix(body, gzipMagic) {
		z, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return nil, errCompressed
		}
		if body, err = readBounded(z, limit, memory); err != nil {
			return nil, err
		}
		resp.Header.SetContentEncoding("")
		resp.SwapBody(body)
	} else if isGzip(resp.Header.ContentEncoding()) {
		return nil, errCompressed
	}
	if isCompressed(body) {
		return nil, errCompressed
	}
	return body, nil
}

// checkSearchable returns an error if the headers of resp say that its body
// cannot be searched.
func checkSearchable(resp *fasthttp.Response) error {
	encoding := resp.Header.ContentEncoding()
	switch {
	case resp.StatusCode() == http.StatusPartialContent, len(resp.Header.Peek("Content-Range")) > 0:
		return errPartial // a credential may be cut in two
	case len(encoding) > 0 && !isGzip(encoding) && !strings.EqualFold(string(encoding), "identity"):
		return errCompressed
	case !isASCII(resp.Header.ContentType()):
		return errCharset
	}
	return nil
}

func isGzip(encoding []byte) bool {
	name := string(encoding)
	return strings.EqualFold(name, "gzip") || strings.EqualFold(name, "x-gzip")
}

// charsets are the beginnings of the names of character sets in which ASCII is
// written as ASCII, with zero bytes in between at most.
var charsets = []string{
	"utf-8", "utf8", "us-ascii", "ascii", "gb", "big5", "iso-8859-", "latin", "windows-",
	"utf-16", "utf-32",
}

// isASCII reports whether ASCII is written as such in a body of this type.
// WeChat's types have no charset: they say "encoding=utf-8".
func isASCII(contentType []byte) bool {
	parts := strings.Split(strings.ToLower(string(contentType)), "charset")
	return !slices.ContainsFunc(parts[1:], func(rest string) bool {
		name := strings.TrimLeft(rest, "= \t\"'")
		known := func(charset string) bool { return strings.HasPrefix(name, charset) }
		return name != "" && name[0] != ';' && !slices.ContainsFunc(charsets, known)
	})
}

var gzipMagic = []byte{0x1f, 0x8b}

// magics begin what is compressed. Images and other media are not in the list:
// they pass.
var magics = [][]byte{
	gzipMagic,
	[]byte("\x28\xb5\x2f\xfd"),            // Zstandard
	[]byte("BZh"), []byte("\xfd7zXZ\x00"), // bzip2, xz
	[]byte("PK\x03\x04"), []byte("7z\xbc\xaf"), // zip, 7z
	[]byte("\x04\x22\x4d\x18"), []byte("Rar!"), // LZ4, RAR
	[]byte("\x78\x01"), []byte("\x78\x5e"), []byte("\x78\x9c"), []byte("\x78\xda"), // zlib
}

// isCompressed reports whether a body is still compressed.
func isCompressed(body []byte) bool {
	for _, magic := range magics {
		if bytes.HasPrefix(body, magic) {
			return true
		}
	}
	return false
}

// readBounded reads r to its end. Short bodies need no reservation.
func readBounded(r io.Reader, limit int, memory *Reservation) ([]byte, error) {
	b := make([]byte, 0, min(InspectLimit, limit+1))
	for {
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case len(b) > limit:
			return nil, errTooLong
		case err == io.EOF:
			return b, nil
		case err != nil && errors.Is(transferError(err), ErrTimeout):
			return nil, ErrTimeout
		case err != nil:
			return nil, errTruncated
		}
		if len(b) < cap(b) {
			continue
		}
		more := min(cap(b), limit+1-cap(b))
		const copies = 2
		if !memory.Resize(memory.Size() + copies*more) {
			return nil, ErrResponseBudget
		}
		b = append(make([]byte, 0, cap(b)+more), b...)
	}
}

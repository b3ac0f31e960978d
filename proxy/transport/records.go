package transport

import "encoding/binary"

// recordHeader is the length of the header of a TLS record, bytes. Its last two
// bytes are the length of what follows. All versions of TLS have it in common.
const recordHeader = 5

// recordScanner follows the framing of a stream of TLS records. The zero value
// is at the beginning of a record.
type recordScanner struct {
	header [recordHeader]byte
	have   int // bytes of the header that were scanned; 0 within the content
	left   int // bytes of the content that were not
}

// scan takes the next bytes of the stream.
func (r *recordScanner) scan(b []byte) {
	for len(b) > 0 {
		if r.left > 0 {
			n := min(r.left, len(b))
			r.left, b = r.left-n, b[n:]
			continue
		}
		n := copy(r.header[r.have:], b)
		r.have, b = r.have+n, b[n:]
		if r.have == recordHeader {
			r.have, r.left = 0, int(binary.BigEndian.Uint16(r.header[3:]))
		}
	}
}

// inRecord reports whether the stream ended within a record so far.
func (r *recordScanner) inRecord() bool { return r.have > 0 || r.left > 0 }

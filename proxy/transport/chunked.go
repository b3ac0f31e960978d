package transport

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// maxTrailers bounds the trailer fields of a chunked body.
const maxTrailers = 64

// chunkedBody reads a chunked body together with what follows the last chunk,
// which httputil leaves to its caller: trailer fields, which are dropped, and an
// empty line. Only then the next response can be read from the connection.
type chunkedBody struct {
	r     io.Reader // from httputil
	br    *bufio.Reader
	ended bool
}

func (c *chunkedBody) Read(p []byte) (int, error) {
	if c.ended {
		return 0, io.EOF
	}
	n, err := c.r.Read(p)
	if err != io.EOF {
		return n, err
	}
	c.ended = true
	for range maxTrailers {
		line, err := c.br.ReadSlice('\n')
		if err != nil {
			return n, io.ErrUnexpectedEOF
		}
		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			return n, io.EOF
		}
	}
	return n, errors.New("too many trailers")
}

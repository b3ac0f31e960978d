// Package archive is the format of an export: the records of a sealed store in
// one file, still encrypted. Events of its queue are among the records, under
// names of their own.
//
// A file is
//
//	"wxproxy export 1\n"
//	header   one line of JSON, see [Header]
//	records  each: length of the key, key, length of the record, record
//	end      a length of 0, number of records, number of damaged records that
//	         were left out, SHA-256 of everything before it
//
// Lengths and numbers are unsigned varints (encoding/binary). The keys ascend in
// byte order, so that none is there twice. The end makes sure that a truncated
// file, or one with a flipped bit, is not taken for a backup.
package archive

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	"wxproxy/tokens/store/internal/durable"
)

// ContentType is the media type of an export.
const ContentType = "application/vnd.wxproxy.export"

const (
	magic      = "wxproxy export 1\n"
	magicStart = "wxproxy export " // of every version

	maxHeader = 4096    // bytes
	maxKey    = 4096    // bytes
	maxRecord = 4 << 20 // bytes; events of the queue have up to 2 MiB, records 64 KiB
)

// ErrInvalid reports that a file is no export, or is damaged or truncated.
var ErrInvalid = errors.New("not a complete wxproxy export")

// Header says where an export comes from. All fields are informative.
type Header struct {
	Created time.Time `json:"created"` // when the export began
	Version string    `json:"version"` // of the wxproxy that made it
}

// Summary is what the end of an export says.
type Summary struct {
	Records int // in the file
	// Damaged is how many records the store could not read, and which are not
	// in the file.
	Damaged int
}

// Writer writes an export.
type Writer struct {
	out     *bufio.Writer
	sum     hash.Hash
	records int
	last    string // key
	err     error  // the first one
}

// NewWriter returns a Writer to w, which has written the header.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	a := &Writer{sum: sha256.New()}
	a.out = bufio.NewWriterSize(io.MultiWriter(w, a.sum), 64<<10)
	header, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	a.write([]byte(magic))
	a.write(append(header, '\n'))
	return a, a.err
}

func (a *Writer) write(b []byte) {
	if a.err == nil {
		_, a.err = a.out.Write(b)
	}
}

func (a *Writer) writeNumber(n int) { a.write(binary.AppendUvarint(nil, uint64(n))) }

// Put appends a record. The keys must ascend.
func (a *Writer) Put(key string, record []byte) error {
	if key <= a.last || len(key) > maxKey || len(record) > maxRecord {
		return fmt.Errorf("record %.100q cannot be exported: keys must ascend and have "+
			"up to %d bytes, records up to %d", key, maxKey, maxRecord)
	}
	a.writeNumber(len(key))
	a.write([]byte(key))
	a.writeNumber(len(record))
	a.write(record)
	a.last = key
	a.records++
	return a.err
}

// Close writes the end. It does not close the underlying writer. Without it the
// file is incomplete.
func (a *Writer) Close(damaged int) (Summary, error) {
	a.writeNumber(0)
	a.writeNumber(a.records)
	a.writeNumber(damaged)
	if a.err == nil {
		a.err = a.out.Flush() // before the sum is complete
	}
	a.write(a.sum.Sum(nil))
	if a.err == nil {
		a.err = a.out.Flush()
	}
	return Summary{a.records, damaged}, a.err
}

// Read reads an export from its beginning to its end, and calls yield with each
// record, whose bytes are valid until yield returns. An error of yield ends it
// and is returned.
//
// What yield gets is not known to be undamaged before Read returns nil. Errors
// wrap [ErrInvalid] or are those of r, of ctx and of yield.
func Read(
	ctx context.Context, r io.Reader, yield func(key string, record []byte) error,
) (h Header, s Summary, err error) {
	in := &reader{in: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}
	if err := in.header(&h); err != nil {
		return h, s, err
	}
	last := ""
	for {
		if err := ctx.Err(); err != nil {
			return h, s, err
		}
		keySize, err := in.number(maxKey)
		if err != nil {
			return h, s, err
		}
		if keySize == 0 {
			break
		}
		key, err := in.bytes(&in.key, keySize)
		if err != nil {
			return h, s, err
		}
		if string(key) <= last {
			return h, s, invalid("its keys are out of order")
		}
		last = string(key)
		size, err := in.number(maxRecord)
		if err != nil {
			return h, s, err
		}
		record, err := in.bytes(&in.record, size)
		if err != nil {
			return h, s, err
		}
		s.Records++
		if err := yield(last, record); err != nil {
			return h, s, err
		}
	}
	return h, s, in.end(&s)
}

// reader reads the parts of an export, and sums up what it reads.
type reader struct {
	in          *bufio.Reader
	sum         hash.Hash
	key, record []byte // buffers
}

func invalid(problem string) error { return fmt.Errorf("%w: %s", ErrInvalid, problem) }

// readError converts the end of the file, which is never expected.
func readError(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return invalid("it is truncated")
	}
	return err
}

// ReadByte implements [io.ByteReader], for varints.
func (r *reader) ReadByte() (byte, error) {
	b, err := r.in.ReadByte()
	if err == nil {
		r.sum.Write([]byte{b})
	}
	return b, err
}

// number reads a number that is limit at most.
func (r *reader) number(limit uint64) (int, error) {
	n, err := binary.ReadUvarint(r)
	switch {
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		return 0, readError(err)
	case err != nil && n == 0 || n > limit: // an overflow, or an error of the reader
		return 0, invalid("a number in it is too large")
	}
	return int(n), readError(err)
}

// bytes reads n bytes into buf. The buffer grows with what was announced, which
// is bounded.
func (r *reader) bytes(buf *[]byte, n int) ([]byte, error) {
	if cap(*buf) < n {
		*buf = make([]byte, n)
	}
	b := (*buf)[:n]
	_, err := io.ReadFull(r.in, b)
	r.sum.Write(b)
	return b, readError(err)
}

// header reads the beginning of the file.
func (r *reader) header(h *Header) error {
	begin := make([]byte, len(magic))
	n, err := io.ReadFull(r.in, begin)
	if err != nil && !errors.Is(readError(err), ErrInvalid) {
		return err
	}
	if string(begin[:n]) != magic {
		if n > len(magicStart) && string(begin[:len(magicStart)]) == magicStart {
			return invalid("it has another format: a newer wxproxy made it")
		}
		return invalid("it does not begin like one")
	}
	r.sum.Write(begin)
	line, err := r.in.ReadSlice('\n')
	if err == bufio.ErrBufferFull || len(line) > maxHeader {
		return invalid("its header is too long")
	}
	if err != nil {
		return readError(err)
	}
	r.sum.Write(line)
	if json.Unmarshal(line, h) != nil {
		return invalid("its header is damaged")
	}
	return nil
}

// end reads what follows the records. s has the number of records that were
// read.
func (r *reader) end(s *Summary) error {
	const unlimited = 1 << 40
	records, err := r.number(unlimited)
	if err != nil {
		return err
	}
	if s.Damaged, err = r.number(unlimited); err != nil {
		return err
	}
	want := r.sum.Sum(nil)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r.in, got); err != nil {
		return readError(err)
	}
	if string(got) != string(want) || records != s.Records {
		return invalid("its checksum is wrong, it is damaged")
	}
	if _, err := r.in.ReadByte(); err != io.EOF {
		if err != nil {
			return err
		}
		return invalid("there is something after its end")
	}
	return nil
}

// Create makes the file path, readable by its owner alone. write writes its
// content, and path has that content only if write returns nil: before, and
// after a power failure, it is as it was.
func Create(path string, write func(io.Writer) error) error {
	return durable.Replace(path, func(name string) error {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		err = write(f)
		if err == nil {
			err = f.Sync()
		}
		return errors.Join(err, f.Close())
	})
}

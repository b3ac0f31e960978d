package transport

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/valyala/fasthttp"
)

// TestReadWholeBoundsMemory checks that a body and its decompressed form count
// against the reservation, and that a body is withheld when that has no room:
// bodies of 10 B to 1 MiB × plain and gzip.
func TestReadWholeBoundsMemory(t *testing.T) {
	const limit = 2 << 20
	for _, size := range []int{
		10, InspectLimit - 1, InspectLimit, InspectLimit + 1, 300_000, 1 << 20,
	} {
		for _, compressed := range []bool{false, true} {
			body := []byte(strings.Repeat("x", size))
			if compressed {
				var b bytes.Buffer
				z := gzip.NewWriter(&b)
				z.Write(body)
				z.Close()
				body = b.Bytes()
			}
			for _, room := range []int{0, 16 << 20} {
				budget := new(Budget)
				budget.SetLimit(room)
				memory := budget.NewShare().Reserve()
				var resp fasthttp.Response
				resp.SetBodyStream(iotest.HalfReader(bytes.NewReader(body)), -1)
				got, err := ReadWhole(&resp, limit, time.Now().Add(time.Minute), &memory)
				if room == 0 && size >= InspectLimit {
					if !errors.Is(err, ErrResponseBudget) {
						t.Errorf("%d bytes: got error %v, want %v", size, err, ErrResponseBudget)
					}
					continue
				}
				if err != nil || len(got) != size || !bytes.Equal(resp.Body(), got) {
					t.Errorf("%d bytes: got %d, error %v, want all", size, len(got), err)
				}
				used := int(budget.Used())
				if room > 0 && used < size-InspectLimit || used > 4*size {
					t.Errorf("%d bytes: got %d reserved", size, used)
				}
				memory.Release()
				if used := budget.Used(); used != 0 {
					t.Errorf("%d bytes: got %d reserved after the release, want 0", size, used)
				}
			}
		}
	}
}

// TestReadWholeReportsErrors checks the reasons of a body that does not arrive.
func TestReadWholeReportsErrors(t *testing.T) {
	for want, failure := range map[error]error{
		errTruncated: io.ErrUnexpectedEOF, ErrTimeout: timeoutError{},
	} {
		var resp fasthttp.Response
		resp.SetBodyStream(io.MultiReader(strings.NewReader("x"), iotest.ErrReader(failure)), -1)
		var memory Reservation
		if _, err := ReadWhole(&resp, 1<<20, time.Now(), &memory); !errors.Is(err, want) {
			t.Errorf("%v: got error %v, want %v", failure, err, want)
		}
	}
}

// timeoutError is a network error.
type timeoutError struct{}

func (timeoutError) Error() string   { return "timeout" }
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }

package transport

import "testing"

// A stream of records ends within one exactly if its bytes, taken together, do:
// wherever it is split into reads.
func FuzzRecordScanner(f *testing.F) {
	f.Add([]byte("\x17\x03\x03\x00\x02ab\x15\x03\x03\x00\x00\x16\x03"), uint8(1))
	f.Add([]byte("\x17\x03\x03\x01\x00"), uint8(3))
	f.Fuzz(func(t *testing.T, stream []byte, step uint8) {
		whole := stream
		for len(whole) >= recordHeader {
			n := recordHeader + int(whole[3])<<8 + int(whole[4])
			if n > len(whole) {
				break
			}
			whole = whole[n:]
		}
		var r recordScanner
		for rest := stream; len(rest) > 0; {
			n := min(int(step)+1, len(rest))
			r.scan(rest[:n])
			rest = rest[n:]
		}
		if got, want := r.inRecord(), len(whole) > 0; got != want {
			t.Errorf("%x in steps of %d: got %t, want %t", stream, int(step)+1, got, want)
		}
	})
}

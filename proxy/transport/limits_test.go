package transport

import "testing"

func TestDivideFiles(t *testing.T) {
	for _, c := range []struct {
		files           uint64
		inFlight, conns int
	}{
		{0, minInFlight, minConns},
		{256, 64, minConns},
		{1024, 256, 512},
		{65536, MaxInFlight, 65536 - MaxInFlight - otherFiles},
		{1 << 20, MaxInFlight, 1<<20 - MaxInFlight - otherFiles},
		{1<<64 - 1, MaxInFlight, 1<<20 - MaxInFlight - otherFiles}, // unlimited
	} {
		if inFlight, conns := divideFiles(c.files); inFlight != c.inFlight || conns != c.conns {
			t.Errorf("%d files: got %d, %d, want %d, %d", c.files, inFlight, conns, c.inFlight, c.conns)
		}
	}
	if inFlight, conns := FileDescriptorLimits(); inFlight < minInFlight || conns < minConns {
		t.Errorf("this process: got %d, %d", inFlight, conns)
	}
}

package transport

import "testing"

func TestDivideFiles(t *testing.T) {
	for _, c := range []struct {
		files           uint64
		ownCalls        int
		inFlight, conns int
	}{
		{0, 64, minInFlight, minConns},
		{256, 64, 64, minConns},
		{1024, 64, 256, 512},
		{1024, 1, 256, 575},
		{65536, 1000, MaxInFlight, 65536 - MaxInFlight - otherFiles - 1000},
		{1 << 20, 64, MaxInFlight, 1<<20 - MaxInFlight - otherFiles - 64},
		{1<<64 - 1, 64, MaxInFlight, 1<<20 - MaxInFlight - otherFiles - 64}, // unlimited
	} {
		inFlight, conns := divideFiles(c.files, c.ownCalls)
		if inFlight != c.inFlight || conns != c.conns {
			t.Errorf("%d files: got %d, %d, want %d, %d", c.files, inFlight, conns, c.inFlight, c.conns)
		}
	}
	if inFlight, conns := FileDescriptorLimits(64); inFlight < minInFlight || conns < minConns {
		t.Errorf("this process: got %d, %d", inFlight, conns)
	}
}

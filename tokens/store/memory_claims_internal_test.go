package store

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// TestMemoryClaimsAreReclaimed: 50,000 claims, of which 60 live at the same
// time, need space for about 2,000.
func TestMemoryClaimsAreReclaimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewMemory().(*memoryStore)
		most := 0
		for i := range 50_000 {
			first, err := s.Claim(t.Context(), fmt.Sprint(i), time.Now().Add(time.Minute))
			if err != nil || !first {
				t.Fatalf("claim %d: got %v, error %v, want true", i, first, err)
			}
			most = max(most, len(s.claims))
			<-time.After(time.Second) // of the bubble
		}
		if most > 2*minSweep {
			t.Errorf("claims in memory: got up to %d, want at most %d", most, 2*minSweep)
		}
	})
}

package bolt_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"wxproxy/tokens/store/bolt"
)

// childEnv makes the test binary a child of TestAcknowledgedWritesSurviveKill.
// Its value is the path of the store.
const childEnv = "WXPROXY_TEST_KILL_STORE"

// compactEnv does so for TestCompactionSurvivesKill.
const compactEnv = "WXPROXY_TEST_KILL_COMPACT"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		writeUntilKilled(path)
	}
	if path := os.Getenv(compactEnv); path != "" {
		compactUntilKilled(path)
	}
	if path := os.Getenv(heapEnv); path != "" {
		printHeap(path)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// writeUntilKilled counts up under eight keys concurrently, and prints each
// number after its update has returned and "KEY NUMBER" has been claimed. It
// never returns.
func writeUntilKilled(path string) {
	s, err := bolt.OpenFile(context.Background(), path, nil)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	for i := range 8 {
		go func() {
			key := fmt.Sprint("k", i)
			for {
				var n int
				err := s.Update(context.Background(), key, func(_ context.Context, old []byte) ([]byte, error) {
					n, _ = strconv.Atoi(strings.TrimSpace(string(old)))
					n++
					// Vary the length, so that pages are split and merged
					// meanwhile.
					return fmt.Appendf(nil, "%d%*s", n, n%700, ""), nil
				})
				if err != nil {
					fmt.Println("error", err)
					os.Exit(1)
				}
				line := fmt.Sprintf("%s %d", key, n)
				first, err := s.Claim(context.Background(), line, time.Now().Add(time.Hour))
				if err != nil || !first {
					fmt.Println("error", first, err)
					os.Exit(1)
				}
				fmt.Println(line) // one unbuffered write
			}
		}()
	}
	select {}
}

// TestAcknowledgedWritesSurviveKill kills a writing process 30 times, and finds
// every acknowledged write and claim in the store.
func TestAcknowledgedWritesSurviveKill(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "a.db")
	acknowledged := map[string]int{}
	var claims []string
	for round := range 30 {
		child := exec.Command(self)
		child.Env = append(os.Environ(), childEnv+"="+path)
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines, last := bufio.NewScanner(out), 1+rand.N(100)
		for n := 1; lines.Scan(); n++ {
			var key string
			var value int
			// A line that the kill cut off is not an acknowledgment.
			if _, err := fmt.Sscanf(lines.Text()+"\n", "%s %d\n", &key, &value); err != nil {
				t.Fatalf("output of the child: got %q, want KEY NUMBER", lines.Text())
			}
			acknowledged[key] = max(acknowledged[key], value)
			claims = append(claims, lines.Text())
			if n == last {
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = child.Wait() // "signal: killed"

		s, err := bolt.OpenFile(t.Context(), path, nil)
		if err != nil {
			t.Fatalf("open after kill %d: %v", round+1, err)
		}
		for key, n := range acknowledged {
			record, err := s.Load(t.Context(), key)
			var got int
			fmt.Sscan(string(record), &got)
			if err != nil || got < n {
				t.Fatalf("%q after kill %d: got %d, error %v, want at least %d", key, round+1, got, err, n)
			}
		}
		for _, claim := range claims {
			first, err := s.Claim(t.Context(), claim, time.Now().Add(time.Hour))
			if err != nil || first {
				t.Fatalf("claim of %q after kill %d: got %v, error %v, want false", claim, round+1, first, err)
			}
		}
		mustClose(t, s)
	}
	if len(acknowledged) != 8 {
		t.Errorf("got writes of %d writers, want 8", len(acknowledged))
	}
}

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
	"testing"

	"wxproxy/tokens/store/bolt"
)

// childEnv tells the test binary that it is the child of TestKill, and its store.
const childEnv = "WXPROXY_TEST_KILL_STORE"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		writeUntilKilled(path)
	}
	os.Exit(m.Run())
}

// writeUntilKilled counts up under eight keys at once, and says what was acknowledged after it
// was. It never returns.
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
					n, _ = strconv.Atoi(string(old))
					n++
					// Of changing lengths: the tree is split and joined while it is killed.
					return fmt.Appendf(nil, "%d%*s", n, n%700, ""), nil
				})
				if err != nil {
					fmt.Println("error", err)
					os.Exit(1)
				}
				fmt.Printf("%s %d\n", key, n) // one write, and no buffer that would die with us
			}
		}()
	}
	select {}
}

// TestKill kills a process that writes, 30 times, and wants each write that it was told of.
func TestKill(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "a.db")
	acknowledged := map[string]int{}
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
			// What was cut off by the kill was not said.
			if _, err := fmt.Sscanf(lines.Text()+"\n", "%s %d\n", &key, &value); err != nil {
				t.Fatalf("the child says %q", lines.Text())
			}
			acknowledged[key] = max(acknowledged[key], value)
			if n == last {
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = child.Wait() // "signal: killed"

		s, err := bolt.OpenFile(t.Context(), path, nil)
		if err != nil {
			t.Fatalf("after kill %d: %v", round+1, err)
		}
		for key, n := range acknowledged {
			record, err := s.Load(t.Context(), key)
			var got int
			fmt.Sscan(string(record), &got)
			if err != nil || got < n {
				t.Fatalf("after kill %d: %q is at %d, %v; %d was acknowledged", round+1, key, got, err, n)
			}
		}
		closed(t, s)
	}
	if len(acknowledged) != 8 {
		t.Errorf("only %d of 8 writers had their turn", len(acknowledged))
	}
}

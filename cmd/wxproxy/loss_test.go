//go:build unix

package main

import (
	"bytes"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"wxproxy/internal/proctest"
	"wxproxy/sandbox"
)

// clusterNode is a node of a Redis Cluster that keeps nothing on disk but its
// slots.
type clusterNode struct {
	t    *testing.T
	dir  string
	port string
	bus  string
	cmd  *exec.Cmd
}

// start runs the node and waits until it responds.
func (n *clusterNode) start() {
	n.t.Helper()
	n.cmd = exec.Command(toolPath(n.t, "redis-server"), "--bind", "127.0.0.1", "--port", n.port,
		"--save", "", "--appendonly", "no", "--dir", n.dir, "--cluster-enabled", "yes",
		"--cluster-port", n.bus, "--cluster-node-timeout", "15000",
		"--cluster-require-full-coverage", "no", "--loglevel", "warning")
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	proctest.Eventually(n.t, func() bool { return n.do("PING") == "+PONG" })
}

// kill ends the node, also one that is stopped.
func (n *clusterNode) kill() {
	if n.cmd != nil {
		n.cmd.Process.Kill()
		n.cmd.Wait()
		n.cmd = nil
	}
}

// do sends a command and returns the beginning of the reply, or "".
func (n *clusterNode) do(command string) string {
	conn, err := net.Dial("tcp", "127.0.0.1:"+n.port)
	if err != nil {
		return ""
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(proctest.Patience))
	fmt.Fprintf(conn, "%s\r\n", command)
	b := make([]byte, 4096)
	got, _ := conn.Read(b)
	return string(bytes.TrimSpace(b[:got]))
}

// startCluster starts three nodes that share the slots, and returns them and
// the URL for [store].
func startCluster(t *testing.T) (nodes []*clusterNode, url string) {
	t.Helper()
	var addrs []string
	port := func() string { _, p, _ := net.SplitHostPort(proctest.FreeAddr(t)); return p }
	for i := range 3 {
		n := &clusterNode{t: t, dir: t.TempDir(), port: port(), bus: port()}
		t.Cleanup(n.kill)
		n.start()
		first, last := i*16384/3, (i+1)*16384/3-1
		if got := n.do(fmt.Sprintf("CLUSTER ADDSLOTSRANGE %d %d", first, last)); got != "+OK" {
			t.Fatalf("slots: got %s", got)
		}
		if i > 0 {
			nodes[0].do("CLUSTER MEET 127.0.0.1 " + n.port + " " + n.bus)
		}
		nodes, addrs = append(nodes, n), append(addrs, "127.0.0.1:"+n.port)
	}
	for _, n := range nodes {
		proctest.Eventually(t, func() bool {
			info := n.do("CLUSTER INFO")
			return strings.Contains(info, "cluster_state:ok") &&
				strings.Contains(info, "cluster_known_nodes:3")
		})
	}
	return nodes, "redis+cluster://" + strings.Join(addrs, ",")
}

// newClusterFleet starts two replicas on a cluster, and lets accounts authorize
// the component. Each replica then has the token of each of them cached.
func newClusterFleet(t *testing.T, accounts int) (f *fleet, nodes []*clusterNode, appids []string) {
	t.Helper()
	nodes, url := startCluster(t)
	f = prepareFleet(t, 2, sandbox.Config{Grace: -1})
	f.cluster = url
	f.start().ticket()
	for i := range accounts {
		appid := fmt.Sprintf("wx%016d", i)
		if err := f.wx.AddAccount(appid, sandbox.OfficialAccount); err != nil {
			t.Fatal(err)
		}
		if _, err := f.wx.Authorize(t.Context(), appid); err != nil {
			t.Fatal(err)
		}
		appids = append(appids, appid)
	}
	var last answer
	defer func() {
		if t.Failed() {
			t.Logf("last response: %v", last)
		}
	}()
	for _, appid := range appids {
		for _, r := range f.replicas {
			proctest.Eventually(t, func() bool {
				last = r.call(appid)
				return last.ok() && last.token == "hit"
			})
		}
	}
	return f, nodes, appids
}

// knows reports whether a replica lists n active accounts, and the component.
func (r *replica) knows(n int) bool {
	status, list := r.get("/api/accounts?state=active&limit=1")
	return status == 200 && strings.Contains(list, fmt.Sprintf(`"total":%d,`, n+1))
}

// A node of a cluster that has lost its records: all of them while it runs, or
// by a restart with an empty memory. Of 160 accounts that two replicas have
// cached, about a third have lost their records. No request fails, no token is
// dropped or renewed, and within 15 seconds all accounts are known again, with
// their refresh tokens: a renewal takes one request.
func TestClusterLosesRecords(t *testing.T) {
	for name, lose := range map[string]func(n *clusterNode){
		"flushed":        func(n *clusterNode) { n.do("FLUSHALL") },
		"back but empty": func(n *clusterNode) { n.kill(); n.start() },
	} {
		t.Run(name, func(t *testing.T) {
			const accounts = 160
			f, nodes, appids := newClusterFleet(t, accounts)
			for _, r := range f.replicas {
				t.Cleanup(func() {
					if t.Failed() {
						_, list := r.get("/api/accounts?limit=200")
						t.Logf("accounts at %s: %s", r.admin, list)
					}
				})
			}
			f.wx.ResetHistory()
			stop := make(chan struct{})
			var callers sync.WaitGroup
			var made atomic.Int64
			for _, r := range f.replicas {
				callers.Go(func() {
					for i := 0; ; i++ {
						select {
						case <-stop:
							return
						default:
						}
						if a := r.call(appids[i%accounts]); !a.ok() {
							t.Errorf("request for %s: got %v, want success", appids[i%accounts], a)
							return
						}
						made.Add(1)
					}
				})
			}
			lose(nodes[1])
			lost := time.Now()
			proctest.Eventually(t, func() bool { return f.wx.Count(listPath) > 0 })
			for _, r := range f.replicas {
				proctest.Eventually(t, func() bool { return r.knows(accounts) })
			}
			took := time.Since(lost)
			for before := made.Load(); made.Load() < before+4*accounts && !t.Failed(); {
				proctest.Repeat(50*time.Millisecond, func() {})
			}
			close(stop)
			callers.Wait()
			proctest.Promise(t, "all accounts are known again", took, 15*time.Second)
			t.Logf("%d requests, %d readings of the list, all accounts known after %v",
				made.Load(), f.wx.Count(listPath), took)
			if n := f.wx.Count(refreshPath); n != 0 {
				t.Errorf("renewals of tokens that are valid: got %d, want 0", n)
			}
			f.wx.ResetHistory()
			for _, appid := range appids {
				f.wx.Expire(appid)
				if a := f.call(appid); !a.ok() {
					t.Fatalf("request with an expired token: got %v, want success", a)
				}
			}
			if n := f.wx.Count(refreshPath); n != accounts {
				t.Errorf("got %d renewals of expired tokens, want %d", n, accounts)
			}
		})
	}
}

// While a node of a cluster does not respond, an account whose record is on
// another one revokes its authorization. All replicas reject its requests within
// five seconds.
func TestStoppedNodeDelaysNoRevocation(t *testing.T) {
	f, nodes, appids := newClusterFleet(t, 30)
	nodes[1].cmd.Process.Signal(syscall.SIGSTOP)
	defer nodes[1].cmd.Process.Signal(syscall.SIGCONT)
	revoked := 0
	for _, appid := range appids {
		if revoked == 3 {
			break
		}
		if f.wx.Unauthorize(t.Context(), appid) != nil {
			continue // its record is on the node that does not respond
		}
		revoked++
		pushed := time.Now()
		for _, r := range f.replicas {
			proctest.Eventually(t, func() bool { return r.call(appid).status == 410 })
		}
		proctest.Promise(t, "revocation at all replicas", time.Since(pushed), 5*time.Second)
	}
	if revoked == 0 {
		t.Error("no push of a revocation was accepted, want those of accounts on other nodes")
	}
	for _, r := range f.replicas {
		if a := r.call(appids[len(appids)-1]); !a.ok() {
			t.Errorf("request of another account: got %v, want success", a)
		}
	}
}

//go:build unix

package redis_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/redis"
	"wxproxy/tokens/store/storetest"
)

// startSentinel starts a sentinel that watches master under the name main.
func startSentinel(t *testing.T, master *server) *server {
	t.Helper()
	s := &server{t: t}
	for range 5 {
		s.port = freePort(t)
		path := filepath.Join(t.TempDir(), "sentinel.conf")
		text := fmt.Sprintf(`port %s
bind 127.0.0.1
dir %s
requirepass watchman
sentinel monitor main 127.0.0.1 %s 2
sentinel auth-pass main %s
sentinel down-after-milliseconds main 3000
sentinel failover-timeout main 6000
`, s.port, filepath.Dir(path), master.port, password)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if s.args = []string{path}; s.run() {
			return s
		}
	}
	t.Fatalf("the sentinel does not start:\n%s", s.out.String())
	return nil
}

// TestSentinel kills the master of a replica and three sentinels. The store
// continues with the replica, and watchers learn that every record may have
// changed. The queue has its entries, also one that was taken.
func TestSentinel(t *testing.T) {
	t.Parallel()
	auth := []string{"--requirepass", password, "--masterauth", password}
	master := start(t, auth...)
	replica := start(t, append(auth, "--replicaof", "127.0.0.1 "+master.port)...)
	in := "AUTH " + password
	eventually(t, "the replica is connected", func() bool {
		return strings.Contains(replica.do(in, "INFO replication"), "master_link_status:up")
	})
	var addrs []string
	for range 3 {
		addrs = append(addrs, startSentinel(t, master).addr())
	}
	at := "redis+sentinel://:" + password + "@" + strings.Join(addrs, ",") + "/main/1"
	wantRejected(t, at, "its sentinels require a password")
	at += "?sentinel_password=watchman"
	wantRejected(t, strings.Replace(at, "/main", "/other", 1), "knows a master of that name")
	sentinel := &server{t: t, port: strings.TrimPrefix(addrs[0], "127.0.0.1:")}
	eventually(t, "the sentinels know each other and the replica", func() bool {
		answer := sentinel.do("AUTH watchman", "SENTINEL MASTER main")
		return strings.Contains(answer, "num-slaves 1") && strings.Contains(answer, "num-other-sentinels 2")
	})
	s := open(t, at, patient)
	n := watch(t, s)
	put(t, s, "a", "before")
	n.waitFor(t, "a")
	before := n.resets()
	addEvents(t, s.Queue(), event("a", "1"), event("a", "2"), event("b", "3"))
	takeEvents(t, s.Queue(), 1, time.Second)
	master.do(in, "WAIT 1 0")
	eventually(t, "the replica has the record", func() bool {
		return strings.Contains(replica.do(in, "INFO keyspace"), "db1")
	})

	master.stop()
	eventually(t, "the store continues", func() bool {
		return s.Update(t.Context(), "b", replaceWith("after")) == nil
	})
	want(t, s, "a", "before")
	want(t, s, "b", "after")
	n.waitForReset(t, before)
	n.waitForChangeOf(t, s, "c")
	if got := deliverAll(t, s.Queue()); !slices.Equal(got, []string{"1", "2", "3"}) {
		t.Errorf("delivered after the failover: got %v, want 1, 2 and 3", got)
	}
}

// startCluster starts three nodes that share the slots. The node timeout keeps
// a busy machine from declaring a node dead.
func startCluster(t *testing.T) []*server {
	t.Helper()
	var nodes []*server
	for range 3 {
		nodes = append(nodes, start(t, "--cluster-enabled", "yes",
			"--cluster-node-timeout", "15000", "--cluster-port", freePort(t)))
	}
	for i, n := range nodes {
		n.do(fmt.Sprintf("CLUSTER ADDSLOTSRANGE %d %d", i*16384/3, (i+1)*16384/3-1))
		bus := strings.Fields(nodes[0].do("CONFIG GET cluster-port"))[1]
		if i > 0 {
			n.do("CLUSTER MEET 127.0.0.1 " + nodes[0].port + " " + bus)
		}
	}
	for _, n := range nodes {
		eventually(t, "the cluster is complete", func() bool {
			info := n.do("CLUSTER INFO")
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3")
		})
	}
	return nodes
}

// TestCluster runs the contract in a cluster, then kills and restarts a node.
func TestCluster(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t)
	at := "redis+cluster://" + nodes[0].addr() + "," + nodes[2].addr()
	var n atomic.Int64
	t.Run("contract", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) store.Store {
			return open(t, at, patient.WithPrefix(fmt.Sprint("test", n.Add(1))))
		})
	})
	t.Run("queue", func(t *testing.T) {
		storetest.RunQueue(t, func(t *testing.T) store.Store {
			return open(t, at, patient.WithPrefix(fmt.Sprint("queue", n.Add(1))))
		})
	})
	t.Run("watch", func(t *testing.T) {
		s := open(t, at, patient)
		news := watch(t, s)
		var keys []string
		for i := range 100 {
			keys = append(keys, fmt.Sprint("k/", i))
			put(t, s, keys[i], "one")
		}
		news.waitFor(t, keys...)
		for _, node := range nodes {
			if !strings.Contains(node.do("KEYS *"), "wxproxy:{") {
				t.Errorf("node %s: got no keys, want some", node.addr())
			}
		}
		// A user with the permissions of docs/redis.md.
		for _, node := range nodes {
			node.do("ACL " + documentedACL(t))
		}
		limited := open(t, strings.Replace(at, "://", "://wxproxy:"+password+"@", 1), patient)
		put(t, limited, "a", "one")
		storetest.ConcurrentClaims(t, s, limited)
		// The URL of a single server is rejected with the right scheme.
		wantRejected(t, nodes[0].url(), "redis+cluster://")
		nodes[1].stop()
		eventually(t, "Ping detects the dead node", func() bool { return s.Ping(t.Context()) != nil })
		if !nodes[1].run() {
			t.Fatal("the node does not start again")
		}
		eventually(t, "the cluster works again", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			return s.Ping(ctx) == nil
		})
		for _, key := range keys {
			put(t, s, key, "two")
		}
	})
}

// newAuthority returns a self-signed certificate for 127.0.0.1, and the path of
// its PEM file.
func newAuthority(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1),
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, path
}

// TestTLS: certificates are verified, and the wrong scheme is detected. All but
// one of the stores wait for as long as the handshake takes on a busy machine.
func TestTLS(t *testing.T) {
	t.Parallel()
	cert, path := newAuthority(t)
	_, other := newAuthority(t)
	r := start(t)
	between := startRelay(t, r.addr(), &tls.Config{Certificates: []tls.Certificate{cert}})
	secure := "rediss://" + between.ln.Addr().String()
	s := open(t, secure+"?ca_file="+url.QueryEscape(path), patient)
	put(t, s, "a", "one")
	want(t, s, "a", "one")
	n := watch(t, s)
	put(t, s, "b", "one")
	n.waitFor(t, "b")

	wantRejected(t, secure, "unknown authority")
	wantRejected(t, secure+"?ca_file="+url.QueryEscape(other), "certificate")
	wrongName := strings.Replace(secure, "127.0.0.1", "localhost", 1)
	wantRejected(t, wrongName+"?ca_file="+url.QueryEscape(path), "invalid certificate")
	// A Redis without TLS waits for the rest of the handshake, so a short
	// timeout is needed here. It may also respond with an error.
	_, err := redis.Open(t.Context(), "rediss://"+r.addr(), redis.Options{})
	if !mentions(err, "does not use TLS") && !mentions(err, "timeout") {
		t.Errorf("Redis without TLS: got error %v, want one about TLS or a timeout", err)
	}
	wantRejected(t, "redis://"+between.ln.Addr().String(), "cannot be reached")
	_, err = redis.Open(t.Context(), secure+"?ca_file="+url.QueryEscape(path+"x"), patient)
	if !mentions(err, "ca_file") {
		t.Errorf("missing ca_file: got error %v, want one with ca_file", err)
	}
}

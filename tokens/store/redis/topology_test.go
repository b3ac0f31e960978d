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
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/redis"
	"wxproxy/tokens/store/storetest"
)

// startSentinel watches master under the name main.
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
sentinel down-after-milliseconds main 500
sentinel failover-timeout main 3000
`, s.port, filepath.Dir(path), master.port, password)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if s.args = []string{path}; s.run() {
			return s
		}
	}
	t.Fatalf("no sentinel: %s", s.out.String())
	return nil
}

// Three sentinels, a master and a replica. The master dies: the store goes on with the replica by itself, watchers hear that
// anything may have changed.
func TestSentinel(t *testing.T) {
	t.Parallel()
	auth := []string{"--requirepass", password, "--masterauth", password}
	master := start(t, auth...)
	replica := start(t, append(auth, "--replicaof", "127.0.0.1 "+master.port)...)
	in := "AUTH " + password
	eventually(t, "replicated", func() bool { return strings.Contains(replica.do(in, "INFO replication"), "master_link_status:up") })
	var addrs []string
	for range 3 {
		addrs = append(addrs, startSentinel(t, master).addr())
	}
	at := "redis+sentinel://:" + password + "@" + strings.Join(addrs, ",") + "/main/1"
	refused(t, at, "its sentinels want a password")
	at += "?sentinel_password=watchman"
	refused(t, strings.Replace(at, "/main", "/other", 1), "none knows a master of that name")
	sentinel := &server{t: t, port: strings.TrimPrefix(addrs[0], "127.0.0.1:")}
	eventually(t, "the sentinels know each other and the replica", func() bool {
		answer := sentinel.do("AUTH watchman", "SENTINEL MASTER main")
		return strings.Contains(answer, "num-slaves 1") && strings.Contains(answer, "num-other-sentinels 2")
	})
	s := open(t, at, quick)
	n := watch(t, s)
	put(t, s, "a", "before")
	n.hears(t, "a")
	before := n.times()
	eventually(t, "the replica has it", func() bool { return strings.Contains(replica.do(in, "INFO keyspace"), "db1") })

	master.stop()
	eventually(t, "the store goes on", func() bool { return s.Update(t.Context(), "b", replaceWith("after")) == nil })
	want(t, s, "a", "before")
	want(t, s, "b", "after")
	n.everythingAfter(t, before)
	put(t, s, "c", "later")
	n.hears(t, "c")
}

// startCluster gives three nodes that share the slots.
func startCluster(t *testing.T) []*server {
	t.Helper()
	var nodes []*server
	for range 3 {
		nodes = append(nodes, start(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", freePort(t)))
	}
	for i, n := range nodes {
		n.do(fmt.Sprintf("CLUSTER ADDSLOTSRANGE %d %d", i*16384/3, (i+1)*16384/3-1))
		bus := strings.Fields(nodes[0].do("CONFIG GET cluster-port"))[1]
		if i > 0 {
			n.do("CLUSTER MEET 127.0.0.1 " + nodes[0].port + " " + bus)
		}
	}
	for _, n := range nodes {
		eventually(t, "the cluster stands", func() bool {
			info := n.do("CLUSTER INFO")
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3")
		})
	}
	return nodes
}

func TestCluster(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t)
	at := "redis+cluster://" + nodes[0].addr() + "," + nodes[2].addr()
	var n atomic.Int64
	t.Run("suite", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) store.Store {
			return open(t, at, redis.Options{}.WithPrefix(fmt.Sprint("test", n.Add(1))))
		})
	})
	t.Run("watch", func(t *testing.T) {
		s := open(t, at, redis.Options{})
		news := watch(t, s)
		var keys []string
		for i := range 100 {
			keys = append(keys, fmt.Sprint("k/", i))
			put(t, s, keys[i], "one")
		}
		news.hears(t, keys...)
		for _, node := range nodes {
			if !strings.Contains(node.do("KEYS *"), "wxproxy:{") {
				t.Errorf("the node at %s holds nothing", node.addr())
			}
		}
		// A user with the rights that docs/redis.md gives.
		for _, node := range nodes {
			node.do("ACL " + rights(t))
		}
		put(t, open(t, strings.Replace(at, "://", "://wxproxy:"+password+"@", 1), redis.Options{}), "a", "one")
		// One asked by the URL of a single one says what it is.
		refused(t, nodes[0].url(), "redis+cluster://")
		// A node dies: what lies on the others goes on, and it is told what does not.
		nodes[1].stop()
		eventually(t, "it is noticed", func() bool { return s.Ping(t.Context()) != nil })
		if !nodes[1].run() {
			t.Fatal("the node does not start again")
		}
		eventually(t, "it goes on", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return s.Ping(ctx) == nil
		})
		for _, key := range keys {
			put(t, s, key, "two")
		}
	})
}

// authority makes a certificate for 127.0.0.1, as a file of its PEM too.
func authority(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, path
}

// TLS is verified: a server whose authority is not known is refused, and one that does not speak it, too.
func TestTLS(t *testing.T) {
	t.Parallel()
	cert, path := authority(t)
	_, other := authority(t)
	r := start(t)
	between := startRelay(t, r.addr(), &tls.Config{Certificates: []tls.Certificate{cert}})
	secure := "rediss://" + between.ln.Addr().String()
	s := open(t, secure+"?ca_file="+url.QueryEscape(path), redis.Options{})
	put(t, s, "a", "one")
	want(t, s, "a", "one")
	n := watch(t, s)
	put(t, s, "b", "one")
	n.hears(t, "b")

	refused(t, secure, "authority that is not known")
	refused(t, secure+"?ca_file="+url.QueryEscape(other), "certificate")
	refused(t, strings.Replace(secure, "127.0.0.1", "localhost", 1)+"?ca_file="+url.QueryEscape(path), "certificate is not good")
	refused(t, "rediss://"+r.addr(), "does not")
	refused(t, "redis://"+between.ln.Addr().String(), "cannot be reached")
	if _, err := redis.Open(t.Context(), secure+"?ca_file="+url.QueryEscape(path+"x"), redis.Options{}); err == nil || !strings.Contains(err.Error(), "ca_file") {
		t.Error(err)
	}
}

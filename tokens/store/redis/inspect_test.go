//go:build unix

package redis_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"wxproxy/tokens/store/redis"
	"wxproxy/tokens/store/storetest"
)

const password = "sEcReT0123456789"

// wantRejected fails unless Open returns an error of one line that contains
// words and not the password.
func wantRejected(t *testing.T, url string, words ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	s, err := redis.Open(ctx, url, patient)
	if err == nil {
		s.Close()
		t.Fatalf("%s: got no error, want %q", url, words)
	}
	if ctx.Err() != nil {
		t.Errorf("%s: got error %v only after %v", url, err, 2*patience)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s: got error %v, want one with %q", url, err, w)
		}
	}
	if strings.Contains(err.Error(), password) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%s: error contains the password or several lines: %v", url, err)
	}
}

func TestUnreachableRedisIsRejected(t *testing.T) {
	port := freePort(t)
	wantRejected(t, "redis://:"+password+"@127.0.0.1:"+port,
		"Redis at 127.0.0.1:"+port, "cannot be reached", "connection refused")
	wantRejected(t, "redis+cluster://127.0.0.1:"+port, "cannot be reached")
	wantRejected(t, "redis+sentinel://127.0.0.1:"+port+"/main", `master "main"`, "none of its sentinels responds")
	wantRejected(t, "redis+unix://"+filepath.Join(t.TempDir(), "none"), "no such file")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := redis.Open(ctx, "redis://127.0.0.1:"+port, patient); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled context: got error %v, want context.Canceled", err)
	}
}

// documentedACL returns the arguments of ACL that docs/redis.md recommends,
// with the password of these tests.
func documentedACL(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "redis.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, line, ok := strings.Cut(string(text), "\nACL ")
	if line, _, _ = strings.Cut(line, "\n"); !ok || !strings.Contains(line, ">PASSWORD") {
		t.Fatal("docs/redis.md has no line with an ACL")
	}
	return strings.Replace(line, "PASSWORD", password, 1)
}

func TestPasswordsAndPermissions(t *testing.T) {
	r := start(t, "--requirepass", password)
	wantRejected(t, "redis://"+r.addr(), "requires a password")
	wantRejected(t, "redis://:"+password+"x@"+r.addr(), "wrong user or password")
	wantRejected(t, "redis://me:"+password+"@"+r.addr(), "wrong user or password")
	wantRejected(t, "redis://:"+password+"@"+r.addr()+"/5000", "no database with this number")
	put(t, open(t, "redis://:"+password+"@"+r.addr(), patient), "a", "one")

	auth := "AUTH " + password
	r.do(auth, "ACL "+documentedACL(t))
	limited := open(t, "redis://wxproxy:"+password+"@"+r.addr(), patient)
	put(t, limited, "a", "one")
	storetest.ConcurrentClaims(t, limited)
	// A user that may not read the server's settings gets no warnings about
	// them.
	r.do(auth, "ACL SETUSER wxproxy -info -config")
	o := patient
	o.Warn = func(p string) { t.Errorf("got warning %q, want none", p) }
	s := open(t, "redis://wxproxy:"+password+"@"+r.addr(), o)
	put(t, s, "a", "two")
	want(t, s, "a", "two")
	r.do(auth, "ACL SETUSER poor on >"+password+" ~wxproxy:* +@read +@connection +ping")
	wantRejected(t, "redis://poor:"+password+"@"+r.addr(), "lacks permissions")
}

func TestReplicaIsRejected(t *testing.T) {
	t.Parallel()
	master := start(t)
	replica := start(t, "--replicaof", "127.0.0.1 "+master.port)
	eventually(t, "the replica is connected", func() bool {
		return strings.Contains(replica.do("INFO replication"), "master_link_status:up")
	})
	wantRejected(t, replica.url(), "read-only replica", "READONLY")
}

func TestEvictingRedisIsRejected(t *testing.T) {
	r := start(t, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
	wantRejected(t, r.url(), "maxmemory-policy allkeys-lru", "set maxmemory-policy noeviction")
	// Without CONFIG, as with a managed Redis, INFO is enough.
	r.do("ACL SETUSER default -config")
	wantRejected(t, r.url(), "maxmemory-policy allkeys-lru")
	unlimited := start(t, "--maxmemory-policy", "allkeys-lru")
	open(t, unlimited.url(), patient)
}

// TestFullRedis: a Redis whose memory is full rejects writes, and still serves
// reads.
func TestFullRedis(t *testing.T) {
	r := start(t, "--maxmemory", "100mb")
	s := open(t, r.url(), patient)
	put(t, s, "a", "one")
	r.do("CONFIG SET maxmemory 1mb")
	for name, err := range map[string]error{
		"update": s.Update(t.Context(), "a", replaceWith("two")),
		"ping":   s.Ping(t.Context()),
	} {
		if !mentions(err, "memory is full") {
			t.Errorf("%s: got error %v, want one that its memory is full", name, err)
		}
	}
	wantRejected(t, r.url(), "memory is full")
	want(t, s, "a", "one")
	r.do("CONFIG SET maxmemory 100mb")
	put(t, s, "a", "three")
}

func TestMissingPersistenceIsWarnedAbout(t *testing.T) {
	f := func(wanted bool, args ...string) {
		t.Helper()
		var warnings []string
		o := patient
		o.Warn = func(p string) { warnings = append(warnings, p) }
		open(t, start(t, args...).url(), o)
		got := strings.Contains(strings.Join(warnings, "\n"), "no persistence")
		if got != wanted || len(warnings) > 1 {
			t.Errorf("%q: got warnings %q, want one about persistence: %v", args, warnings, wanted)
		}
	}
	f(true)
	f(false, "--appendonly", "yes")
	f(false, "--save", "60 1")
	f(true, "--protected-mode", "no") // another setting changes nothing
}

func TestTooFewReplicasAreRejected(t *testing.T) {
	r := start(t, "--min-replicas-to-write", "1")
	wantRejected(t, r.url(), "too few replicas")
}

func TestWrongTopologyIsRejected(t *testing.T) {
	wantRejected(t, "redis+cluster://"+start(t).addr(), "is not a cluster")
	wantRejected(t, start(t, "--cluster-enabled", "yes").url(), "redis+cluster://")
}

// TestLibraryPrintsNothing: go-redis does not write to standard error.
func TestLibraryPrintsNothing(t *testing.T) {
	old := os.Stderr
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	os.Stderr = w
	defer func() { os.Stderr = old }()
	wantRejected(t, "redis+sentinel://:"+password+"@127.0.0.1:"+freePort(t)+"/main", "sentinels")
	w.Close()
	var b [1000]byte
	if n, _ := r.Read(b[:]); n > 0 {
		t.Errorf("printed %q", b[:n])
	}
}

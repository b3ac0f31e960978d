package redis_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wxproxy/tokens/store/redis"
)

const password = "sEcReT0123456789"

// refused wants Open to fail within bounds, with a sentence that names the Redis and has these words and not the password.
func refused(t *testing.T, url string, words ...string) {
	t.Helper()
	began := time.Now()
	s, err := redis.Open(t.Context(), url, redis.Options{})
	if err == nil {
		s.Close()
		t.Fatalf("%s opens", url)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%v; want %q", err, w)
		}
	}
	if strings.Contains(err.Error(), password) || strings.Contains(err.Error(), "\n") {
		t.Errorf("shows the password, or has several lines: %v", err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v to say so", took)
	}
}

func TestUnreachable(t *testing.T) {
	port := freePort(t)
	refused(t, "redis://:"+password+"@127.0.0.1:"+port, "Redis at 127.0.0.1:"+port, "cannot be reached", "connection refused")
	refused(t, "redis+cluster://127.0.0.1:"+port, "cannot be reached")
	refused(t, "redis+sentinel://127.0.0.1:"+port+"/main", `master "main"`, "none of its sentinels answers")
	refused(t, "redis+unix://"+filepath.Join(t.TempDir(), "none"), "no such file")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := redis.Open(ctx, "redis://127.0.0.1:"+port, redis.Options{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// rights are those that docs/redis.md gives to a user of its own.
func rights(t *testing.T) string {
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

func TestPasswords(t *testing.T) {
	r := start(t, "--requirepass", password)
	refused(t, "redis://"+r.addr(), "wants a password")
	refused(t, "redis://:"+password+"x@"+r.addr(), "refuses the user or the password")
	refused(t, "redis://me:"+password+"@"+r.addr(), "refuses the user or the password")
	refused(t, "redis://:"+password+"@"+r.addr()+"/5000", "no database of that number")
	put(t, open(t, "redis://:"+password+"@"+r.addr(), redis.Options{}), "a", "one")

	auth := "AUTH " + password
	r.do(auth, "ACL "+rights(t))
	put(t, open(t, "redis://wxproxy:"+password+"@"+r.addr(), redis.Options{}), "a", "one")
	// One that may not ask how the server is set up, hears nothing of it.
	r.do(auth, "ACL SETUSER wxproxy -info -config")
	s := open(t, "redis://wxproxy:"+password+"@"+r.addr(), redis.Options{Warn: func(p string) { t.Errorf("warned: %s", p) }})
	put(t, s, "a", "two")
	want(t, s, "a", "two")
	r.do(auth, "ACL SETUSER poor on >"+password+" ~wxproxy:* +@read +@connection +ping")
	refused(t, "redis://poor:"+password+"@"+r.addr(), "may not do all that is needed")
}

func TestReplica(t *testing.T) {
	t.Parallel()
	master := start(t)
	replica := start(t, "--replicaof", "127.0.0.1 "+master.port)
	eventually(t, "connected to the master", func() bool { return strings.Contains(replica.do("INFO replication"), "master_link_status:up") })
	refused(t, replica.url(), "read-only replica", "READONLY")
}

func TestEviction(t *testing.T) {
	r := start(t, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
	refused(t, r.url(), "maxmemory-policy allkeys-lru", "set maxmemory-policy noeviction")
	// Found out without CONFIG, as it is where somebody else runs the Redis.
	r.do("ACL SETUSER default -config")
	refused(t, r.url(), "maxmemory-policy allkeys-lru")
	unlimited := start(t, "--maxmemory-policy", "allkeys-lru")
	open(t, unlimited.url(), redis.Options{})
}

func TestMemoryFull(t *testing.T) {
	r := start(t, "--maxmemory", "100mb")
	s := open(t, r.url(), redis.Options{})
	put(t, s, "a", "one")
	r.do("CONFIG SET maxmemory 1mb")
	err := s.Update(t.Context(), "a", replaceWith("two"))
	if err == nil || !strings.Contains(err.Error(), "memory is full") {
		t.Error(err)
	}
	if err := s.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "memory is full") {
		t.Error(err)
	}
	refused(t, r.url(), "memory is full")
	want(t, s, "a", "one") // reading goes on
	r.do("CONFIG SET maxmemory 100mb")
	put(t, s, "a", "three")
}

func TestPersistence(t *testing.T) {
	f := func(warns bool, args ...string) {
		t.Helper()
		var said []string
		open(t, start(t, args...).url(), redis.Options{Warn: func(p string) { said = append(said, p) }})
		if text := strings.Join(said, "\n"); warns != strings.Contains(text, "keeps nothing on disk") || len(said) > 1 {
			t.Errorf("%q: warned %q", args, text)
		}
	}
	f(true)
	f(false, "--appendonly", "yes")
	f(false, "--save", "60 1")
	f(true, "--protected-mode", "no") // as without it
}

func TestReplicasWanted(t *testing.T) {
	r := start(t, "--min-replicas-to-write", "1")
	refused(t, r.url(), "too few replicas")
}

func TestWrongMode(t *testing.T) {
	refused(t, "redis+cluster://"+start(t).addr(), "is no cluster")
	refused(t, start(t, "--cluster-enabled", "yes").url(), "redis+cluster://")
}

// Nothing of the library's own reaches the standard error stream.
func TestSilence(t *testing.T) {
	old := os.Stderr
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	os.Stderr = w
	defer func() { os.Stderr = old }()
	refused(t, "redis+sentinel://:"+password+"@127.0.0.1:"+freePort(t)+"/main", "sentinels")
	w.Close()
	var b [1000]byte
	if n, _ := r.Read(b[:]); n > 0 {
		t.Errorf("printed %q", b[:n])
	}
}

package redis_test

import (
	"strings"
	"testing"

	"wxproxy/tokens/store/redis"
)

func TestURLs(t *testing.T) {
	const secret = "sEcReT"
	f := func(url, want string) {
		t.Helper()
		err := redis.Check(url)
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", url, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", url, err, want)
		case err != nil && strings.Contains(err.Error(), secret):
			t.Errorf("%s: shows the secret: %v", url, err)
		}
	}
	for _, good := range []string{
		"redis://localhost", "redis://localhost:6379/0", "redis://:sEcReT@10.0.0.1/15", "redis://me:sEcReT@[::1]:6379", "redis://[fe80::1]",
		"redis://me:s%2FcReT%40%25@redis.internal", "redis://me:s@cReT@redis.internal", "rediss://:sEcReT@redis.internal?ca_file=%2Fetc%2Fca.pem", "rediss://h?ca_file=/etc/ca.pem",
		"redis+cluster://:sEcReT@a,b:7000,[::1]:7001", "rediss+cluster://a", "redis+sentinel://a,b,c/main", "redis+sentinel://me:sEcReT@a:26379/main/3?sentinel_password=sEcReT",
		"rediss+sentinel://a/main?ca_file=/x&sentinel_password=sEcReT", "redis+unix:///run/redis.sock", "redis+unix://:sEcReT@/run/redis.sock?db=2",
	} {
		f(good, "")
	}
	f("", "is no URL")
	f("redis:sEcReT", "is no URL")
	f("http://sEcReT", "no kind of Redis")
	f("rediss+unix:///a", "no kind of Redis")
	f("redis://", "names no host")
	f("redis://:sEcReT@", "names no host")
	f("redis:///0", "names no host")
	f("redis://:sEcReT@/0", "names no host")
	f("redis://a,,b", "host that is none")
	f("redis+cluster://a,,b", "host that is none")
	f("redis+cluster://a,a:6379", "twice")
	f("redis://a,b", "several hosts")
	f("redis://a:0", "host that is none")
	f("redis://a:65536", "host that is none")
	f("redis://a:sEcReT", "host that is none")
	f("redis://sEcReT:1:2", "host that is none")
	f("redis://::1", "host that is none")
	f("redis://a/sEcReT", "number of a database")
	f("redis://a/-1", "number of a database")
	f("redis://a/1/2", "number of a database")
	f("redis://me@a", "user without a password")
	f("redis://:sEc%ReT@a", "a % in its user or password")
	f("redis://:sEcReT/x@a", "has / or ? in its password")
	f("redis://:sEcReT?x@a", "has / or ? in its password")
	f("redis://:sEc#ReT@a", "white space or #")
	f("redis://:sEc ReT@a", "white space or #")
	f("redis+cluster://a/0", "no numbered databases")
	f("redis+sentinel://a", "which master")
	f("redis+sentinel://a/", "which master")
	f("redis+sentinel://a/main/x", "number of a database")
	f("redis+unix://a/b", "names no socket")
	f("redis+unix://", "names no socket")
	f("redis+unix:///a?db=x", "db that is no number")
	f("redis://a?ca_file=/x", "begin it with rediss")
	f("redis://a?sentinel_password=sEcReT", "may not have")
	f("redis://a?sEcReT=1", "may not have")
	f("redis://a?db=1", "may not have")
	f("rediss://a?ca_file=", "without a value")
	f("rediss://a?ca_file=/x&ca_file=/y", "twice")
	f("rediss://a?ca_file=%zz", "cannot be read")
}

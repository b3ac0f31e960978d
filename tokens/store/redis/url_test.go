package redis_test

import (
	"strings"
	"testing"

	"wxproxy/tokens/store/redis"
)

func TestCheckURL(t *testing.T) {
	const secret = "sEcReT"
	// want is "" for a valid URL.
	f := func(url, want string) {
		t.Helper()
		err := redis.Check(url)
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: got error %v, want none", url, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: got error %v, want one with %q", url, err, want)
		case err != nil && strings.Contains(err.Error(), secret):
			t.Errorf("%s: the error contains the secret: %v", url, err)
		}
	}
	for _, good := range []string{
		"redis://localhost",
		"redis://localhost:6379/0",
		"redis://:sEcReT@10.0.0.1/15",
		"redis://me:sEcReT@[::1]:6379",
		"redis://[fe80::1]",
		"redis://me:s%2FcReT%40%25@redis.internal",
		"redis://me:s@cReT@redis.internal",
		"rediss://:sEcReT@redis.internal?ca_file=%2Fetc%2Fca.pem",
		"rediss://h?ca_file=/etc/ca.pem",
		"redis+cluster://:sEcReT@a,b:7000,[::1]:7001",
		"rediss+cluster://a",
		"redis+sentinel://a,b,c/main",
		"redis+sentinel://me:sEcReT@a:26379/main/3?sentinel_password=sEcReT",
		"rediss+sentinel://a/main?ca_file=/x&sentinel_password=sEcReT",
		"redis+unix:///run/redis.sock",
		"redis+unix://:sEcReT@/run/redis.sock?db=2",
	} {
		f(good, "")
	}
	f("", "is not a URL")
	f("redis:sEcReT", "is not a URL")
	f("http://sEcReT", "unknown scheme")
	f("rediss+unix:///a", "unknown scheme")
	f("redis://", "has no host")
	f("redis://:sEcReT@", "has no host")
	f("redis:///0", "has no host")
	f("redis://:sEcReT@/0", "has no host")
	f("redis://a,,b", "invalid host")
	f("redis+cluster://a,,b", "invalid host")
	f("redis+cluster://a,a:6379", "twice")
	f("redis://a,b", "several hosts")
	f("redis://a:0", "invalid host")
	f("redis://a:65536", "invalid host")
	f("redis://a:sEcReT", "invalid host")
	f("redis://sEcReT:1:2", "invalid host")
	f("redis://::1", "invalid host")
	f("redis://a/sEcReT", "not the number of a database")
	f("redis://a/-1", "not the number of a database")
	f("redis://a/1/2", "not the number of a database")
	f("redis://me@a", "a user but no password")
	f("redis://:sEc%ReT@a", "invalid % escape")
	f("redis://:sEcReT/x@a", "has / or ? in its password")
	f("redis://:sEcReT?x@a", "has / or ? in its password")
	f("redis://:sEc#ReT@a", "white space or #")
	f("redis://:sEc ReT@a", "white space or #")
	f("redis+cluster://a/0", "no numbered databases")
	f("redis+sentinel://a", "no name of a master")
	f("redis+sentinel://a/", "no name of a master")
	f("redis+sentinel://a/main/x", "not the number of a database")
	f("redis+unix://a/b", "no path of a socket")
	f("redis+unix://", "no path of a socket")
	f("redis+unix:///a?db=x", "db that is not a number")
	f("redis://a?ca_file=/x", "begin it with rediss")
	f("redis://a?sentinel_password=sEcReT", "unknown parameter")
	f("redis://a?sEcReT=1", "unknown parameter")
	f("redis://a?db=1", "unknown parameter")
	f("rediss://a?ca_file=", "without a value")
	f("rediss://a?ca_file=/x&ca_file=/y", "twice")
	f("redis://a?sEcReT=1&sEcReT=2", "twice")
	f("rediss://a?ca_file=%zz", "invalid parameter")
}

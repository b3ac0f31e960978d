package redis

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
)

// kind is how many servers there are, and who says which of them is written to.
type kind uint8

const (
	single kind = iota
	sentinel
	cluster
)

// target is a Redis as a URL names it.
type target struct {
	kind     kind
	tls      bool
	socket   bool     // addrs holds the path of a socket
	addrs    []string // HOST:PORT; of sentinels, or of nodes of a cluster
	master   string   // the name under which the sentinels know it
	user     string
	password string
	sentry   string // password of the sentinels
	db       int
	caFile   string // roots that vouch for the servers; "": the system's
}

const (
	redisPort    = "6379"
	sentinelPort = "26379"
)

// Check says what is wrong with a URL, without opening anything. Its errors show nothing of the URL
// that could be a password.
func Check(raw string) error {
	_, err := parse(raw)
	return err
}

// parse reads the forms that [Open] names. It is not done with net/url, which refuses hosts with commas and ports, and
// whose errors quote the URL.
func parse(raw string) (target, error) {
	var t target
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return t, errors.New(`is no URL; write "redis://HOST:6379"`)
	}
	t.tls = strings.HasPrefix(scheme, "rediss")
	switch scheme {
	case "redis", "rediss":
	case "redis+unix":
		t.socket = true
	case "redis+sentinel", "rediss+sentinel":
		t.kind = sentinel
	case "redis+cluster", "rediss+cluster":
		t.kind = cluster
	default:
		return t, errors.New("is of no kind of Redis that wxproxy knows; write redis, redis+sentinel, redis+cluster, or rediss, rediss+sentinel, rediss+cluster for TLS, or redis+unix")
	}
	if strings.ContainsAny(rest, " \t\r\n#") {
		return t, errors.New("has white space or # in it; in a password write %20 and %23 for them")
	}
	// From behind: what stands in a password must not be taken for a host.
	userinfo, rest := cutLast(rest, "@")
	rest, query, _ := strings.Cut(rest, "?")
	hosts, path := rest, ""
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		hosts, path = rest[:i], rest[i+1:]
	}
	if strings.ContainsAny(userinfo, "/?") {
		return t, errors.New("has / or ? in its password; write %2F and %3F for them")
	}
	if err := t.credentials(userinfo); err != nil {
		return t, err
	}
	if err := t.options(query); err != nil {
		return t, err
	}
	if t.socket {
		if hosts != "" || path == "" {
			return t, errors.New(`names no socket; write "redis+unix:///PATH"`)
		}
		t.addrs = []string{"/" + path}
		return t, nil
	}
	if err := t.hosts(hosts); err != nil {
		return t, err
	}
	return t, t.path(path)
}

func cutLast(s, sep string) (before, after string) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):]
	}
	return "", s
}

func (t *target) credentials(userinfo string) (err error) {
	user, password, _ := strings.Cut(userinfo, ":")
	t.user, err = url.PathUnescape(user)
	if err == nil {
		t.password, err = url.PathUnescape(password)
	}
	if err != nil {
		return errors.New("has a % in its user or password that stands for no character; write %25 for it")
	}
	if t.user != "" && t.password == "" {
		return errors.New("has a user without a password; write USER:PASSWORD@, or :PASSWORD@ where there is no user")
	}
	return nil
}

func (t *target) hosts(list string) error {
	if list == "" {
		return errors.New(`names no host; write "redis://HOST:6379"`)
	}
	port := redisPort
	if t.kind == sentinel {
		port = sentinelPort
	}
	for host := range strings.SplitSeq(list, ",") {
		addr, ok := address(host, port)
		if !ok {
			return fmt.Errorf("has a host that is none; write HOST:%s, in brackets where it is an IPv6 address", port)
		}
		if slices.Contains(t.addrs, addr) {
			return fmt.Errorf("names %s twice", addr)
		}
		t.addrs = append(t.addrs, addr)
	}
	if t.kind == single && len(t.addrs) > 1 {
		return errors.New("has several hosts; write redis+cluster:// for a cluster, or redis+sentinel:// with the addresses of its sentinels")
	}
	return nil
}

// address puts the port in where it is missing.
func address(s, port string) (string, bool) {
	host := s
	if h, p, err := net.SplitHostPort(s); err == nil {
		host, port = h, p
	} else if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		host = s[1 : len(s)-1]
	} else if strings.Contains(s, ":") {
		return "", false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || host == "" || strings.ContainsAny(host, "[]%/\\\"'<>") {
		return "", false
	}
	return net.JoinHostPort(host, port), true
}

func (t *target) path(path string) error {
	db := path
	switch t.kind {
	case sentinel:
		t.master, db, _ = strings.Cut(path, "/")
		if t.master == "" {
			return errors.New(`does not say which master the sentinels watch; write "redis+sentinel://HOST,HOST/MASTERNAME"`)
		}
	case cluster:
		if path != "" {
			return errors.New("has a path; a cluster has no numbered databases: end it with its hosts")
		}
	}
	return t.database(db)
}

func (t *target) database(s string) error {
	if s == "" {
		return nil
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return errors.New("has a path that is no number of a database; write /0, or nothing")
	}
	t.db = int(n)
	return nil
}

// options reads what stands behind the question mark.
func (t *target) options(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return errors.New("has a parameter that cannot be read; write ?NAME=VALUE&NAME=VALUE")
	}
	for name, v := range values {
		switch {
		case len(v) > 1:
			return fmt.Errorf("has the parameter %s twice", name)
		case v[0] == "":
			return fmt.Errorf("has the parameter %s without a value", plain(name))
		case name == "ca_file" && t.tls:
			t.caFile = v[0]
		case name == "ca_file":
			return errors.New("has ca_file, but is not of TLS; begin it with rediss")
		case name == "sentinel_password" && t.kind == sentinel:
			t.sentry = v[0]
		case name == "db" && t.socket:
			if err := t.database(v[0]); err != nil {
				return errors.New("has a db that is no number")
			}
		default:
			return fmt.Errorf("has a parameter %s that it may not have; there are ca_file (TLS), sentinel_password (sentinels) and db (sockets)", plain(name))
		}
	}
	return nil
}

// plain is a name as far as it can be shown: a password that stands in a wrong place is no name.
func plain(name string) string {
	if len(name) > 20 || strings.ContainsFunc(name, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') }) {
		return "(not shown)"
	}
	return strconv.Quote(name)
}

// tlsConfig is nil for plain connections.
func (t *target) tlsConfig() (*tls.Config, error) {
	if !t.tls {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.caFile == "" {
		return c, nil
	}
	pem, err := os.ReadFile(t.caFile)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	c.RootCAs = x509.NewCertPool() // these alone: who names an authority means it
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca_file: there is no certificate in %s", t.caFile)
	}
	return c, nil
}

// String names the servers, and nothing that is secret.
func (t *target) String() string {
	name := "Redis at " + strings.Join(t.addrs, ", ")
	switch t.kind {
	case sentinel:
		return fmt.Sprintf("Redis (master %q of the sentinels at %s)", t.master, strings.Join(t.addrs, ", "))
	case cluster:
		return "Redis cluster at " + strings.Join(t.addrs, ", ")
	}
	return name
}

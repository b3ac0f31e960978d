package redis

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const (
	defaultPort         = "6379"
	defaultSentinelPort = "26379"
)

// Check reports what is wrong with the form of a URL. It connects to nothing
// and reads no file. Its errors quote no part of the URL that could be a
// password, and are worded to follow the name of a setting: "is not a URL".
func Check(raw string) error {
	_, err := parseURL(raw)
	return err
}

// parseURL parses the forms that [Open] documents. net/url is not used, because
// it rejects lists of hosts with ports, and its errors quote the URL.
func parseURL(raw string) (target, error) {
	var t target
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return t, errors.New(`is not a URL; write "redis://HOST:6379"`)
	}
	if err := t.parseScheme(scheme); err != nil {
		return t, err
	}
	if strings.ContainsAny(rest, " \t\r\n#") {
		return t, errors.New("contains white space or #; in a password write %20 and %23 for them")
	}
	// Split at the last @: a part of the password must not be taken for a host.
	userinfo, rest := cutLast(rest, "@")
	rest, query, _ := strings.Cut(rest, "?")
	hosts, path := rest, ""
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		hosts, path = rest[:i], rest[i+1:]
	}
	if strings.ContainsAny(userinfo, "/?") {
		return t, errors.New("has / or ? in its password; write %2F and %3F for them")
	}
	if err := t.parseUserinfo(userinfo); err != nil {
		return t, err
	}
	if err := t.parseQuery(query); err != nil {
		return t, err
	}
	if t.unixSocket {
		if hosts != "" || path == "" {
			return t, errors.New(`has no path of a socket; write "redis+unix:///PATH"`)
		}
		t.addrs = []string{"/" + path}
		return t, nil
	}
	if err := t.parseHosts(hosts); err != nil {
		return t, err
	}
	return t, t.parsePath(path)
}

// cutLast splits s at the last sep. Without one, before is empty.
func cutLast(s, sep string) (before, after string) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):]
	}
	return "", s
}

// parseScheme sets the topology, and whether TLS or a Unix socket is used.
func (t *target) parseScheme(scheme string) error {
	t.tls = strings.HasPrefix(scheme, "rediss")
	switch scheme {
	case "redis", "rediss":
	case "redis+unix":
		t.unixSocket = true
	case "redis+sentinel", "rediss+sentinel":
		t.topology = sentinel
	case "redis+cluster", "rediss+cluster":
		t.topology = cluster
	default:
		return errors.New("has an unknown scheme; write redis, redis+sentinel or redis+cluster, " +
			"rediss, rediss+sentinel or rediss+cluster for TLS, or redis+unix")
	}
	return nil
}

// parseUserinfo parses USER:PASSWORD or :PASSWORD. A user without a password is
// rejected: Redis has no such login, and it is a typing error in most cases.
func (t *target) parseUserinfo(userinfo string) (err error) {
	user, password, _ := strings.Cut(userinfo, ":")
	t.user, err = url.PathUnescape(user)
	if err == nil {
		t.password, err = url.PathUnescape(password)
	}
	if err != nil {
		return errors.New("has an invalid % escape in its user or password; write %25 for a percent sign")
	}
	if t.user != "" && t.password == "" {
		return errors.New("has a user but no password; write USER:PASSWORD@, or :PASSWORD@ without a user")
	}
	return nil
}

// parseHosts parses a list of HOST or HOST:PORT, with commas between them.
func (t *target) parseHosts(list string) error {
	if list == "" {
		return errors.New(`has no host; write "redis://HOST:6379"`)
	}
	port := defaultPort
	if t.topology == sentinel {
		port = defaultSentinelPort
	}
	for host := range strings.SplitSeq(list, ",") {
		addr, ok := hostPort(host, port)
		if !ok {
			return fmt.Errorf("has an invalid host; write HOST:%s, with brackets around an IPv6 address", port)
		}
		if slices.Contains(t.addrs, addr) {
			return errors.New("has a host twice")
		}
		t.addrs = append(t.addrs, addr)
	}
	if t.topology == single && len(t.addrs) > 1 {
		return errors.New("has several hosts; write redis+cluster:// for a cluster, " +
			"or redis+sentinel:// with the addresses of its sentinels")
	}
	return nil
}

// hostPort adds the default port to s unless s has one, and reports whether
// host and port are valid.
func hostPort(s, defaultPort string) (string, bool) {
	host, port := s, defaultPort
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

// parsePath parses what follows the hosts: the name of the master for
// sentinels, and the number of a database.
func (t *target) parsePath(path string) error {
	db := path
	switch t.topology {
	case sentinel:
		t.master, db, _ = strings.Cut(path, "/")
		if t.master == "" {
			return errors.New(`has no name of a master; write "redis+sentinel://HOST,HOST/MASTERNAME"`)
		}
	case cluster:
		if path != "" {
			return errors.New("has a path, but a cluster has no numbered databases; end it after the hosts")
		}
	}
	return t.parseDatabase(db)
}

// parseDatabase parses the number of a database. "" means 0.
func (t *target) parseDatabase(s string) error {
	if s == "" {
		return nil
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return errors.New("has a path that is not the number of a database; write /0, or nothing")
	}
	t.db = int(n)
	return nil
}

// parseQuery parses the parameters after the question mark.
func (t *target) parseQuery(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return errors.New("has an invalid parameter; write ?NAME=VALUE&NAME=VALUE")
	}
	for name, v := range values {
		if len(v) > 1 {
			return errors.New("has a parameter twice")
		}
		if v[0] == "" {
			return errors.New("has a parameter without a value; write ?NAME=VALUE")
		}
		if err := t.parseParameter(name, v[0]); err != nil {
			return err
		}
	}
	return nil
}

// parseParameter rejects parameters that the scheme does not use, because a
// parameter without effect is a mistake: without TLS, ca_file protects nothing.
func (t *target) parseParameter(name, value string) error {
	switch {
	case name == "ca_file" && t.tls:
		t.caFile = value
	case name == "ca_file":
		return errors.New("has the parameter ca_file without TLS; begin it with rediss")
	case name == "sentinel_password" && t.topology == sentinel:
		t.sentinelPassword = value
	case name == "db" && t.unixSocket:
		if err := t.parseDatabase(value); err != nil {
			return errors.New("has a db that is not a number")
		}
	default:
		return errors.New("has an unknown parameter; known are ca_file (TLS), " +
			"sentinel_password (sentinels) and db (sockets)")
	}
	return nil
}

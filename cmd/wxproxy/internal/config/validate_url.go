package config

import (
	"net/url"
	"strconv"
	"strings"

	"wxproxy/internal/hostname"
)

// upstream checks the base URL of WeChat. Plain HTTP to another machine gets a
// warning: every token could be read on the way.
func (v *validator) upstream(key, s string) {
	if s == "" {
		v.empty(key, `write "https://api.weixin.qq.com"`)
		return
	}
	u, ok := v.baseURL(key, s, "https://api.weixin.qq.com")
	if ok && u.Scheme == "http" && !hostname.IsLoopback(u.Hostname()) {
		v.warn(key, "is plain http to another machine: every token and secret is sent unencrypted; "+
			"write https, unless the network in between is trusted")
	}
}

// baseURL checks that s is scheme and host, and at most one slash after them.
func (v *validator) baseURL(key, s, example string) (*url.URL, bool) {
	u, problem := parseURL(s)
	switch {
	case problem != "":
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.ForceQuery:
		problem = "has something after the host; paths and queries come from the requests"
	}
	if problem != "" {
		v.fault(key, "%s: write scheme and host, such as %q", problem, example)
		return nil, false
	}
	return u, true
}

// publicURL checks that merchants' browsers send authorization codes with TLS.
// Only a trial with a sandbox on the same machine needs none.
func (v *validator) publicURL(key, s string) {
	u, ok := v.baseURL(key, s, "https://wx.example.com")
	if ok && u.Scheme == "http" && !hostname.IsLoopback(u.Hostname()) {
		v.fault(key, "is plain http, which would send authorization codes unencrypted; "+
			"write https, and terminate TLS before the callback listener")
	}
}

// returnTo checks the beginning of a URL. It must contain the slash after the
// host: https://shop.example.com is also the beginning of
// https://shop.example.com.evil.example.
func (v *validator) returnTo(key, s string) {
	u, problem := parseURL(s)
	if problem == "" && !strings.HasPrefix(u.Path, "/") {
		problem = "has no slash after the host, so that it would match other hosts"
	}
	if problem == "" && (u.RawQuery != "" || u.ForceQuery) {
		problem = "has a query, which any address below it can have"
	}
	if problem != "" {
		v.fault(key, `%s: write how the addresses begin, such as "https://shop.example.com/"`, problem)
	}
}

// parseURL parses an http or https URL, or returns why it is not one. Problems
// do not quote the URL, because it may contain a password.
func parseURL(s string) (*url.URL, string) {
	u, err := url.Parse(s)
	switch {
	case err != nil, strings.ContainsAny(s, " \\"):
		return nil, "is not a URL"
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, "starts with neither https:// nor http://"
	case u.User != nil:
		return nil, "contains a user name or a password"
	// https:api.weixin.qq.com has no host, although it looks like one.
	case u.Opaque != "", !isHost(u.Hostname()):
		return nil, "has no valid host"
	case strings.Contains(s, "#"):
		return nil, "contains a #"
	}
	if port := u.Port(); port != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, "has no valid port"
		}
	}
	return u, ""
}

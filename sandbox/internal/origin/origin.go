// Package origin protects the pages and the control endpoints of the sandbox
// from other web sites. A developer often has a sandbox and a browser on the
// same machine, so any site in that browser could send requests to it.
package origin

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Errors of Guard.Check. Both are answered with 403.
var (
	ErrCrossSite = errors.New("requests from other web sites are not accepted")
	ErrHost      = errors.New("host name not allowed: use an IP address or localhost")
)

// Guard decides which requests may have been caused by another web site. The
// zero value allows the host names that HostAllowed always allows. It is safe
// for concurrent use as long as Hosts does not change.
type Guard struct {
	Hosts []string // further host names, without a port
}

// Check returns ErrCrossSite for a request that the browser marks as caused by
// another site, and ErrHost for one under a host name that is not allowed. The
// host name matters because of DNS rebinding: an attacker can point a domain at
// this address, and then the browser marks its requests as same-origin.
func (g *Guard) Check(r *http.Request) error {
	switch site := r.Header.Get("Sec-Fetch-Site"); site {
	case "", "none", "same-origin":
	default:
		return ErrCrossSite
	}
	if header := r.Header.Get("Origin"); header != "" {
		if u, err := url.Parse(header); err != nil || u.Host == "" || !strings.EqualFold(u.Host, r.Host) {
			return ErrCrossSite
		}
	}
	if !g.HostAllowed(r.Host) {
		return ErrHost
	}
	return nil
}

// HostAllowed reports whether the sandbox serves its pages under this value of
// the Host header, whose port is ignored. IP addresses, names without a dot and
// names below .localhost, .test and .internal are always allowed, because no
// public web site has one of these.
func (g *Guard) HostAllowed(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	for _, suffix := range []string{".localhost", ".test", ".internal"} {
		if strings.HasSuffix(host, suffix) {
			return true
		}
	}
	if host != "" && !strings.Contains(host, ".") {
		return true
	}
	return slices.ContainsFunc(g.Hosts, func(h string) bool { return strings.EqualFold(h, host) })
}

// Package hostname reads Host headers. A listener that does not ask for a key
// checks them against DNS rebinding: a page of evil.example, whose name was
// changed to resolve to this machine, can send requests here with its browser,
// but only under its own name.
package hostname

import (
	"net/netip"
	"strings"
)

// Of returns the host in hostport, the value of a Host header: a name or an IP
// address, without the port and without the brackets of an IPv6 address. ok is
// false if there is none, or if hostport has anything else: a user name, a
// path, white space, a port that is not a number, the zone of an IPv6 address,
// which concerns the client's machine only (RFC 6874). A name that ends in a
// dot is not accepted: it is another spelling of the name without it, which
// lists of names would have to repeat.
//
// It does not allocate for values that are accepted.
func Of(hostport string) (host string, ok bool) {
	if rest, isIPv6 := strings.CutPrefix(hostport, "["); isIPv6 {
		end := strings.IndexByte(rest, ']')
		if end < 0 || !isPort(rest[end+1:]) {
			return "", false
		}
		ip, err := netip.ParseAddr(rest[:end])
		return rest[:end], err == nil && ip.Is6() && ip.Zone() == ""
	}
	end := strings.IndexByte(hostport, ':')
	if end < 0 {
		end = len(hostport)
	}
	host = hostport[:end]
	return host, isName(host) && isPort(hostport[end:])
}

// isPort reports whether s is the end of a Host header: nothing, or a colon and
// digits, of which RFC 3986 needs none.
func isPort(s string) bool {
	if s == "" {
		return true
	}
	for i := 1; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s[0] == ':'
}

// isName reports whether s consists of labels with letters, digits, hyphens and
// underscores, which names of containers can have. It is true for IPv4
// addresses.
func isName(s string) bool {
	label := 0 // length of the current label
	for i := 0; i < len(s); i++ {
		ch := s[i]
		switch {
		case ch >= 'a' && ch <= 'z', ch >= 'A' && ch <= 'Z', ch >= '0' && ch <= '9', ch == '-', ch == '_':
			label++
		case ch == '.' && label > 0:
			label = 0
		default:
			return false
		}
	}
	return label > 0
}

// IsIP reports whether host, from [Of], is an IP address. No DNS server decides
// where that leads. Short and hexadecimal forms of IPv4 are not recognized:
// browsers write addresses in the usual one.
func IsIP(host string) bool {
	// Parsing a name would allocate an error. An address begins with a digit,
	// if it has no colon.
	if host == "" || (host[0] < '0' || host[0] > '9') && strings.IndexByte(host, ':') < 0 {
		return false
	}
	_, err := netip.ParseAddr(host)
	return err == nil
}

// IsLoopback reports whether host can be reached from this machine only. It
// resolves no names, because the result could change later: localhost is the
// only one that it knows.
func IsLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback() // ::ffff:127.0.0.1 is 127.0.0.1
}

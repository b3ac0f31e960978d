package config

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"wxproxy/internal/hostname"
	"wxproxy/proxy"
	"wxproxy/wechat"
)

// proxy checks the listener for callers and the connection to WeChat. Without
// callers, every client that reaches the listener can act for every account.
// Then only this machine may reach it, unless the operator has confirmed with
// allow_anonymous that others may.
func (v *validator) proxy() {
	p := v.cfg.Proxy
	anonymous := len(v.cfg.Callers) == 0 && !v.isInvalid("caller")
	if v.address("proxy.listen", p.Listen) && !IsLoopback(p.Listen) && anonymous && !p.AllowAnonymous {
		v.fault("proxy.listen", "is an address that other machines can reach, and authentication "+
			"is disabled; add [[caller]] blocks (wxproxy key NAME creates one), or write "+
			"\"127.0.0.1:8080\", or allow_anonymous = true in [proxy] if the network keeps other "+
			"clients away")
	}
	if p.AllowAnonymous && !anonymous {
		v.warn("proxy.allow_anonymous", "has no effect: with [[caller]] blocks every request needs a key; "+
			"remove one or the other")
	}
	v.upstream("proxy.upstream", p.Upstream)
	if p.UpstreamCAFile != "" {
		v.roots("proxy.upstream_ca_file", p.UpstreamCAFile)
	}
	v.defaultAppID("proxy.default_appid", p.DefaultAppID)
	// No upload takes longer. A larger value is probably in the wrong unit.
	const maxTimeout = 10 * time.Minute
	if d := time.Duration(p.Timeout); d <= 0 || d > maxTimeout {
		v.fault("proxy.timeout", `is out of range; write more than 0 and at most %v, such as "60s"`,
			Duration(maxTimeout))
	}
	// Bodies stay in memory, because a request is sent again when its token is
	// rejected. A higher limit would not limit anything.
	const minBody, maxBody = Size(1 << 10), Size(1 << 30)
	if p.MaxRequestBody < minBody || p.MaxRequestBody > maxBody {
		v.fault("proxy.max_request_body",
			`is out of range; write a size from %v to %v, such as "32MiB"`, minBody, maxBody)
	}
	proxyNames(v)
	v.certificate("proxy.tls_cert_file", p.TLSCertFile, "proxy.tls_key_file", p.TLSKeyFile)
	switch {
	case p.ClientCAFile == "":
	case p.TLSCertFile == "" && !v.isInvalid("proxy.tls_cert_file"):
		v.fault("proxy.client_ca_file", "needs tls_cert_file and tls_key_file: "+
			"there are no client certificates without TLS")
	case anonymous:
		v.fault("proxy.client_ca_file", "has no effect without callers; "+
			"add [[caller]] blocks whose names are the common names in the certificates")
	default:
		v.roots("proxy.client_ca_file", p.ClientCAFile)
	}
}

// proxyNames checks the lists of host names and of header names.
func proxyNames(v *validator) {
	for i, s := range v.cfg.Proxy.Hosts {
		// With a port it would match nothing: the port of a Host header is
		// ignored.
		if name, ok := hostname.Of(s); s != "*" && (!ok || name != s && "["+name+"]" != s) {
			v.fault(fmt.Sprintf("proxy.hosts[%d]", i+1), "is not a host name; write it as in the URLs of "+
				`callers, without scheme, port and final dot, such as "wxproxy", or "*" for any`)
		}
	}
	for i, name := range v.cfg.Proxy.ForwardHeaders {
		if problem := proxy.ForwardHeaderProblem(name); problem != "" {
			v.fault(fmt.Sprintf("proxy.forward_headers[%d]", i+1), "%s; remove it", problem)
		}
	}
}

// defaultAppID checks that requests for this account can succeed. With a
// component any appid may be one of its authorizers, now or later.
func (v *validator) defaultAppID(key, appid string) {
	switch {
	case appid == "":
	case !wechat.IsAppID(appid):
		v.fault(key, "%s", badAppID)
	case v.cfg.Component.AppID == "" && !v.isInvalid("component.appid") && !v.hasApp(appid):
		v.fault(key, "is not an account of this configuration; add an [[app]] block for it, or fill in [component]")
	}
}

// callback checks the listener for WeChat and merchants. Every address is
// allowed: pushes are signed, and the pages are public.
func (v *validator) callback() {
	v.address("callback.listen", v.cfg.Callback.Listen)
	if v.cfg.Callback.PublicURL != "" {
		v.publicURL("callback.public_url", v.cfg.Callback.PublicURL)
	}
	for i, r := range v.cfg.Callback.ReturnTo {
		v.returnTo(fmt.Sprintf("callback.return_to[%d]", i+1), r)
	}
	// WeChat repeats a push after five seconds, and clocks are seldom exact.
	// The store remembers pushes for max_age.
	const minAge, maxAge = time.Minute, 24 * time.Hour
	if d := time.Duration(v.cfg.Callback.MaxAge); d < minAge || d > maxAge {
		v.fault("callback.max_age", `is %v; write at least %v and at most %v, such as "15m"`,
			Duration(d), Duration(minAge), Duration(maxAge))
	}
}

// admin checks that the listener for operators has a key if other machines can
// reach it, unless the operator has confirmed that it needs none.
func (v *validator) admin() {
	a := v.cfg.Admin
	v.noSpaces("admin.key", a.Key)
	// The length is what protects the key from being guessed: a listener can
	// only slow a client down, and an attacker has many addresses.
	const minKey = 20
	if n := utf8.RuneCountInString(a.Key.Reveal()); n > 0 && n < minKey {
		v.fault("admin.key", "has fewer than %d characters and could be guessed; "+
			"create one with: openssl rand -base64 24", minKey)
	}
	isPublic := v.address("admin.listen", a.Listen) && !IsLoopback(a.Listen)
	if !isPublic || !a.Key.IsEmpty() || a.AllowAnonymous || v.isInvalid("admin.key") {
		return
	}
	v.fault("admin.listen", "is an address that other machines can reach, and authentication is "+
		"disabled; set key in [admin], or write \"127.0.0.1:8082\", or "+
		"allow_anonymous = true if the network keeps other clients away")
}

// address checks that addr is HOST:PORT, and reports whether it is. Names of
// services are rejected: the port of a name differs between machines.
func (v *validator) address(key, addr string) bool {
	const want = `write HOST:PORT, such as "127.0.0.1:8080"`
	if addr == "" {
		v.empty(key, want)
		return false
	}
	host, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil || !isHost(host) && host != "" {
		v.fault(key, "is not an address to listen on; %s", want)
		return false
	}
	return !v.isInvalid(key)
}

// ports checks that the three listeners have different ports: no path of one
// may be reachable through another. Port 0 lets the system choose, and is never
// the same.
func (v *validator) ports() {
	first := map[uint64]string{} // key of the first listener with this port
	for _, l := range []struct{ key, addr string }{
		{"proxy.listen", v.cfg.Proxy.Listen},
		{"callback.listen", v.cfg.Callback.Listen},
		{"admin.listen", v.cfg.Admin.Listen},
	} {
		_, port, _ := net.SplitHostPort(l.addr)
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || v.isInvalid(l.key) {
			continue // no fault, or one that is reported already
		}
		if other := first[n]; other != "" {
			v.fault(l.key, "has the same port as %s; "+
				"give each of the three listeners a different port", other)
		} else {
			first[n] = l.key
		}
	}
}

// IsLoopback reports whether addr, HOST:PORT, can be reached only from this
// machine. It is false without a host, for 0.0.0.0 and for every name except
// localhost.
func IsLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && hostname.IsLoopback(host)
}

// isHost reports whether host is an IP address or a name.
func isHost(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	// Only digits and dots would be a mistyped IPv4 address.
	return hostName.MatchString(host) && strings.Trim(host, "0123456789.") != ""
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?` +
	`(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?$`)

// roots checks that a file contains certificates and that all of them are
// valid. The standard library skips damaged ones without an error, and requests
// would fail much later.
func (v *validator) roots(key, path string) {
	rest, err := v.readFile(path)
	if err != nil {
		v.fault(key, "the file cannot be read: %v; write the path of a PEM file", err)
		return
	}
	n := 0
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue // some tools write the key into the same file
		}
		n++
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			v.fault(key, "certificate %d in the file is damaged; get the file again", n)
			return
		}
	}
	if n == 0 {
		v.fault(key, "the file contains no certificate; it needs blocks that start with "+
			"-----BEGIN CERTIFICATE-----")
	}
}

// certificate checks that a certificate and its private key are both set or
// both empty, and that they match.
func (v *validator) certificate(certKey, certFile, keyKey, keyFile string) {
	switch {
	case certFile == "" && keyFile == "":
		return
	case certFile == "":
		v.empty(certKey, "TLS needs the certificate as well as tls_key_file: set both, or neither for plain HTTP")
		return
	case keyFile == "": // without this check the listener would silently use plain HTTP
		v.empty(keyKey, "TLS needs the private key as well as tls_cert_file: set both, or neither for plain HTTP")
		return
	}
	cert, certErr := v.readFile(certFile)
	if certErr != nil {
		v.fault(certKey, "the file cannot be read: %v; write the path of a PEM file", certErr)
	}
	key, keyErr := v.readFile(keyFile)
	if keyErr != nil {
		v.fault(keyKey, "the file cannot be read: %v; write the path of a PEM file", keyErr)
	}
	if certErr != nil || keyErr != nil {
		return
	}
	if _, err := tls.X509KeyPair(cert, key); err != nil {
		// The error says which of the two is wrong. After these words it lists
		// what else is in the file.
		cause, _, _ := strings.Cut(strings.TrimPrefix(err.Error(), "tls: "), " after skipping ")
		v.fault(certKey, "it and tls_key_file do not match: %s; "+
			"write the paths of a PEM certificate and of its private key", cause)
	}
}

package config

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"wxproxy/wechat"
)

// proxy checks the callers' listener and the way to WeChat. Where callers have no keys, who reaches that listener can
// call in the name of every account: then reaching it must mean being on this machine, or the
// operator must have said in so many words that it is meant.
func (c *checker) proxy() {
	p := c.cfg.Proxy
	anonymous := len(c.cfg.Callers) == 0 && !c.faulty("caller")
	if c.address("proxy.listen", p.Listen) && !IsLoopback(p.Listen) && anonymous && !p.AllowAnonymous {
		c.fault("proxy.listen", "is %s, which other machines may reach, and nobody is asked for a key; add [[caller]] blocks (wxproxy key NAME makes one), "+
			"or write \"127.0.0.1:8080\", or allow_anonymous = true in [proxy] where the network keeps strangers away", c.shown("proxy.listen", p.Listen))
	}
	if p.AllowAnonymous && !anonymous {
		c.warnings = append(c.warnings, Warning{"proxy.allow_anonymous", "changes nothing: with [[caller]] blocks every call needs a key; remove one or the other"})
	}
	c.upstream("proxy.upstream", p.Upstream)
	if p.UpstreamCAFile != "" {
		c.roots("proxy.upstream_ca_file", p.UpstreamCAFile)
	}
	c.defaultAppID("proxy.default_appid", p.DefaultAppID)
	// Longer than any upload takes; beyond it somebody has mistaken the unit.
	const longest = 10 * time.Minute
	if d := time.Duration(p.Timeout); d <= 0 || d > longest {
		c.fault("proxy.timeout", `is %v; write more than 0 and at most %v, such as "60s"`, p.Timeout, Duration(longest))
	}
	// Bodies are held whole in memory, because a refused call is sent again: a limit above that would
	// be none.
	const smallest, largest = Size(1 << 10), Size(1 << 30)
	if p.MaxRequestBody < smallest || p.MaxRequestBody > largest {
		c.fault("proxy.max_request_body", `is %v; write a size from %v to %v, such as "32MiB"`, p.MaxRequestBody, smallest, largest)
	}
	c.certificate("proxy.tls_cert_file", p.TLSCertFile, "proxy.tls_key_file", p.TLSKeyFile)
	switch {
	case p.ClientCAFile == "":
	case p.TLSCertFile == "" && !c.faulty("proxy.tls_cert_file"):
		c.fault("proxy.client_ca_file", "needs tls_cert_file and tls_key_file: clients show certificates within TLS only")
	case anonymous:
		c.fault("proxy.client_ca_file", "asks for nobody's certificate, as there is no caller; add [[caller]] blocks whose names are the common names in the certificates")
	default:
		c.roots("proxy.client_ca_file", p.ClientCAFile)
	}
}

// defaultAppID wants an account that can be called for. Which authorizers there will be nobody knows
// beforehand: with a component any appid may be one.
func (c *checker) defaultAppID(key, appid string) {
	switch {
	case appid == "":
	case !wechat.IsAppID(appid):
		c.fault(key, "%s", badAppID)
	case c.cfg.Component.AppID == "" && !c.faulty("component.appid") && !c.knowsApp(appid):
		c.fault(key, "is no account of this configuration; add an [[app]] block for it, or fill in [component]")
	}
}

// callback checks the listener that the internet reaches. It may be open to all: whatever is pushed there has to be
// signed, and the pages are for everybody.
func (c *checker) callback() {
	c.address("callback.listen", c.cfg.Callback.Listen)
	if c.cfg.Callback.PublicURL != "" {
		c.publicURL("callback.public_url", c.cfg.Callback.PublicURL)
	}
	for i, r := range c.cfg.Callback.ReturnTo {
		c.returnTo(fmt.Sprintf("callback.return_to[%d]", i+1), r)
	}
}

// admin wants a key, or an operator who knows that there is none, where others reach the listener.
func (c *checker) admin() {
	a := c.cfg.Admin
	c.plain("admin.key", a.Key)
	if !c.address("admin.listen", a.Listen) || IsLoopback(a.Listen) || !a.Key.IsEmpty() || a.AllowAnonymous || c.faulty("admin.key") {
		return
	}
	c.fault("admin.listen", "is %s, which other machines may reach, and nobody is asked for a key; set key in [admin], "+
		"or write \"127.0.0.1:8082\", or allow_anonymous = true where the network keeps strangers away", c.shown("admin.listen", a.Listen))
}

// address wants HOST:PORT, and reports whether it is.
func (c *checker) address(key, addr string) bool {
	const form = `write HOST:PORT, such as "127.0.0.1:8080"`
	if addr == "" {
		c.empty(key, form)
		return false
	}
	host, port, err := net.SplitHostPort(addr)
	if err == nil {
		// net.Listen takes names of services too; what they stand for differs from machine to machine.
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil || !isHost(host) && host != "" {
		c.fault(key, "is %s, which is no address to listen on; %s", c.shown(key, addr), form)
		return false
	}
	return !c.faulty(key)
}

// ports wants three listeners, as what one trust zone may see must not answer in another. Port 0,
// which lets the system choose, is never the same.
func (c *checker) ports() {
	first := map[uint64]string{}
	for _, l := range []struct{ key, addr string }{
		{"proxy.listen", c.cfg.Proxy.Listen},
		{"callback.listen", c.cfg.Callback.Listen},
		{"admin.listen", c.cfg.Admin.Listen},
	} {
		_, port, _ := net.SplitHostPort(l.addr)
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || c.faulty(l.key) { // a fault of its own, or no fault
			continue
		}
		if other := first[n]; other != "" {
			c.fault(l.key, "has port %d, which %s has too; give each of the three listeners a port of its own", n, other)
		} else {
			first[n] = l.key
		}
	}
}

// IsLoopback reports whether addr, HOST:PORT, can be reached from this machine only. No host,
// 0.0.0.0 and every name but localhost count as reachable from others.
func IsLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && IsLoopbackHost(host)
}

// IsLoopbackHost is the same for a host alone. It asks no name server: the answer would depend on when
// it was asked.
func IsLoopbackHost(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	// Unmap: ::ffff:127.0.0.1 is 127.0.0.1 in other clothes.
	return err == nil && ip.Unmap().IsLoopback()
}

// isHost tells names and IP addresses from everything else.
func isHost(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	// All digits and dots would be a mistyped IPv4 address.
	return hostName.MatchString(host) && strings.Trim(host, "0123456789.") != ""
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?$`)

// upstream wants WeChat's base URL. Without TLS every token of ours would travel where others can read along.
func (c *checker) upstream(key, s string) {
	if s == "" {
		c.empty(key, `write "https://api.weixin.qq.com"`)
		return
	}
	u, ok := c.baseURL(key, s, "https://api.weixin.qq.com")
	if ok && u.Scheme == "http" && !IsLoopbackHost(u.Hostname()) {
		c.warnings = append(c.warnings, Warning{key, "is plain http to another machine: every token and secret travels in the clear; write https, unless that machine stands beside this one"})
	}
}

// baseURL wants scheme and host and nothing behind them but one slash.
func (c *checker) baseURL(key, s, example string) (*url.URL, bool) {
	u, problem := readURL(s)
	switch {
	case problem != "":
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.ForceQuery:
		problem = "has something behind the host; paths and queries come from the requests"
	}
	if problem != "" {
		c.fault(key, "%s: write scheme and host, such as %q", problem, example)
		return nil, false
	}
	return u, true
}

// publicURL wants TLS in front of whatever merchants' browsers bring: authorization codes. Only a trial on one
// machine, against a sandbox, does without.
func (c *checker) publicURL(key, s string) {
	if u, ok := c.baseURL(key, s, "https://wx.example.com"); ok && u.Scheme == "http" && !IsLoopbackHost(u.Hostname()) {
		c.fault(key, "is plain http, in which authorization codes would travel in the clear; write https, with TLS ended in front of the callback listener")
	}
}

// returnTo wants the beginning of a URL with at least the slash behind the host in it: without
// one, https://shop.example.com would be the beginning of https://shop.example.com.evil.example too.
func (c *checker) returnTo(key, s string) {
	u, problem := readURL(s)
	if problem == "" && !strings.HasPrefix(u.Path, "/") {
		problem = "has no slash behind the host, so that other hosts would begin with it"
	}
	if problem == "" && (u.RawQuery != "" || u.ForceQuery) {
		problem = "has a query, which every address may have that begins with what is in front of it"
	}
	if problem != "" {
		c.fault(key, `%s: write how the addresses begin, such as "https://shop.example.com/"`, problem)
	}
}

// readURL takes an http or https URL apart, or says what keeps it from being one. The sentences
// do not quote it: it may have a password in it.
func readURL(s string) (*url.URL, string) {
	u, err := url.Parse(s)
	switch {
	case err != nil, strings.ContainsAny(s, " \\"):
		return nil, "is no URL"
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, "begins neither with https:// nor with http://"
	case u.User != nil:
		return nil, "has a user name or a password in it"
	// https:api.weixin.qq.com has no host, however much it looks like one.
	case u.Opaque != "", !isHost(u.Hostname()):
		return nil, "has no host that could be one"
	case strings.Contains(s, "#"):
		return nil, "has a # in it"
	}
	if port := u.Port(); port != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, "has a port that cannot be one"
		}
	}
	return u, ""
}

// roots wants a file of certificates, each of them sound: the standard library passes over
// damaged ones, and calls would fail much later.
func (c *checker) roots(key, path string) {
	rest, err := c.readFile(path)
	if err != nil {
		c.fault(key, "the file %s cannot be read: %v; write the path of a PEM file", c.shown(key, path), err)
		return
	}
	n := 0
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue // such as the key that some tools write into the same file
		}
		n++
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			c.fault(key, "certificate %d in %s is damaged; fetch the file again", n, c.shown(key, path))
			return
		}
	}
	if n == 0 {
		c.fault(key, "the file %s holds no certificate; it must have blocks that begin with -----BEGIN CERTIFICATE-----", c.shown(key, path))
	}
}

// certificate wants both files or none, and that they fit together.
func (c *checker) certificate(certKey, certFile, keyKey, keyFile string) {
	switch {
	case certFile == "" && keyFile == "":
		return
	case certFile == "":
		c.empty(certKey, "TLS needs the certificate as well as tls_key_file: set both, or neither for plain HTTP")
		return
	case keyFile == "": // the other way round, the listener would speak plain HTTP without anybody noticing
		c.empty(keyKey, "TLS needs the private key as well as tls_cert_file: set both, or neither for plain HTTP")
		return
	}
	cert, certErr := c.readFile(certFile)
	if certErr != nil {
		c.fault(certKey, "the file %s cannot be read: %v; write the path of a PEM file", c.shown(certKey, certFile), certErr)
	}
	key, keyErr := c.readFile(keyFile)
	if keyErr != nil {
		c.fault(keyKey, "the file %s cannot be read: %v; write the path of a PEM file", c.shown(keyKey, keyFile), keyErr)
	}
	if certErr != nil || keyErr != nil {
		return
	}
	if _, err := tls.X509KeyPair(cert, key); err != nil {
		// The library's sentence tells which of the two it dislikes, and nothing of what is in them.
		c.fault(certKey, "it and tls_key_file are no pair: %s; write the paths of a PEM certificate and of its private key", strings.TrimPrefix(err.Error(), "tls: "))
	}
}

package console

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"wxproxy/internal/hostname"
)

// authorize checks a request to any path that is not open, before the path is
// looked up, so that a denied client does not learn which paths exist. It
// responds itself if it returns false.
//
// The order matters for browsers: the password prompt must not appear on behalf
// of another site's page, because a user might answer it.
func (s *state) authorize(w http.ResponseWriter, r *http.Request) bool {
	switch {
	case s.loopback && !loopbackHost(r.Host):
		s.logDenied(r, "wrong Host header")
		fail(w, r, &fault{status: http.StatusForbidden,
			msg: "wrong Host header: use localhost, 127.0.0.1 or [::1]"})
	case crossSite(r) && !topLevelNavigation(r):
		s.logDenied(r, "cross-site request")
		fail(w, r, &fault{status: http.StatusForbidden, msg: "cross-site requests are denied"})
	case s.hasKey && !s.presentsKey(r):
		s.denyKey(w, r)
	default:
		return true
	}
	return false
}

// denyKey responds to a request without the key. A wrong key is counted and
// logged. The right one is never delayed, whatever its address has sent before:
// clients behind a proxy share an address.
func (s *state) denyKey(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "" {
		if s.keyRejected != nil {
			s.keyRejected("admin")
		}
		peer, _ := netip.ParseAddrPort(r.RemoteAddr)
		f := s.wrongKeys.Fail(peer.Addr(), time.Now())
		if f.Log {
			s.log.Warn("admin request denied", "reason", "wrong key", "remote", r.RemoteAddr,
				"wrong_keys", f.Count)
		}
		if f.Wait > 0 {
			fail(w, r, &fault{status: http.StatusTooManyRequests, retryAfter: f.Wait,
				msg:  "too many wrong keys from this address",
				hint: "the right key is accepted at once"})
			return
		}
	}
	// Two challenges: browsers prompt for Basic, programs see both schemes.
	w.Header().Add("WWW-Authenticate", `Basic realm="wxproxy", charset="UTF-8"`)
	w.Header().Add("WWW-Authenticate", `Bearer realm="wxproxy"`)
	fail(w, r, &fault{status: http.StatusUnauthorized,
		msg: "admin key required: send it as Bearer token, or as password of any user name"})
}

// logDenied logs a denied request without its path and headers, which can
// contain anything, the key too.
func (s *state) logDenied(r *http.Request, why string) {
	s.log.Warn("admin request denied", "reason", why, "remote", r.RemoteAddr)
}

// presentsKey reports whether r contains the key. It compares digests, which
// have equal lengths, so that its timing reveals neither the length of the key
// nor how much of it was right.
func (s *state) presentsKey(r *http.Request) bool {
	given, ok := bearer(r.Header.Get("Authorization"))
	if !ok {
		if _, given, ok = r.BasicAuth(); !ok {
			return false
		}
	}
	sum := sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(sum[:], s.key[:]) == 1
}

// bearer returns the token of "Bearer TOKEN". The scheme is case-insensitive
// (RFC 9110, section 11.1).
func bearer(authorization string) (string, bool) {
	scheme, token, ok := strings.Cut(authorization, " ")
	return strings.TrimSpace(token), ok && strings.EqualFold(scheme, "Bearer")
}

// loopbackHost reports whether a Host header names this machine by a name that
// no foreign DNS server controls.
func loopbackHost(value string) bool {
	host, ok := hostname.Of(value)
	return ok && hostname.IsLoopback(host)
}

// crossSite reports whether a browser sent r on behalf of another site's page.
// Reading is denied like writing, because a browser that remembers the key adds
// it to every request. Other programs send neither header.
func crossSite(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "":
		// An older browser, or a listener that is reached by plain HTTP and not
		// as localhost: browsers send Sec-Fetch headers to trustworthy URLs
		// only.
		origin := r.Header.Get("Origin")
		if origin == "" {
			return false
		}
		u, err := url.Parse(origin)
		return err != nil || u.Host == "" || !strings.EqualFold(u.Host, r.Host)
	case "same-origin", "none": // none is an address typed in, or a bookmark
		return false
	}
	return true
}

// topLevelNavigation reports whether the browser follows a link to the page,
// such as one in a chat or a wiki. That is safe: the browser shows the page by
// itself and under its own address. The page contains no data, cannot be
// framed, and its later requests are same-origin.
func topLevelNavigation(r *http.Request) bool {
	return r.URL.Path == "/" && r.Method == http.MethodGet &&
		r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

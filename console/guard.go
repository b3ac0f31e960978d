package console

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// admit decides on everything that is not open, before the path is looked at: whoever is
// refused does not learn what there is. It answers by itself where it says no.
//
// The order matters to a browser only: asked for a password on behalf of a foreign page, a
// person might give it.
func (s *state) admit(w http.ResponseWriter, r *http.Request) bool {
	switch {
	case s.loopback && !loopbackHost(r.Host):
		s.refused(r, "another host's name")
		fail(w, r, &fault{status: http.StatusForbidden, msg: "this address answers to localhost, 127.0.0.1 and [::1] only"})
	case foreign(r) && !visit(r):
		s.refused(r, "from another site")
		fail(w, r, &fault{status: http.StatusForbidden, msg: "requests from other web sites are refused"})
	case s.hasKey && !s.knows(r):
		// Two challenges, so that a browser asks its user and a program sees both ways.
		w.Header().Add("WWW-Authenticate", `Basic realm="wxproxy", charset="UTF-8"`)
		w.Header().Add("WWW-Authenticate", `Bearer realm="wxproxy"`)
		fail(w, r, &fault{status: http.StatusUnauthorized, msg: "the admin key is needed: as Bearer token, or as password of any user name"})
	default:
		return true
	}
	return false
}

// refused leaves a trace of what a person would want to know; the path and the headers, which
// may be anything, stay out of it.
func (s *state) refused(r *http.Request, why string) {
	s.log.Warn("request to the admin listener refused", "why", why, "remote", r.RemoteAddr)
}

// knows compares digests: of one length always, so that the time tells neither how long the
// key is nor how much of it was right.
func (s *state) knows(r *http.Request) bool {
	given, ok := bearer(r.Header.Get("Authorization"))
	if !ok {
		if _, given, ok = r.BasicAuth(); !ok {
			return false
		}
	}
	sum := sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(sum[:], s.key[:]) == 1
}

// bearer takes the token out of "Bearer TOKEN"; the scheme's case does not matter (RFC 9110, 11.1).
func bearer(authorization string) (string, bool) {
	scheme, token, ok := strings.Cut(authorization, " ")
	return strings.TrimSpace(token), ok && strings.EqualFold(scheme, "Bearer")
}

// loopbackHost reports whether a Host header names this machine by a name that no foreign
// DNS server can give out. That is what ends DNS rebinding: the page of evil.example, whose name
// has come to mean 127.0.0.1, can send requests here, but only under its own name.
func loopbackHost(host string) bool {
	u, err := url.Parse("//" + host)
	// What has more than host and port in it was no Host header.
	if err != nil || u.Host != host {
		return false
	}
	name := u.Hostname()
	if strings.EqualFold(name, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.Unmap().IsLoopback()
}

// foreign reports whether a browser sent this on behalf of another site's page. Reading is
// refused like writing: nothing here is meant for other sites, and a browser that has the key
// in its memory adds it by itself. Programs send neither header.
func foreign(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "":
		// An older browser, or a page that came by plain HTTP from elsewhere than localhost.
		origin := r.Header.Get("Origin")
		if origin == "" {
			return false
		}
		u, err := url.Parse(origin)
		return err != nil || u.Host == "" || !strings.EqualFold(u.Host, r.Host)
	case "same-origin", "none": // none: typed in, or a bookmark
		return false
	}
	return true
}

// visit reports whether a person followed a link to the page: from a chat, a wiki, a dashboard. The
// browser shows it as a page of its own, under our address; it holds no data, cannot be framed, and what it
// asks for afterwards is asked by itself.
func visit(r *http.Request) bool {
	return r.URL.Path == "/" && r.Method == http.MethodGet &&
		r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

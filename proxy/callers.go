package proxy

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"wxproxy/proxy/standin"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

// Caller is one who may call, and what it may do. Of its key only the SHA-256 is known here. The zero
// value may do nothing: each list has to name what is allowed.
type Caller struct {
	Name      string            // its label in metrics and logs; 1 to 64 bytes
	KeySHA256 [sha256.Size]byte // zero: it has no key, and comes with a client certificate
	AppIDs    []string          // accounts that it may call for, the component among them; "*": all
	Paths     []string          // as WeChat gets them: exact, or a prefix that ends in "*"
	Methods   []string          // "*": all
	Rate      int               // calls a second; 0: no limit
	Burst     int               // calls at once; 0: as many as Rate, 1 at least
}

// identity is a Caller made ready to be asked. nil stands for everybody, where no callers are configured.
type identity struct {
	name     string
	appids   map[string]bool // nil: all
	paths    map[string]bool // exact ones; nil: all paths
	prefixes []string
	methods  map[string]bool // nil: all
	rate     *bucket         // nil: no limit
}

// roster is everybody who may call. The empty one lets everybody call.
type roster struct {
	// byKey finds a caller by the SHA-256 of its key. A look-up in a map takes a time that depends on what is
	// looked up, and yet tells nothing: whoever measures it learns something of a digest, from which no way
	// leads back to a key of 256 bits.
	byKey  map[[sha256.Size]byte]*identity
	byName map[string]*identity
}

// newRoster makes callers ready. One whose rate has not changed since old keeps what it has used up of it.
func newRoster(callers []Caller, old roster) (roster, error) {
	r := roster{byKey: map[[sha256.Size]byte]*identity{}, byName: map[string]*identity{}}
	for _, c := range callers {
		id := &identity{name: c.Name, appids: set(c.AppIDs), methods: set(c.Methods), rate: newBucket(c.Rate, c.Burst)}
		for _, p := range c.Paths {
			prefix, isPrefix := strings.CutSuffix(p, "*")
			if isPrefix {
				id.prefixes = append(id.prefixes, prefix)
			}
		}
		id.paths = set(c.Paths)
		if known := old.byName[c.Name]; known != nil && known.rate.same(id.rate) {
			id.rate = known.rate
		}
		switch {
		case c.Name == "" || len(c.Name) > standin.MaxCallerName:
			return r, errors.New("a caller needs a name, of 64 bytes at most")
		case r.byName[c.Name] != nil:
			return r, fmt.Errorf("there are two callers of the name %q", c.Name)
		}
		r.byName[c.Name] = id
		if c.KeySHA256 == ([sha256.Size]byte{}) {
			continue
		}
		if other := r.byKey[c.KeySHA256]; other != nil {
			return r, fmt.Errorf("the callers %q and %q have the same key", other.name, c.Name)
		}
		r.byKey[c.KeySHA256] = id
	}
	return r, nil
}

// set is nil where "*" is among the words: all of them.
func set(words []string) map[string]bool {
	s := make(map[string]bool, len(words))
	for _, w := range words {
		if w == "*" {
			return nil
		}
		s[w] = true
	}
	return s
}

// open: nobody is asked who he is.
func (r roster) open() bool { return len(r.byName) == 0 }

// mayCall says whether the caller may send method to the plain path, which has no appid in front and no escapes.
func (id *identity) mayCall(method, path []byte) *problem {
	switch {
	case id == nil:
		return nil
	case id.methods != nil && !id.methods[text(method)]:
		return problemf(http.StatusForbidden, "its methods are set in its [[caller]] block", "caller %s may not use the method %s", id.name, clip(method))
	case id.paths == nil || id.paths[text(path)]:
		return nil
	}
	for _, p := range id.prefixes {
		if len(path) >= len(p) && text(path[:len(p)]) == p {
			return nil
		}
	}
	return problemf(http.StatusForbidden, "its paths are set in its [[caller]] block", "caller %s may not call this path", id.name)
}

// mayActFor says whether the caller may call for appid. The answer is the same whether there is such an account or not.
func (id *identity) mayActFor(appid []byte) *problem {
	if id == nil || id.appids == nil || id.appids[text(appid)] {
		return nil
	}
	return problemf(http.StatusForbidden, "its appids are set in its [[caller]] block", "caller %s may not call for %s", id.name, clip(appid))
}

// mayUse says whether the caller may do what p says: whose credential goes in is what counts. With the component's
// that is the component, whatever account is named besides, except on logins: they are for the users of
// the account that they name.
func (id *identity) mayUse(p *plan, component []byte) *problem {
	subject := p.appid
	login := p.endpoint.ComponentAppID || p.endpoint.Need == wechat.NeedSecret
	if p.holder != nil && p.kind == tokens.Component && (!login || subject == nil) {
		subject = component
	}
	if subject == nil {
		return nil // no credential goes in
	}
	return id.mayActFor(subject)
}

// permitted says whether the call may be made by who makes it.
func (c *call) permitted() *problem {
	return c.s.permits(c.who, c.cx.Method(), c.target.plain, &c.plan)
}

// permits looks at all limits but the rate.
func (s *settings) permits(id *identity, method, path []byte, plan *plan) *problem {
	if p := id.mayCall(method, path); p != nil {
		return p
	}
	return id.mayUse(plan, s.component)
}

// paced counts the call against its caller's rate.
func (c *call) paced() *problem {
	if c.who == nil || c.who.rate == nil {
		return nil
	}
	wait := c.who.rate.take(c.began)
	if wait == 0 {
		return nil
	}
	p := problemf(http.StatusTooManyRequests, "call again after the time in Retry-After; the rate is set in the [[caller]] block", "caller %s calls more often than it may", c.who.name)
	p.retryAfter = wait
	return p
}

// label is what metrics and logs call who: "" where nobody is asked, stranger where he did not say.
func (r roster) label(who *identity) string {
	switch {
	case who != nil:
		return who.name
	case r.open():
		return ""
	}
	return stranger
}

// stranger stands in metrics and logs for whoever showed no key that is known.
const stranger = "unknown"

// sameBytes compares two slices of which nil is none.
func sameBytes(a, b []byte) bool { return a != nil && b != nil && bytes.Equal(a, b) }

package proxy

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/time/rate"

	"wxproxy/proxy/standin"
)

// Caller is a configured client and its permissions. Only the SHA-256 of its
// key is stored. The zero value is denied everything: each list has to name
// what is allowed.
type Caller struct {
	Name      string            // label in metrics and logs; 1 to 64 bytes
	KeySHA256 [sha256.Size]byte // zero: it has no key and uses a client certificate
	AppIDs    []string          // accounts, the component among them; "*" is all
	Paths     []string          // forwarded paths: exact, or a prefix that ends in "*"
	Methods   []string          // "*" is all
	Rate      int               // requests per second; 0 is unlimited
	Burst     int               // requests at once; 0 is Rate, but at least 1
}

// caller is a Caller prepared for lookups. A nil caller is allowed everything.
type caller struct {
	name         string
	appids       map[string]bool // nil is all
	paths        map[string]bool // exact ones; nil is all paths
	pathPrefixes []string
	methods      map[string]bool // nil is all
	rate         *rate.Limiter   // nil is unlimited
}

// callerSet is the configured callers. The zero value disables authentication.
type callerSet struct {
	// byDigest finds a caller by the SHA-256 of its key. A map lookup is not
	// constant-time. That is fine here: timing reveals only bits of the digest,
	// which cannot be inverted.
	byDigest map[[sha256.Size]byte]*caller
	byName   map[string]*caller
}

// newCallerSet prepares callers. One whose rate is the same in old keeps what
// it has used of it, so that a reload does not grant a new burst.
func newCallerSet(callers []Caller, old callerSet) (callerSet, error) {
	set := callerSet{byDigest: map[[sha256.Size]byte]*caller{}, byName: map[string]*caller{}}
	for _, config := range callers {
		switch {
		case config.Name == "" || len(config.Name) > standin.MaxCallerName:
			return set, errors.New("a caller needs a name of at most 64 bytes")
		case set.byName[config.Name] != nil:
			return set, fmt.Errorf("two callers have the name %q", config.Name)
		}
		c := newCaller(config)
		if before := old.byName[c.name]; before != nil && sameRate(before.rate, c.rate) {
			c.rate = before.rate
		}
		set.byName[c.name] = c
		if config.KeySHA256 == ([sha256.Size]byte{}) {
			continue
		}
		if other := set.byDigest[config.KeySHA256]; other != nil {
			return set, fmt.Errorf("the callers %q and %q have the same key", other.name, c.name)
		}
		set.byDigest[config.KeySHA256] = c
	}
	return set, nil
}

func newCaller(config Caller) *caller {
	c := &caller{
		name:    config.Name,
		appids:  allowList(config.AppIDs),
		paths:   allowList(config.Paths),
		methods: allowList(config.Methods),
		rate:    newRateLimiter(config.Rate, config.Burst),
	}
	for _, path := range config.Paths {
		if prefix, ok := strings.CutSuffix(path, "*"); ok {
			c.pathPrefixes = append(c.pathPrefixes, prefix)
		}
	}
	return c
}

// allowList returns a set of the words, or nil if "*" is among them.
func allowList(words []string) map[string]bool {
	list := make(map[string]bool, len(words))
	for _, w := range words {
		if w == "*" {
			return nil
		}
		list[w] = true
	}
	return list
}

// disabled reports whether authentication is disabled: no callers are
// configured.
func (cs *callerSet) disabled() bool { return len(cs.byName) == 0 }

// unknownCaller is the label of requests that presented no valid key.
const unknownCaller = "unknown"

// label returns the caller label for metrics and logs: the caller's name, "" if
// authentication is disabled, or "unknown" if authentication failed.
func (cs *callerSet) label(c *caller) string {
	switch {
	case c != nil:
		return c.name
	case cs.disabled():
		return ""
	}
	return unknownCaller
}

package proxy

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"wxproxy/proxy/standin"
	"wxproxy/proxy/transport"
)

// Caller is a configured client and its permissions. Only the SHA-256 of each
// of its keys is stored. The zero value is denied everything: each list has to
// name what is allowed.
type Caller struct {
	Name      string              // label in metrics and logs; 1 to 64 bytes
	KeySHA256 [][sha256.Size]byte // empty: it has no key and uses a client certificate
	AppIDs    []string            // accounts, the component among them; "*" is all
	Paths     []string            // forwarded paths: exact, or a prefix that ends in "*"
	Methods   []string            // "*" is all
	Rate      int                 // requests per second; 0 is unlimited
	Burst     int                 // requests at once; 0 is Rate, but at least 1
}

// caller is a Caller prepared for lookups. A nil caller is allowed everything.
type caller struct {
	name         string
	keys         []standin.KeyID // in the order of the configuration
	appids       map[string]bool // nil is all
	paths        map[string]bool // exact ones; nil is all paths
	pathPrefixes []string
	methods      map[string]bool // nil is all
	rate         *rate.Limiter   // nil is unlimited
	memory       memory
}

// memory is what the requests of one caller can take of the memory that all
// callers share. The zero value has none.
type memory struct {
	bodies    *transport.Share // of requests
	readAhead *transport.Share // of responses that are streamed
	whole     *transport.Share // of responses that are read whole
}

// identity says which caller sends a request. The zero value is no caller.
type identity struct {
	caller *caller
	// key is the caller's key that the request presents, or under which its
	// stand-in was issued. It is zero if the caller has only a certificate.
	key standin.KeyID
}

// callerSet is the configured callers. The zero value disables authentication.
type callerSet struct {
	// byDigest finds a caller by the SHA-256 of one of its keys. A map lookup
	// is not constant-time. That is fine here: timing reveals only bits of the
	// digest, which cannot be inverted.
	byDigest map[[sha256.Size]byte]identity
	byName   map[string]*caller
}

// newCallerSet prepares callers. One whose rate is the same in old keeps what
// it has used of it, so that a reload does not grant a new burst. The ids of
// keys are derived with signer.
func newCallerSet(callers []Caller, signer *standin.Signer, old callerSet) (callerSet, error) {
	set := callerSet{byDigest: map[[sha256.Size]byte]identity{}, byName: map[string]*caller{}}
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
		for _, digest := range config.KeySHA256 {
			if other := set.byDigest[digest].caller; other != nil {
				return set, fmt.Errorf("callers %q and %q have the same key", other.name, c.name)
			}
			id := signer.KeyID(digest)
			set.byDigest[digest] = identity{c, id}
			c.keys = append(c.keys, id)
		}
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

// newRateLimiter allows perSecond requests per second, and burst at once. A
// burst of 0 is perSecond, but at least 1. The result is nil if perSecond is 0:
// there is no limit.
func newRateLimiter(perSecond, burst int) *rate.Limiter {
	if perSecond <= 0 {
		return nil
	}
	if burst <= 0 {
		burst = perSecond
	}
	return rate.NewLimiter(rate.Limit(perSecond), burst)
}

// sameRate reports whether two limiters, which may be nil, allow the same.
func sameRate(a, b *rate.Limiter) bool {
	return a != nil && b != nil && a.Limit() == b.Limit() && a.Burst() == b.Burst()
}

// takeRate counts a request, or returns after how long there will be room for
// one. It does not use Reserve, which allocates, also for requests that are
// allowed.
func takeRate(l *rate.Limiter, now time.Time) (wait time.Duration) {
	if l.AllowN(now, 1) {
		return 0
	}
	missing := 1 - l.TokensAt(now)
	// Never 0: another request can have been counted meanwhile.
	return max(time.Duration(missing/float64(l.Limit())*float64(time.Second)), 1)
}

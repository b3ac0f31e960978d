package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"wxproxy/wechat"
)

// callers checks the [[caller]] blocks, which are counted from 1. A wrong
// key_sha256 is never quoted: it is often the key itself.
func (v *validator) callers() {
	// The last block was removed, or a template made none. That alone does not
	// mean that the listener should be open, so it has to be confirmed.
	if v.emptyLists["caller"] && !v.cfg.Proxy.AllowAnonymous {
		v.fault("caller", "is an empty list, and without callers authentication is disabled; "+
			"add [[caller]] blocks (wxproxy key NAME creates one), or write "+
			"allow_anonymous = true in [proxy] if every client may use the listener")
	}
	names := map[string]int{}           // number of the first block with this name
	keys := map[[sha256.Size]byte]int{} // number of the first block with this key
	for i, caller := range v.cfg.Callers {
		block := fmt.Sprintf("caller[%d]", i+1)
		v.callerName(block+".name", caller.Name, names, i+1)
		v.callerKeys(block+".key_sha256", caller, keys, i+1)
		v.allowList("caller", block+".appids", caller.AppIDs, appIDProblem)
		v.allowList("caller", block+".paths", caller.Paths, callerPathProblem)
		v.allowList("caller", block+".methods", caller.Methods, func(s string) string {
			if methodForm.MatchString(s) {
				return ""
			}
			return `is not a method; write capital letters, such as "GET" or "POST"`
		})
		v.callerRate(block, caller)
	}
}

// reservedNames are the caller labels of metrics for requests without a known
// caller, and for callers beyond the limit of labels.
var reservedNames = map[string]bool{"anonymous": true, "unknown": true, "other": true}

var (
	// callerNameForm matches what is safe in a metric label, in a log line and
	// in a stand-in token.
	callerNameForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	methodForm     = regexp.MustCompile(`^[A-Z]{1,20}$`)
)

// callerName checks the name of the caller in the block with this number, and
// that no block in first has the same.
func (v *validator) callerName(key, name string, first map[string]int, number int) {
	switch {
	case name == "":
		v.empty(key, `write the name for metrics and logs, such as "orders"`)
	case !callerNameForm.MatchString(name):
		v.fault(key, "is not a valid name; write up to 64 letters, digits and . _ -")
	case reservedNames[name]:
		v.fault(key, "is %q, which metrics use for requests without a known caller; choose another name", name)
	case first[name] > 0:
		v.fault(key, "is the same as in caller[%d]; give each caller a different name", first[name])
	default:
		first[name] = number
	}
}

// callerKeys checks the keys of the caller in the block with this number, and
// that no block in first has one of them. Blocks are counted from 1.
func (v *validator) callerKeys(key string, c Caller, first map[[sha256.Size]byte]int, number int) {
	const want = "write the 64 hexadecimal digits that wxproxy key NAME prints"
	if len(c.KeySHA256) == 0 {
		if v.cfg.Proxy.ClientCAFile == "" && !v.isInvalid("proxy.client_ca_file") {
			v.empty(key, want)
		}
		return
	}
	for i, s := range c.KeySHA256 {
		element := c.KeySHA256.elementKey(key, i)
		digest, err := parseDigest(s)
		switch {
		case s == "":
			v.empty(element, want)
		case err != nil:
			v.fault(element, "is not a SHA-256; %s, and not the key itself", want)
		case digest == sha256.Sum256(nil):
			v.fault(element, "is the SHA-256 of an empty key; %s", want)
		case isWeak(digest, c.Name):
			v.fault(element, "is the SHA-256 of a key that is easy to guess; %s", want)
		case first[digest] == number:
			v.fault(element, "is in this list twice; remove one of them")
		case first[digest] > 0:
			v.fault(element, "is the same as in caller[%d]; give each caller a different key",
				first[digest])
		default:
			first[digest] = number
		}
	}
}

// weakKeys are texts that are chosen as keys for a trial, and then stay. The
// list catches carelessness only: the SHA-256 does not reveal how long a key
// is.
var weakKeys = []string{
	"key", "test", "secret", "password", "passwd", "changeme", "change-me", "default", "example",
	"admin", "root", "guest", "demo", "token", "wxproxy", "wechat", "weixin", "KEY",
	"1234", "12345", "123456", "12345678", "123456789", "1234567890", "qwerty", "abc123",
}

// isWeak reports whether digest is the SHA-256 of one of weakKeys, of the
// caller's name, or of one of them with the line break that echo adds.
func isWeak(digest [sha256.Size]byte, name string) bool {
	for _, key := range append(slices.Clip(weakKeys), name, "") {
		if digest == sha256.Sum256([]byte(key)) || digest == sha256.Sum256([]byte(key+"\n")) {
			return true
		}
	}
	return false
}

// KeyDigests returns the decoded SHA-256 of each key.
func (c Caller) KeyDigests() (digests [][sha256.Size]byte, err error) {
	for _, s := range c.KeySHA256 {
		digest, err := parseDigest(s)
		if err != nil {
			return nil, err
		}
		digests = append(digests, digest)
	}
	return digests, nil
}

// errDigest does not quote the text, which can be the key itself.
var errDigest = errors.New("not a SHA-256 of 64 hexadecimal digits")

// parseDigest returns the SHA-256 that s contains in hexadecimal digits.
func parseDigest(s string) (digest [sha256.Size]byte, err error) {
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != len(digest) {
		return digest, errDigest
	}
	return [sha256.Size]byte(raw), nil
}

// allowList checks a list in which "*" stands for everything. block is the name
// of the block that contains it. problem returns why an element is not valid,
// or "".
func (v *validator) allowList(block, key string, list []string, problem func(string) string) {
	if len(list) == 0 {
		v.fault(key, `is empty, which allows nothing; write ["*"] for everything, or remove the [[%s]] block`, block)
	}
	for i, s := range list {
		element := fmt.Sprintf("%s[%d]", key, i+1)
		switch p := problem(s); {
		case s == "*":
		case s == "":
			v.empty(element, `write what is allowed, or "*" for everything`)
		case p != "":
			v.fault(element, "%s", p)
		}
	}
}

// callerPathProblem returns why path cannot be in the allow-list of a caller,
// or "". The list is compared with the path that WeChat receives.
func callerPathProblem(path string) string {
	if problem := routePathProblem(path); problem != "" {
		return problem
	}
	first, _, _ := strings.Cut(path[1:], "/")
	if wechat.IsAppID(first) {
		return "starts with an appid; write the path that WeChat receives, and the accounts in appids"
	}
	return ""
}

// callerRate checks the rate limit of a caller.
func (v *validator) callerRate(block string, c Caller) {
	const limit = 1_000_000 // more than one process can serve
	switch {
	case c.Rate < 0 || c.Rate > limit:
		v.fault(block+".rate", "is out of range; write a number of requests a second up to %d, "+
			"or 0 for no limit", limit)
	case c.Burst < 0 || c.Burst > limit:
		v.fault(block+".burst", "is out of range; write a number of requests up to %d, "+
			"or 0 for the same as rate", limit)
	case c.Burst > 0 && c.Rate == 0 && !v.isInvalid(block+".rate"):
		v.fault(block+".burst", "is set, but there is no rate to exceed; set rate, or remove burst")
	}
}

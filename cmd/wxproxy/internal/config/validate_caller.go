package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
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
		v.callerKey(block+".key_sha256", caller, keys, i+1)
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

// callerKey checks the key of the caller in the block with this number, and
// that no block in first has the same.
func (v *validator) callerKey(key string, c Caller, first map[[sha256.Size]byte]int, number int) {
	const want = "write the 64 hexadecimal digits that wxproxy key NAME prints"
	if c.KeySHA256 == "" {
		if v.cfg.Proxy.ClientCAFile == "" && !v.isInvalid("proxy.client_ca_file") {
			v.empty(key, want)
		}
		return
	}
	digest, err := c.KeyDigest()
	switch {
	case err != nil:
		v.fault(key, "is not a SHA-256; %s, and not the key itself", want)
	case digest == sha256.Sum256(nil):
		v.fault(key, "is the SHA-256 of an empty key; %s", want)
	case first[digest] > 0:
		v.fault(key, "is the same as in caller[%d]; give each caller a different key", first[digest])
	default:
		first[digest] = number
	}
}

// KeyDigest returns the decoded SHA-256 of the key. It is zero, which is the
// digest of no known key, if the caller has none.
func (c Caller) KeyDigest() (digest [sha256.Size]byte, err error) {
	raw, err := hex.DecodeString(c.KeySHA256)
	if err == nil && len(raw) != 0 && len(raw) != len(digest) {
		err = hex.ErrLength
	}
	copy(digest[:], raw)
	return digest, err
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
		v.fault(block+".rate", "is %d; write a number of requests a second up to %d, or 0 for no limit",
			c.Rate, limit)
	case c.Burst < 0 || c.Burst > limit:
		v.fault(block+".burst", "is %d; write a number of requests up to %d, or 0 for the same as rate",
			c.Burst, limit)
	case c.Burst > 0 && c.Rate == 0 && !v.isInvalid(block+".rate"):
		v.fault(block+".burst", "is %d, but there is no rate to exceed; set rate, or remove burst", c.Burst)
	}
}

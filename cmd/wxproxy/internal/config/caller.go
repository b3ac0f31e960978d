package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"

	"wxproxy/wechat"
)

// callers checks who may call, and what. Blocks are counted from 1. Keys are not shown, nor what stands in the place
// of their SHA-256: it is often the key itself.
func (c *checker) callers() {
	names, keys := map[string]int{}, map[[sha256.Size]byte]int{} // → number of the block that has it
	for i, caller := range c.cfg.Callers {
		block := fmt.Sprintf("caller[%d]", i+1)
		c.callerName(block+".name", caller.Name, names, i+1)
		c.callerKey(block+".key_sha256", caller.KeySHA256, keys, i+1)
		c.allowed("caller", block+".appids", caller.AppIDs, func(s string) string {
			if !wechat.IsAppID(s) {
				return badAppID
			}
			return ""
		})
		c.allowed("caller", block+".paths", caller.Paths, badLimit)
		c.allowed("caller", block+".methods", caller.Methods, func(s string) string {
			if !methodForm.MatchString(s) {
				return `is no method; write capital letters, such as "GET" or "POST"`
			}
			return ""
		})
		c.callerRate(block, caller)
	}
}

// labels are the names that metrics have for calls without a caller, or for too many callers.
var labels = map[string]bool{"anonymous": true, "unknown": true, "other": true}

func (c *checker) callerName(key, name string, first map[string]int, number int) {
	switch {
	case name == "":
		c.empty(key, `write the name that metrics and logs are to show, such as "orders"`)
	case !callerNameForm.MatchString(name):
		c.fault(key, "is no name; write up to 64 letters, digits and . _ -")
	case labels[name]:
		c.fault(key, "is %q, which metrics use for calls that are nobody's; choose another name", name)
	case first[name] > 0:
		c.fault(key, "is that of caller[%d] too; give each caller a name of its own", first[name])
	default:
		first[name] = number
	}
}

func (c *checker) callerKey(key, digest string, first map[[sha256.Size]byte]int, number int) {
	const form = "write the 64 hexadecimal digits that wxproxy key NAME prints"
	if digest == "" {
		if c.cfg.Proxy.ClientCAFile == "" && !c.faulty("proxy.client_ca_file") {
			c.empty(key, form)
		}
		return
	}
	b, err := Caller{KeySHA256: digest}.KeyDigest()
	switch {
	case err != nil:
		c.fault(key, "is no SHA-256; %s: what is wanted is not the key itself", form)
	case b == sha256.Sum256(nil):
		c.fault(key, "is the SHA-256 of nothing; %s", form)
	case first[b] > 0:
		c.fault(key, "is that of caller[%d] too; give each caller a key of its own", first[b])
	default:
		first[b] = number
	}
}

// KeyDigest decodes key_sha256; "" gives zero, which is no key's.
func (c Caller) KeyDigest() (b [sha256.Size]byte, err error) {
	raw, err := hex.DecodeString(c.KeySHA256)
	if err == nil && len(raw) != 0 && len(raw) != len(b) {
		err = hex.ErrLength
	}
	copy(b[:], raw)
	return b, err
}

// allowed checks a list of what a block of that name allows, in which "*" stands for everything.
func (c *checker) allowed(block, key string, list []string, problem func(string) string) {
	if len(list) == 0 {
		c.fault(key, `is empty, so that nothing would be allowed; write ["*"] for everything, or remove the [[%s]] block`, block)
	}
	for i, s := range list {
		element := fmt.Sprintf("%s[%d]", key, i+1)
		switch p := problem(s); {
		case s == "*":
		case s == "":
			c.empty(element, `write what is allowed, or "*" for everything`)
		case p != "":
			c.fault(element, "%s", p)
		}
	}
}

// badLimit says why path can be no caller's limit. What is compared with it is the path that WeChat gets.
func badLimit(path string) string {
	if problem := badRoute(path); problem != "" {
		return problem
	}
	first, _, _ := strings.Cut(path[1:], "/")
	if wechat.IsAppID(first) {
		return "begins with an appid; write the path as WeChat gets it, without one, and the accounts in appids"
	}
	return ""
}

func (c *checker) callerRate(block string, caller Caller) {
	const most = 1_000_000 // more than one process can do
	switch {
	case caller.Rate < 0 || caller.Rate > most:
		c.fault(block+".rate", "is %d; write a number of requests a second up to %d, or 0 for no limit", caller.Rate, most)
	case caller.Burst < 0 || caller.Burst > most:
		c.fault(block+".burst", "is %d; write a number of requests up to %d, or 0 for as many as rate", caller.Burst, most)
	case caller.Burst > 0 && caller.Rate == 0 && !c.faulty(block+".rate"):
		c.fault(block+".burst", "is %d, and there is no rate that it could go beyond; set rate, or remove burst", caller.Burst)
	}
}

var (
	// callerNameForm: what is safe as a label, in a log, and within a stand-in.
	callerNameForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	methodForm     = regexp.MustCompile(`^[A-Z]{1,20}$`)
)

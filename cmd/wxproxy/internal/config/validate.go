package config

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"wxproxy/tokens/store/redis"
	"wxproxy/wechat"
)

// validator checks whether the values of a configuration are legal, each by
// itself and all together. Its checks are written by hand, because a fault has
// to say what to write instead, and most of them depend on several keys.
type validator struct {
	*decoded
	readFile func(path string) ([]byte, error)
	found    []fault
	warnings []Warning
}

// validate returns all faults of d, those of decoding first, and the warnings.
// readFile returns a file of at most fileLimit bytes.
func validate(d *decoded, readFile func(string) ([]byte, error)) ([]fault, []Warning) {
	v := &validator{decoded: d, readFile: readFile}
	v.component()
	v.proxy()
	v.callback()
	v.admin()
	v.ports()
	v.store()
	v.tokens()
	v.log()
	v.callers()
	v.apps()
	v.routes()
	v.forwards()
	return append(slices.Clip(d.faults), v.found...), v.warnings // Clip: d is not changed
}

// fault records what is wrong with the value of key. It does nothing if the
// value could not be decoded: the operator knows already, and the configuration
// has a default in its place.
func (v *validator) fault(key, problem string, args ...any) {
	if !v.isInvalid(key) {
		v.found = append(v.found, fault{Key: key, Problem: fmt.Sprintf(problem, args...)})
	}
}

// warn records a warning about key.
func (v *validator) warn(key, problem string, args ...any) {
	v.warnings = append(v.warnings, Warning{Key: key, Problem: fmt.Sprintf(problem, args...)})
}

// empty records that key needs a value, and which one.
func (v *validator) empty(key, want string) {
	if v.expanded[key] {
		v.fault(key, "is empty, because its ${…} is; %s", want)
		return
	}
	v.fault(key, "is empty; %s", want)
}

// badAppID is the problem of an appid in the wrong form. It does not quote the
// value, because operators often paste the secret in its place.
const badAppID = "is not an appid; write wx and 16 lower-case letters or digits, such as wx0123456789abcdef"

// appIDProblem returns badAppID, or "" if s is an appid.
func appIDProblem(s string) string {
	if wechat.IsAppID(s) {
		return ""
	}
	return badAppID
}

// component checks the third-party platform.
func (v *validator) component() {
	m := v.cfg.Component
	secrets := []struct {
		key   string
		value wechat.Secret
		name  string // "" if it is optional
	}{
		{"component.appsecret", m.AppSecret, "AppSecret"},
		{"component.message_token", m.MessageToken, "message verification token (消息校验Token)"},
		{"component.message_key", m.MessageKey, "message encryption key (消息加解密Key)"},
		{"component.previous_message_key", m.PreviousMessageKey, ""},
	}
	if m.AppID == "" {
		// A value that could not be decoded shows that a component is wanted.
		isWanted := slices.ContainsFunc(v.faults, func(f fault) bool {
			return f.Line > 0 && f.Key == "component" || strings.HasPrefix(f.Key, "component.")
		})
		for _, s := range secrets {
			isWanted = isWanted || !s.value.IsEmpty()
		}
		switch {
		case isWanted:
			v.empty("component.appid", "the rest of [component] needs it: fill it in, or remove [component]")
		case len(v.cfg.Apps) == 0 && !v.isInvalid("app"):
			v.empty("component.appid", "no account is configured: fill in [component], or add an [[app]] block "+
				"(wxproxy demo needs no configuration)")
		}
	} else if problem := appIDProblem(m.AppID); problem != "" {
		v.fault("component.appid", "%s", problem)
	}
	for _, s := range secrets {
		if s.value.IsEmpty() && s.name != "" && m.AppID != "" {
			v.empty(s.key, "copy the "+s.name+" from the page of your third-party platform on open.weixin.qq.com")
		} else {
			v.noSpaces(s.key, s.value)
		}
	}
	v.messageKey("component.message_key", m.MessageKey)
	v.messageKey("component.previous_message_key", m.PreviousMessageKey)
}

// messageKey checks an EncodingAESKey. Otherwise a wrong one would show only
// with WeChat's first push, up to ten minutes after the start.
func (v *validator) messageKey(key string, s wechat.Secret) {
	if s.IsEmpty() {
		return
	}
	const length = 43 // 32 bytes in base64, without the "=" at the end
	// The other two arguments are placeholders: they have their own checks.
	_, err := wechat.NewCrypt(wechat.NewSecret("token"), s, "appid")
	if n := len(s.Reveal()); n != length {
		v.fault(key, "has %d characters; an EncodingAESKey has %d: copy it again, without anything around it",
			n, length)
	} else if err != nil {
		v.fault(key, "is not an EncodingAESKey, which has %d letters and digits; copy it again", length)
	}
}

// noSpaces rejects white space, which is copied along with secrets by mistake.
// Line breaks were rejected earlier.
func (v *validator) noSpaces(key string, s wechat.Secret) {
	if strings.ContainsAny(s.Reveal(), " \u00a0\u3000\u200b\ufeff") {
		v.fault(key, "contains white space; copy it again, without anything around it")
	}
}

// sealingKeySize is the size in bytes of the key that encrypts the store.
const sealingKeySize = 32

var errSealingKey = errors.New("is not the base64 of 32 bytes; create one with: openssl rand -base64 32")

// SealingKey returns the decoded key, or nil if there is none and the store has
// to create its own.
func (s Store) SealingKey() ([]byte, error) { return decodeSealingKey(s.Key) }

// PreviousKeys returns the decoded keys that only open records: none or one.
func (s Store) PreviousKeys() ([][]byte, error) {
	b, err := decodeSealingKey(s.PreviousKey)
	if b == nil {
		return nil, err
	}
	return [][]byte{b}, nil
}

func decodeSealingKey(s wechat.Secret) ([]byte, error) {
	if s.IsEmpty() {
		return nil, nil
	}
	b, err := base64.StdEncoding.DecodeString(s.Reveal())
	if err != nil || len(b) != sealingKeySize {
		return nil, errSealingKey
	}
	return b, nil
}

// store checks the address of the store. It does not open the store. A URL
// that is not of a file is never quoted, because it may contain a password.
func (v *validator) store() {
	const key = "store.url"
	url := v.cfg.Store.URL
	path, isFile := strings.CutPrefix(url, "file:")
	switch {
	case url == "":
		v.empty(key, `write "file:PATH", "redis://HOST:6379", or "memory:" for trials`)
	case IsRedis(url):
		if err := redis.Check(url); err != nil {
			v.fault(key, "%v", err)
		}
		if v.cfg.Store.Key.IsEmpty() {
			v.empty("store.key", "a store in Redis needs one, the same in all processes that share it: "+
				"create it with: openssl rand -base64 32")
		}
	case isFile && path == "":
		v.fault(key, `has no path; write "file:PATH", such as "file:wxproxy.db"`)
	case isFile && strings.HasPrefix(path, "//") && !strings.HasPrefix(path, "///"):
		// As a URL it would name a host, as a path it would start at the root.
		// Neither is meant.
		v.fault(key, `has two slashes after "file:"; write "file:/absolute/path" or "file:relative/path"`)
	case !isFile && url != "memory:":
		v.fault(key, `is of an unknown kind; write "file:PATH", "redis://HOST:6379", or "memory:" for trials`)
	}
	if _, err := v.cfg.Store.SealingKey(); err != nil {
		v.fault("store.key", "%v", err)
	}
	v.previousKey()
}

// previousKey checks the key that only opens records.
func (v *validator) previousKey() {
	const key = "store.previous_key"
	s := v.cfg.Store
	previous, err := s.PreviousKeys()
	current, _ := s.SealingKey()
	switch {
	case err != nil:
		v.fault(key, "%v", err)
	case previous == nil:
	case s.Key.IsEmpty():
		v.fault(key, "needs store.key, the new key; create one with: openssl rand -base64 32")
	case bytes.Equal(previous[0], current):
		v.fault(key, "is the same as store.key; write the key before it, or remove it")
	}
}

// IsRedis reports whether a store URL is one of the forms for Redis, such as
// rediss+sentinel://HOST.
func IsRedis(url string) bool {
	scheme, _, _ := strings.Cut(url, ":")
	scheme, _, _ = strings.Cut(scheme, "+")
	return scheme == "redis" || scheme == "rediss"
}

// tokens checks the limits of renewal and cache. Renewing earlier than the
// lifetime of a token would renew all the time, and a cache of a few accounts
// would send every request to the store. Each request of wxproxy's own takes a
// file that callers could use.
func (v *validator) tokens() {
	const lifetime = 2 * time.Hour // of a token at WeChat
	if d := time.Duration(v.cfg.Tokens.RenewBefore); d <= 0 || d >= lifetime {
		v.fault("tokens.renew_before", `is out of range; write more than 0 and less than 2h, `+
			`which is how long a token is valid, such as "10m"`)
	}
	const minSize, maxSize = 100, 100_000_000
	if n := v.cfg.Tokens.CacheSize; n < minSize || n > maxSize {
		v.fault("tokens.cache_size", "is out of range; write a number of accounts from %d to %d",
			minSize, maxSize)
	}
	const maxOwnCalls = 1000
	if n := v.cfg.Tokens.OwnCalls; n < 1 || n > maxOwnCalls {
		v.fault("tokens.own_calls", "is out of range; write a number of requests from 1 to %d",
			maxOwnCalls)
	}
}

// log checks the level and the format.
func (v *validator) log() {
	v.oneOf("log.level", v.cfg.Log.Level, "debug", "info", "warn", "error")
	v.oneOf("log.format", v.cfg.Log.Format, "text", "json")
}

// oneOf checks that value is one of words.
func (v *validator) oneOf(key, value string, words ...string) {
	if slices.Contains(words, value) {
		return
	}
	var all []string
	for _, w := range words {
		all = append(all, strconv.Quote(w))
	}
	last := len(all) - 1
	v.fault(key, "is none of the known words; write %s or %s",
		strings.Join(all[:last], ", "), all[last])
}

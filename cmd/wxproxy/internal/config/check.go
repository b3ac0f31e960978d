package config

import (
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

// checker says whether values that were read make sense, each for itself and all together.
type checker struct {
	*decoded
	readFile func(path string) ([]byte, error)
	found    []fault
	warnings []Warning
}

// check gives all faults of d, those of reading first, and what the operator should be warned of.
func check(d *decoded, readFile func(string) ([]byte, error)) ([]fault, []Warning) {
	c := &checker{decoded: d, readFile: readFile}
	c.component()
	c.proxy()
	c.callback()
	c.admin()
	c.ports()
	c.store()
	c.tokens()
	c.log()
	c.callers()
	c.apps()
	c.routes()
	c.forwards()
	// Clip: d stays as it was.
	return append(slices.Clip(d.faults), c.found...), c.warnings
}

// fault reports what is wrong with key, unless its value could not even be read: what stands
// in the configuration is then a default, and the operator knows already.
func (c *checker) fault(key, problem string, args ...any) {
	if !c.faulty(key) {
		c.found = append(c.found, fault{key, fmt.Sprintf(problem, args...)})
	}
}

// shown is a value as it stands in the file. What a variable or a file puts in is not shown: it may
// be a secret that got into the wrong place.
func (c *checker) shown(key, value string) string {
	if written, ok := c.written[key]; ok {
		return quoted(written)
	}
	return quoted(value)
}

// empty says that a key is needed, and what for.
func (c *checker) empty(key, why string) {
	if written, ok := c.written[key]; ok {
		c.fault(key, "is empty, as what %s stands for is; %s", quoted(written), why)
		return
	}
	c.fault(key, "is empty; %s", why)
}

// component checks the third-party platform. Appids are not shown when they are wrong: in their place there is
// often the secret.
func (c *checker) component() {
	m := c.cfg.Component
	secrets := []struct {
		key   string
		value wechat.Secret
		what  string // "" where it may be missing
	}{
		{"component.appsecret", m.AppSecret, "AppSecret"},
		{"component.message_token", m.MessageToken, "message verification token (消息校验Token)"},
		{"component.message_key", m.MessageKey, "message encryption key (消息加解密Key)"},
		{"component.previous_message_key", m.PreviousMessageKey, ""},
	}
	if m.AppID == "" {
		// A value that could not be read is no value, but its writer meant to have a component.
		stray := slices.ContainsFunc(c.faults, func(f fault) bool { return strings.HasPrefix(f.Key, "component.") })
		for _, s := range secrets {
			stray = stray || !s.value.IsEmpty()
		}
		switch {
		case stray:
			c.empty("component.appid", "the rest of [component] is of no use without it: fill it in, or remove [component]")
		case len(c.cfg.Apps) == 0 && !c.faulty("app"):
			c.empty("component.appid", "nothing is configured that calls could be made for: fill in [component], or add an [[app]] block (wxproxy demo needs no configuration)")
		}
	} else if !wechat.IsAppID(m.AppID) {
		c.fault("component.appid", "%s", badAppID)
	}
	for _, s := range secrets {
		if s.value.IsEmpty() && s.what != "" && m.AppID != "" {
			c.empty(s.key, "copy the "+s.what+" from the page of your third-party platform on open.weixin.qq.com")
		} else {
			c.plain(s.key, s.value)
		}
	}
	c.messageKey("component.message_key", m.MessageKey)
	c.messageKey("component.previous_message_key", m.PreviousMessageKey)
}

// messageKey checks an EncodingAESKey by trying it. A wrong one would show only when WeChat's first push
// cannot be decrypted, ten minutes after the start.
func (c *checker) messageKey(key string, s wechat.Secret) {
	if s.IsEmpty() {
		return
	}
	const length = 43 // 32 bytes in base64, without the "=" at its end
	// Only the key is tried: token and appid have sentences of their own.
	_, err := wechat.NewCrypt(wechat.NewSecret("token"), s, "appid")
	if n := len(s.Reveal()); n != length {
		c.fault(key, "has %d characters; an EncodingAESKey has %d: copy it again, without anything around it", n, length)
	} else if err != nil {
		c.fault(key, "is no EncodingAESKey; its %d characters must all be letters and digits: copy it again", length)
	}
}

// plain refuses what slips in when secrets are copied. Single lines they are already.
func (c *checker) plain(key string, s wechat.Secret) {
	if strings.ContainsAny(s.Reveal(), " \u00a0\u3000\u200b\ufeff") {
		c.fault(key, "has white space in it; copy it again, without anything around it")
	}
}

// sealingKeySize is the length of the key that seals what is stored, in bytes.
const sealingKeySize = 32

var errSealingKey = errors.New("is not the base64 of 32 bytes; make one with: openssl rand -base64 32")

// SealingKey decodes store.key. No key gives nil: the store then makes its own.
func (s Store) SealingKey() ([]byte, error) {
	if s.Key.IsEmpty() {
		return nil, nil
	}
	b, err := base64.StdEncoding.DecodeString(s.Key.Reveal())
	if err != nil || len(b) != sealingKeySize {
		return nil, errSealingKey
	}
	return b, nil
}

// store checks where things are kept; whether that can be opened is seen when it is. A URL that is not of
// a file is not shown: it may have a password in it.
func (c *checker) store() {
	const key = "store.url"
	url := c.cfg.Store.URL
	path, isFile := strings.CutPrefix(url, "file:")
	switch {
	case url == "":
		c.empty(key, `write "file:PATH", "redis://HOST:6379", or "memory:" for trials`)
	case IsRedis(url):
		if err := redis.Check(url); err != nil {
			c.fault(key, "%v", err)
		}
		if c.cfg.Store.Key.IsEmpty() {
			c.empty("store.key", "a store in Redis is sealed with it, by all processes that share it with the same: make one with: openssl rand -base64 32")
		}
	case isFile && path == "":
		c.fault(key, `has no path; write "file:PATH", such as "file:wxproxy.db"`)
	case isFile && strings.HasPrefix(path, "//") && !strings.HasPrefix(path, "///"):
		// Read as a URL it names a host, read as a path it begins at the root. Neither was meant.
		c.fault(key, `has two slashes behind "file:"; write "file:/absolute/path" or "file:relative/path"`)
	case !isFile && url != "memory:":
		c.fault(key, `is of no kind that wxproxy knows; write "file:PATH", "redis://HOST:6379", or "memory:" for trials`)
	}
	if _, err := c.cfg.Store.SealingKey(); err != nil {
		c.fault("store.key", "%v", err)
	}
}

// IsRedis: in one of its forms, such as rediss+sentinel://.
func IsRedis(url string) bool {
	scheme, _, _ := strings.Cut(url, ":")
	scheme, _, _ = strings.Cut(scheme, "+")
	return scheme == "redis" || scheme == "rediss"
}

// tokens keeps both numbers within what works: a renewal earlier than a token's whole life would renew
// all the time, and a cache of a few entries would send every call to the store.
func (c *checker) tokens() {
	const longest = 2 * time.Hour // the life of a token at WeChat
	if d := time.Duration(c.cfg.Tokens.RenewBefore); d <= 0 || d >= longest {
		c.fault("tokens.renew_before", `is %v; write more than 0 and less than 2h, which is how long a token lives, such as "10m"`, Duration(d))
	}
	const few, many = 100, 100_000_000
	if n := c.cfg.Tokens.CacheSize; n < few || n > many {
		c.fault("tokens.cache_size", "is %d; write a number of accounts from %d to %d", n, few, many)
	}
}

// log wants words that slog has; without them nothing would be logged, or everything.
func (c *checker) log() {
	c.oneOf("log.level", c.cfg.Log.Level, "debug", "info", "warn", "error")
	c.oneOf("log.format", c.cfg.Log.Format, "text", "json")
}

// oneOf wants one of the words.
func (c *checker) oneOf(key, value string, words ...string) {
	if slices.Contains(words, value) {
		return
	}
	var all []string
	for _, w := range words {
		all = append(all, strconv.Quote(w))
	}
	last := len(all) - 1
	c.fault(key, "is %s; write %s or %s", c.shown(key, value), strings.Join(all[:last], ", "), all[last])
}

// apps checks the own accounts. Blocks are counted from 1.
func (c *checker) apps() {
	first := map[string]int{} // appid → number of the block that has it
	for i, a := range c.cfg.Apps {
		block := fmt.Sprintf("app[%d]", i+1)
		key := block + ".appid"
		switch {
		case a.AppID == "":
			c.empty(key, "fill in the account's appid, or remove the block")
		case !wechat.IsAppID(a.AppID):
			c.fault(key, "%s", badAppID)
		// One appid is one account: with two secrets nobody could tell whose token a call gets.
		case a.AppID == c.cfg.Component.AppID:
			c.fault(key, "is the component's own; remove the block: [component] has its secret")
		case first[a.AppID] > 0:
			c.fault(key, "is that of app[%d] too; remove one of the blocks", first[a.AppID])
		default:
			first[a.AppID] = i + 1
		}
		if a.AppSecret.IsEmpty() {
			c.empty(block+".appsecret", "copy the account's AppSecret from mp.weixin.qq.com, or remove the block")
		} else {
			c.plain(block+".appsecret", a.AppSecret)
		}
	}
}

// knowsApp reports whether there is an [[app]] block for appid.
func (c *checker) knowsApp(appid string) bool {
	return slices.ContainsFunc(c.cfg.Apps, func(a App) bool { return a.AppID == appid })
}

const badAppID = "is no appid; write wx and 16 lower-case letters or digits, such as wx0123456789abcdef"

// Package config reads the configuration file of wxproxy and checks it. All
// faults are reported at once, and no report contains a secret.
package config

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"time"

	"wxproxy/wechat"
)

// Config is the configuration file. The toml tags are its keys, and
// config.example.toml explains each of them. [Load] returns a Config that was
// checked. The zero value is not valid.
type Config struct {
	Component Component `toml:"component"`
	Proxy     Proxy     `toml:"proxy"`
	Callback  Callback  `toml:"callback"`
	Admin     Admin     `toml:"admin"`
	Store     Store     `toml:"store"`
	Tokens    Tokens    `toml:"tokens"`
	Log       Log       `toml:"log"`
	Callers   []Caller  `toml:"caller"`
	Apps      []App     `toml:"app"`
	Routes    []Route   `toml:"route"`
	Forwards  []Forward `toml:"forward"`
}

// Component is the third-party platform. Its zero value means that there is
// none and only own accounts are served.
type Component struct {
	AppID              string        `toml:"appid"`
	AppSecret          wechat.Secret `toml:"appsecret"`
	MessageToken       wechat.Secret `toml:"message_token"`
	MessageKey         wechat.Secret `toml:"message_key"`          // EncodingAESKey
	PreviousMessageKey wechat.Secret `toml:"previous_message_key"` // empty: the key was never changed
}

// Proxy is the listener for callers, and the connection to WeChat.
type Proxy struct {
	Listen         string   `toml:"listen"`
	Upstream       string   `toml:"upstream"`
	UpstreamCAFile string   `toml:"upstream_ca_file"` // "": only the system's certificates
	DefaultAppID   string   `toml:"default_appid"`    // "": requests must name an account
	Timeout        Duration `toml:"timeout"`
	MaxRequestBody Size     `toml:"max_request_body"`
	AllowAnonymous bool     `toml:"allow_anonymous"`
	Hosts          []string `toml:"hosts"`           // "*": any; not checked if there are callers
	ForwardHeaders []string `toml:"forward_headers"` // besides those that are always forwarded
	TLSCertFile    string   `toml:"tls_cert_file"`   // "": plain HTTP
	TLSKeyFile     string   `toml:"tls_key_file"`    // "": plain HTTP
	ClientCAFile   string   `toml:"client_ca_file"`  // "": no client certificates
}

// Callback is the listener for WeChat and for merchants, which the internet
// can reach.
type Callback struct {
	Listen    string   `toml:"listen"`
	PublicURL string   `toml:"public_url"` // "": the authorization pages are disabled
	ReturnTo  []string `toml:"return_to"`  // empty: merchants are not redirected
	MaxAge    Duration `toml:"max_age"`
}

// Admin is the listener for operators and for Prometheus.
type Admin struct {
	Listen         string        `toml:"listen"`
	Key            wechat.Secret `toml:"key"` // empty: authentication is disabled
	AllowAnonymous bool          `toml:"allow_anonymous"`
}

// Store is where tickets and tokens are kept.
type Store struct {
	URL string        `toml:"url"`
	Key wechat.Secret `toml:"key"` // base64 of 32 bytes; empty: a key file beside the store
	// PreviousKey opens records that were sealed before the key was changed.
	PreviousKey wechat.Secret `toml:"previous_key"` // empty: the key was never changed
}

// Tokens controls the renewal and the cache of access tokens.
type Tokens struct {
	RenewBefore Duration `toml:"renew_before"`
	CacheSize   int      `toml:"cache_size"` // in accounts
	OwnCalls    int      `toml:"own_calls"`  // requests of wxproxy's own at one time
}

// Log controls what is logged to stderr.
type Log struct {
	Level  string `toml:"level"`  // "debug", "info", "warn" or "error"
	Format string `toml:"format"` // "text" or "json"
}

// Caller is a client that is allowed to send requests, and its permissions. If
// there is at least one, every request needs a key or a client certificate.
type Caller struct {
	Name      string    `toml:"name"`
	KeySHA256 OneOrMore `toml:"key_sha256"` // hexadecimal; empty: a client certificate is needed
	AppIDs    []string  `toml:"appids"`     // "*" in this list and the next two allows everything
	Paths     []string  `toml:"paths"`
	Methods   []string  `toml:"methods"`
	Rate      int       `toml:"rate"`  // requests a second; 0: no limit
	Burst     int       `toml:"burst"` // requests at once; 0: the same as Rate
}

// OneOrMore is a list of strings that the file can contain as a list, or as a
// string if there is one element only. An empty string is an empty list.
type OneOrMore []string

// elementKey returns the key of the element with index i in faults.
func (l OneOrMore) elementKey(key string, i int) string {
	if len(l) < 2 {
		return key
	}
	return fmt.Sprintf("%s[%d]", key, i+1)
}

// App is an own account, which is not authorized to the component: wxproxy has
// its app secret.
type App struct {
	AppID     string        `toml:"appid"`
	AppSecret wechat.Secret `toml:"appsecret"`
	// Both verify and decrypt WeChat's pushes to /{appid}/events. Without
	// MessageKey pushes in plain mode are accepted.
	MessageToken wechat.Secret `toml:"message_token"`
	MessageKey   wechat.Secret `toml:"message_key"` // EncodingAESKey
}

// Route is a rule of the operator about which token a path needs. Routes come
// before the table of package wechat, and the first match decides.
type Route struct {
	Path      string `toml:"path"`
	Token     string `toml:"token"` // "account", "component", "none" or "refuse"
	Parameter string `toml:"parameter"`
}

// Forward is a service that receives messages and events. The first match
// decides.
type Forward struct {
	AppIDs []string `toml:"appids"` // "*" in this list and the next one matches everything
	Events []string `toml:"events"` // InfoTypes, MsgTypes or Events; case does not matter
	URL    string   `toml:"url"`

	Name   string        `toml:"name"`   // for the queue, metrics and the log
	Mode   string        `toml:"mode"`   // "reply", "queue" or "raw"; see callback.Mode
	Keep   Duration      `toml:"keep"`   // how long a queued event is tried
	Secret wechat.Secret `toml:"secret"` // signs deliveries
	Token  wechat.Secret `toml:"token"`  // signs them as WeChat's plain mode does
}

// Default returns the values of keys that the file does not contain. It is the
// only place for defaults. It is not valid by itself: there is no account.
func Default() Config {
	return Config{
		Proxy: Proxy{
			Listen:         "127.0.0.1:8080",
			Upstream:       "https://api.weixin.qq.com",
			Timeout:        Duration(60 * time.Second),
			MaxRequestBody: 32 << 20,
		},
		Callback: Callback{Listen: "127.0.0.1:8081", MaxAge: Duration(15 * time.Minute)},
		Admin:    Admin{Listen: "127.0.0.1:8082"},
		Store:    Store{URL: "file:wxproxy.db"},
		Tokens:   Tokens{RenewBefore: Duration(10 * time.Minute), CacheSize: 100_000, OwnCalls: 64},
		Log:      Log{Level: "info", Format: "text"},
	}
}

// setDefaults sets the values of keys that a [[caller]] block does not contain.
func (c *Caller) setDefaults() {
	*c = Caller{AppIDs: []string{"*"}, Paths: []string{"*"}, Methods: []string{"*"}}
}

// setDefaults sets the values of keys that a [[route]] block does not
// contain.
func (r *Route) setDefaults() {
	*r = Route{Token: "account", Parameter: wechat.AccessToken}
}

// setDefaults sets the values of keys that a [[forward]] block does not
// contain.
func (f *Forward) setDefaults() {
	*f = Forward{
		AppIDs: []string{"*"}, Events: []string{"*"},
		Mode: "reply", Keep: Duration(72 * time.Hour),
	}
}

// Load reads and checks the file at path. An error has one line for each fault.
// Each line starts with path, and none contains a secret. Warnings are about
// values that are legal but probably not meant. Load is safe for concurrent
// use.
func Load(path string, getenv func(string) (string, bool)) (Config, []Warning, error) {
	// Not ReadFile, which rejects pipes: the configuration may come from one,
	// as in --config <(…).
	f, err := os.Open(path)
	if err != nil {
		return Config{}, nil, fmt.Errorf("%s: cannot be read: %w", path, withoutPath(err))
	}
	defer f.Close()
	text, err := readLimited(f)
	if err != nil {
		return Config{}, nil, fmt.Errorf("%s: cannot be read: %w", path, withoutPath(err))
	}
	return parse(path, text, sources{getenv: getenv, readFile: ReadFile})
}

// parse is Load for a text that was read already. name stands for the path.
func parse(name string, text []byte, from sources) (Config, []Warning, error) {
	// Some editors write a byte order mark, which is not valid in TOML.
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	tree, err := readTOML(text)
	if err != nil {
		return Config{}, nil, fmt.Errorf("%s:%w", name, err)
	}
	d := decode(tree, from, func() map[string]int { return keyLines(text) })
	faults, warnings := validate(d, from.readFile)
	if len(faults) > 0 {
		return Config{}, nil, &Error{name: name, faults: faults}
	}
	return d.cfg, warnings, nil
}

// fault is one thing that is wrong with a configuration.
type fault struct {
	// Key is the path of the key, such as "component.appid" or "route[2].token"
	// for the second [[route]] block.
	Key string
	// Line is where the fault is, or 0 if Key says it. An unknown key has one,
	// because its name is not printed.
	Line int
	// Problem says what is wrong with the value, and what to write instead. It
	// contains nothing that is in the file, except for the names of known keys
	// and of environment variables. Anything else can be a secret that was
	// written in the wrong place: a caller's key in key_sha256, a password in a
	// URL, a value in the place of a name.
	Problem string
}

// String returns the key, the line and the problem.
func (f fault) String() string {
	where := f.Key
	if f.Line > 0 {
		where = strings.TrimPrefix(fmt.Sprintf("%s, line %d", f.Key, f.Line), ", ")
	}
	return where + ": " + f.Problem
}

// Warning is about a value that is legal but probably not meant.
type Warning fault

// String returns the key and the problem.
func (w Warning) String() string { return fault(w).String() }

// Error contains everything that is wrong with a configuration: at least one
// fault.
type Error struct {
	name   string // of the file
	faults []fault
}

// Error returns one line for each fault.
func (e *Error) Error() string {
	lines := make([]string, len(e.faults))
	for i, f := range e.faults {
		lines[i] = e.name + ": " + f.String()
	}
	return strings.Join(lines, "\n")
}

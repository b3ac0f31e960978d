package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"wxproxy/wechat"
)

// config is the configuration file, key by key: the toml tags are the keys. What reads it into this
// form is parse; what says whether it makes sense is check. config.example.toml
// explains every key to the operator.
type config struct {
	Component componentConfig `toml:"component"`
	Proxy     proxyConfig     `toml:"proxy"`
	Callback  callbackConfig  `toml:"callback"`
	Admin     adminConfig     `toml:"admin"`
	Store     storeConfig     `toml:"store"`
	Tokens    tokensConfig    `toml:"tokens"`
	Log       logConfig       `toml:"log"`
	Callers   []callerConfig  `toml:"caller"`
	Apps      []appConfig     `toml:"app"`
	Routes    []routeConfig   `toml:"route"`
	Forwards  []forwardConfig `toml:"forward"`
}

// componentConfig is the third-party platform. All of it empty: only own accounts are served.
type componentConfig struct {
	AppID              string        `toml:"appid"`
	AppSecret          wechat.Secret `toml:"appsecret"`
	MessageToken       wechat.Secret `toml:"message_token"`
	MessageKey         wechat.Secret `toml:"message_key"`          // EncodingAESKey
	PreviousMessageKey wechat.Secret `toml:"previous_message_key"` // empty: there was none
}

// proxyConfig is the listener of the callers, and WeChat behind it.
type proxyConfig struct {
	Listen         string   `toml:"listen"`
	Upstream       string   `toml:"upstream"`
	UpstreamCAFile string   `toml:"upstream_ca_file"` // "": the system's roots alone
	DefaultAppID   string   `toml:"default_appid"`    // "": calls that name no account are refused
	Timeout        duration `toml:"timeout"`
	MaxRequestBody size     `toml:"max_request_body"`
	AllowAnonymous bool     `toml:"allow_anonymous"`
	TLSCertFile    string   `toml:"tls_cert_file"` // "" here and below: plain HTTP
	TLSKeyFile     string   `toml:"tls_key_file"`
	ClientCAFile   string   `toml:"client_ca_file"` // "": nobody is asked for a certificate
}

// callbackConfig is the listener that the internet reaches.
type callbackConfig struct {
	Listen    string   `toml:"listen"`
	PublicURL string   `toml:"public_url"` // "": unknown
	ReturnTo  []string `toml:"return_to"`  // none: nobody is sent anywhere
}

// adminConfig is the listener of the operators.
type adminConfig struct {
	Listen         string        `toml:"listen"`
	Key            wechat.Secret `toml:"key"` // empty: nobody is asked for one
	AllowAnonymous bool          `toml:"allow_anonymous"`
}

// storeConfig says where grants and tickets are kept.
type storeConfig struct {
	URL string        `toml:"url"`
	Key wechat.Secret `toml:"key"` // base64 of 32 bytes; empty: made beside the file
}

// tokensConfig says how tokens are renewed and remembered.
type tokensConfig struct {
	RenewBefore duration `toml:"renew_before"`
	CacheSize   int      `toml:"cache_size"` // accounts
}

// logConfig says what is logged to stderr, and how.
type logConfig struct {
	Level  string `toml:"level"`
	Format string `toml:"format"`
}

// callerConfig is one who may call, and what it may do, [[caller]]. With such blocks every call needs a key.
type callerConfig struct {
	Name      string   `toml:"name"`
	KeySHA256 string   `toml:"key_sha256"` // in hexadecimal digits; "": it comes with a client certificate
	AppIDs    []string `toml:"appids"`     // "*" in this list and the next ones: all
	Paths     []string `toml:"paths"`
	Methods   []string `toml:"methods"`
	Rate      int      `toml:"rate"`  // requests a second; 0: no limit
	Burst     int      `toml:"burst"` // 0: as many as rate
}

// appConfig is an own account: one whose app secret we hold, [[app]].
type appConfig struct {
	AppID     string        `toml:"appid"`
	AppSecret wechat.Secret `toml:"appsecret"`
}

// routeConfig is an operator's rule that comes before the table of paths, [[route]].
type routeConfig struct {
	Path      string `toml:"path"`
	Token     string `toml:"token"`
	Parameter string `toml:"parameter"`
}

// forwardConfig is a service that gets messages and events, [[forward]]. The first block that fits decides.
type forwardConfig struct {
	AppIDs []string `toml:"appids"` // "*" in this list and the next: all
	Events []string `toml:"events"` // InfoTypes, MsgTypes or Events, without regard to case
	URL    string   `toml:"url"`
}

// defaultConfig is the one place of defaults: what holds for every key that the file does not
// have. It is no configuration to serve with, as nothing stands in for an appid.
func defaultConfig() config {
	return config{
		Proxy: proxyConfig{
			Listen: "127.0.0.1:8080", Upstream: "https://api.weixin.qq.com",
			Timeout: duration(60 * time.Second), MaxRequestBody: 32 << 20,
		},
		Callback: callbackConfig{Listen: "127.0.0.1:8081"},
		Admin:    adminConfig{Listen: "127.0.0.1:8082"},
		Store:    storeConfig{URL: "file:wxproxy.db"},
		Tokens:   tokensConfig{RenewBefore: duration(10 * time.Minute), CacheSize: 100_000},
		Log:      logConfig{Level: "info", Format: "text"},
	}
}

// setDefaults is the same for the keys that a [[caller]] block does not have.
func (c *callerConfig) setDefaults() {
	*c = callerConfig{AppIDs: []string{"*"}, Paths: []string{"*"}, Methods: []string{"*"}}
}

// setDefaults is the same for the keys that a [[route]] block does not have.
func (r *routeConfig) setDefaults() {
	*r = routeConfig{Token: "account", Parameter: wechat.AccessToken}
}

// setDefaults is the same for the keys that a [[forward]] block does not have.
func (f *forwardConfig) setDefaults() {
	*f = forwardConfig{AppIDs: []string{"*"}, Events: []string{"*"}}
}

const (
	// fileLimit bounds every file that the configuration is made of, in bytes: itself, what
	// ${file:…} names, and certificates. The TOML library takes time by the square of the number of tables:
	// a file of 60,000, which nobody has, keeps it busy for seconds.
	fileLimit = 1 << 20
	// expansionLimit bounds what all ${…} of one configuration may put in, in bytes, so that one
	// large file named a thousand times does not fill the memory.
	expansionLimit = 16 << 20
)

// sources are the places outside of the file that a configuration draws on.
type sources struct {
	getenv func(string) (string, bool)
	// readFile returns a file of fileLimit bytes at most. Its errors do not name the file.
	readFile func(path string) ([]byte, error)
}

// loadConfig reads and checks the file at path. The error holds everything that is wrong, one
// sentence a line, each with the path of the file in front and none with a secret in it; the
// configuration is then the zero one. Warnings are for the operator to read: they stop nothing.
func loadConfig(path string, getenv func(string) (string, bool)) (config, []warning, error) {
	// Not readFile, which takes regular files only: a configuration may come through a pipe.
	f, err := os.Open(path)
	if err != nil {
		return config{}, nil, fmt.Errorf("%s: cannot be read: %w", path, withoutPath(err))
	}
	defer f.Close()
	text, err := readLimited(f)
	if err != nil {
		return config{}, nil, fmt.Errorf("%s: cannot be read: %w", path, withoutPath(err))
	}
	return parseConfig(path, text, sources{getenv: getenv, readFile: readFile})
}

// parseConfig is loadConfig for a text that was read already; name stands for the path.
func parseConfig(name string, text []byte, from sources) (config, []warning, error) {
	// Some editors begin a file with a byte order mark, which TOML does not know.
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	tree, err := readTOML(text)
	if err != nil {
		return config{}, nil, fmt.Errorf("%s:%w", name, err)
	}
	d := decode(tree, from)
	faults, warnings := check(d, from.readFile)
	if len(faults) > 0 {
		return config{}, nil, &configError{name: name, faults: faults}
	}
	return d.cfg, warnings, nil
}

// fault is one thing that is wrong with a configuration.
type fault struct {
	key     string // its path as in the file: "component.appid", "route[2].token" (the second block)
	problem string // what is wrong with its value, and what to do about it
}

func (f fault) String() string { return f.key + ": " + f.problem }

// warning is something that works and that the operator should know of all the same.
type warning fault

func (w warning) String() string { return fault(w).String() }

// configError is all that is wrong with one configuration. There is at least one fault.
type configError struct {
	name   string
	faults []fault
}

// Error gives one line for each fault.
func (e *configError) Error() string {
	lines := make([]string, len(e.faults))
	for i, f := range e.faults {
		lines[i] = e.name + ": " + f.String()
	}
	return strings.Join(lines, "\n")
}

var (
	errFileTooLarge = fmt.Errorf("it has more than %v", size(fileLimit))
	errNoFile       = errors.New("it is not a regular file")
)

// readFile is the readFile of [sources]. It takes regular files (and links to them) only:
// opening a pipe would wait for ever for somebody to write into it.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, withoutPath(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errNoFile
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, withoutPath(err)
	}
	defer f.Close()
	return readLimited(f)
}

// readLimited reads all of r, or fails where that is more than fileLimit; it never holds much more.
func readLimited(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, fileLimit+1))
	switch {
	case err != nil:
		return nil, withoutPath(err)
	case len(b) > fileLimit:
		return nil, errFileTooLarge
	}
	return b, nil
}

// withoutPath strips the file's name from an error of package os: whoever prints the error says it
// in the spelling of the configuration, where it may be a variable.
func withoutPath(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

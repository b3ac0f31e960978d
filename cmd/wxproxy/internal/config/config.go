package config

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

// Config is the configuration file, key by key: the toml tags are the keys. What reads it into this
// form is parse; what says whether it makes sense is check. Config.example.toml
// explains every key to the operator.
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

// Component is the third-party platform. All of it empty: only own accounts are served.
type Component struct {
	AppID              string        `toml:"appid"`
	AppSecret          wechat.Secret `toml:"appsecret"`
	MessageToken       wechat.Secret `toml:"message_token"`
	MessageKey         wechat.Secret `toml:"message_key"`          // EncodingAESKey
	PreviousMessageKey wechat.Secret `toml:"previous_message_key"` // empty: there was none
}

// Proxy is the listener of the callers, and WeChat behind it.
type Proxy struct {
	Listen         string   `toml:"listen"`
	Upstream       string   `toml:"upstream"`
	UpstreamCAFile string   `toml:"upstream_ca_file"` // "": the system's roots alone
	DefaultAppID   string   `toml:"default_appid"`    // "": calls that name no account are refused
	Timeout        Duration `toml:"timeout"`
	MaxRequestBody Size     `toml:"max_request_body"`
	AllowAnonymous bool     `toml:"allow_anonymous"`
	TLSCertFile    string   `toml:"tls_cert_file"` // "" here and below: plain HTTP
	TLSKeyFile     string   `toml:"tls_key_file"`
	ClientCAFile   string   `toml:"client_ca_file"` // "": nobody is asked for a certificate
}

// Callback is the listener that the internet reaches.
type Callback struct {
	Listen    string   `toml:"listen"`
	PublicURL string   `toml:"public_url"` // "": unknown
	ReturnTo  []string `toml:"return_to"`  // none: nobody is sent anywhere
}

// Admin is the listener of the operators.
type Admin struct {
	Listen         string        `toml:"listen"`
	Key            wechat.Secret `toml:"key"` // empty: nobody is asked for one
	AllowAnonymous bool          `toml:"allow_anonymous"`
}

// Store says where grants and tickets are kept.
type Store struct {
	URL string        `toml:"url"`
	Key wechat.Secret `toml:"key"` // base64 of 32 bytes; empty: made beside the file
}

// Tokens says how tokens are renewed and remembered.
type Tokens struct {
	RenewBefore Duration `toml:"renew_before"`
	CacheSize   int      `toml:"cache_size"` // accounts
}

// Log says what is logged to stderr, and how.
type Log struct {
	Level  string `toml:"level"`
	Format string `toml:"format"`
}

// Caller is one who may call, and what it may do, [[caller]]. With such blocks every call needs a key.
type Caller struct {
	Name      string   `toml:"name"`
	KeySHA256 string   `toml:"key_sha256"` // in hexadecimal digits; "": it comes with a client certificate
	AppIDs    []string `toml:"appids"`     // "*" in this list and the next ones: all
	Paths     []string `toml:"paths"`
	Methods   []string `toml:"methods"`
	Rate      int      `toml:"rate"`  // requests a second; 0: no limit
	Burst     int      `toml:"burst"` // 0: as many as rate
}

// App is an own account: one whose app secret we hold, [[app]].
type App struct {
	AppID     string        `toml:"appid"`
	AppSecret wechat.Secret `toml:"appsecret"`
}

// Route is an operator's rule that comes before the table of paths, [[route]].
type Route struct {
	Path      string `toml:"path"`
	Token     string `toml:"token"`
	Parameter string `toml:"parameter"`
}

// Forward is a service that gets messages and events, [[forward]]. The first block that fits decides.
type Forward struct {
	AppIDs []string `toml:"appids"` // "*" in this list and the next: all
	Events []string `toml:"events"` // InfoTypes, MsgTypes or Events, without regard to case
	URL    string   `toml:"url"`
}

// Default is the one place of defaults: what holds for every key that the file does not
// have. It is no configuration to serve with, as nothing stands in for an appid.
func Default() Config {
	return Config{
		Proxy: Proxy{
			Listen: "127.0.0.1:8080", Upstream: "https://api.weixin.qq.com",
			Timeout: Duration(60 * time.Second), MaxRequestBody: 32 << 20,
		},
		Callback: Callback{Listen: "127.0.0.1:8081"},
		Admin:    Admin{Listen: "127.0.0.1:8082"},
		Store:    Store{URL: "file:wxproxy.db"},
		Tokens:   Tokens{RenewBefore: Duration(10 * time.Minute), CacheSize: 100_000},
		Log:      Log{Level: "info", Format: "text"},
	}
}

// setDefaults is the same for the keys that a [[caller]] block does not have.
func (c *Caller) setDefaults() {
	*c = Caller{AppIDs: []string{"*"}, Paths: []string{"*"}, Methods: []string{"*"}}
}

// setDefaults is the same for the keys that a [[route]] block does not have.
func (r *Route) setDefaults() {
	*r = Route{Token: "account", Parameter: wechat.AccessToken}
}

// setDefaults is the same for the keys that a [[forward]] block does not have.
func (f *Forward) setDefaults() {
	*f = Forward{AppIDs: []string{"*"}, Events: []string{"*"}}
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

// Load reads and checks the file at path. The error holds everything that is wrong, one
// sentence a line, each with the path of the file in front and none with a secret in it; the
// configuration is then the zero one. Warnings are for the operator to read: they stop nothing.
func Load(path string, getenv func(string) (string, bool)) (Config, []Warning, error) {
	// Not readFile, which takes regular files only: a configuration may come through a pipe.
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

// parse is loadConfig for a text that was read already; name stands for the path.
func parse(name string, text []byte, from sources) (Config, []Warning, error) {
	// Some editors begin a file with a byte order mark, which TOML does not know.
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	tree, err := readTOML(text)
	if err != nil {
		return Config{}, nil, fmt.Errorf("%s:%w", name, err)
	}
	d := decode(tree, from)
	faults, warnings := check(d, from.readFile)
	if len(faults) > 0 {
		return Config{}, nil, &Error{name: name, faults: faults}
	}
	return d.cfg, warnings, nil
}

// fault is one thing that is wrong with a configuration.
type fault struct {
	Key     string // its path as in the file: "component.appid", "route[2].token" (the second block)
	Problem string // what is wrong with its value, and what to do about it
}

func (f fault) String() string { return f.Key + ": " + f.Problem }

// Warning is something that works and that the operator should know of all the same.
type Warning fault

func (w Warning) String() string { return fault(w).String() }

// Error is all that is wrong with one configuration. There is at least one fault.
type Error struct {
	name   string
	faults []fault
}

// Error gives one line for each fault.
func (e *Error) Error() string {
	lines := make([]string, len(e.faults))
	for i, f := range e.faults {
		lines[i] = e.name + ": " + f.String()
	}
	return strings.Join(lines, "\n")
}

var (
	errFileTooLarge = fmt.Errorf("it has more than %v", Size(fileLimit))
	errNoFile       = errors.New("it is not a regular file")
)

// ReadFile is the ReadFile of [sources]. It takes regular files (and links to them) only:
// opening a pipe would wait for ever for somebody to write into it.
func ReadFile(path string) ([]byte, error) {
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

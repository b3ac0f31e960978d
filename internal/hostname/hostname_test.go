package hostname

import (
	"net/url"
	"testing"
)

// hosts are values of Host headers, and what Of returns: the host, or "-" if
// the value is not accepted.
var hosts = map[string]string{
	"localhost": "localhost", "LOCALHOST:8080": "LOCALHOST", "localhost:": "localhost",
	"127.0.0.1": "127.0.0.1", "127.0.0.1:8080": "127.0.0.1", "10.1.2.3:80": "10.1.2.3",
	"[::1]": "::1", "[::1]:8080": "::1", "[::ffff:127.0.0.1]:1": "::ffff:127.0.0.1",
	"[fe80::1%eth0]:80": "-", "[fe80::1%25eth0]": "-", "[::1]:": "::1",
	"api.weixin.qq.com": "api.weixin.qq.com", "a_b-c.d": "a_b-c.d",
	"xn--fiq228c.cn": "xn--fiq228c.cn",
	"-":              "-", "1.proxy": "1.proxy", "127.1": "127.1", "0x7f000001": "0x7f000001",
	// not accepted
	"": "-", ".": "-", "..": "-", ":": "-", ":8080": "-", "localhost.": "-",
	"localhost.:80": "-",
	"evil.test.":    "-", ".evil.test": "-", "a..b": "-", "127.0.0.1.": "-", "127.0.0.1.:80": "-",
	"localhost:80:80": "-", "localhost:http": "-", "localhost:-1": "-", "localhost: 80": "-",
	"user@localhost": "-", "user:pw@localhost": "-", "localhost@evil.test": "-",
	"http://localhost": "-",
	"localhost/":       "-", "localhost#": "-", "localhost?": "-", "localhost\\": "-",
	"loc%61lhost":         "-",
	"localhost,evil.test": "-", "localhost evil.test": "-", "localhost\t": "-",
	"\x00": "-", "local\u212aost": "-",
	"::1": "-", "[::1": "-", "::1]": "-", "[]": "-", "[localhost]": "-",
	"[127.0.0.1]": "-", "[::1]x": "-",
	"[::1]:80:80": "-", "[::1]]": "-", "[[::1]]": "-", "[::1%]": "-",
	"[evil.test]:80": "-", "*": "-", "小": "-",
}

func TestOf(t *testing.T) {
	for value, want := range hosts {
		got, ok := Of(value)
		if accepted := want != "-" || value == "-"; ok != accepted || ok && got != want {
			t.Errorf("Of(%q): got %q, %v, want %q, %v", value, got, ok, want, accepted)
		}
	}
}

func TestIsIP(t *testing.T) {
	for host, want := range map[string]bool{
		"127.0.0.1": true, "10.0.0.1": true, "::1": true, "fe80::1%eth0": true,
		"::ffff:1.2.3.4": true,
		"":               false, "localhost": false, "127.1": false, "0177.0.0.1": false,
		"0x7f000001": false, "2130706433": false,
		"256.0.0.1": false, "1.2.3.4.5": false, "1.2.3": false, "1.proxy": false,
		"dead.beef": false, "fe80": false,
	} {
		if got := IsIP(host); got != want {
			t.Errorf("IsIP(%q): got %v, want %v", host, got, want)
		}
	}
}

func TestIsLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LocalHost": true, "127.0.0.1": true, "127.255.0.9": true,
		"::1":              true,
		"::ffff:127.0.0.1": true,
		"":                 false, "localhost.": false, "localhost.evil.test": false,
		"127.0.0.1.evil.test": false, "0.0.0.0": false,
		"::": false, "10.0.0.1": false, "128.0.0.1": false, "127.1": false,
	} {
		if got := IsLoopback(host); got != want {
			t.Errorf("IsLoopback(%q): got %v, want %v", host, got, want)
		}
	}
}

// TestAlloc checks that hosts of every accepted form cost no allocation.
func TestAlloc(t *testing.T) {
	for _, host := range []string{"127.0.0.1:8080", "[::1]:8080", "localhost:8080", "wxproxy.internal", "evil test"} {
		if n := testing.AllocsPerRun(100, func() {
			name, _ := Of(host)
			IsIP(name)
		}); n != 0 {
			t.Errorf("%q: got %v allocations, want 0", host, n)
		}
	}
}

// FuzzOf checks that a host that is accepted is the one that a URL with the same
// authority names, so that no browser can mean another one.
func FuzzOf(f *testing.F) {
	for value := range hosts {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		host, ok := Of(value)
		if !ok {
			return
		}
		u, err := url.Parse("http://" + value)
		if err != nil || u.Host != value || u.Hostname() != host || u.User != nil || u.Path != "" {
			t.Errorf("Of(%q): got %q, want %v as url.Parse, error %v", value, host, u, err)
		}
	})
}

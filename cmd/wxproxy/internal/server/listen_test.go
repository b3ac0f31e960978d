package server

import (
	"net"
	"strings"
	"testing"
)

// TestListenNamesNoHost checks that the error of an address in use names the
// address if its host is an IP address, and otherwise the port only: a name can
// be a secret in the wrong place.
func TestListenNamesNoHost(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	for host, want := range map[string]string{
		"127.0.0.1": "proxy.listen: cannot listen on 127.0.0.1:" + port + ": ",
		"localhost": "proxy.listen: cannot listen on port " + port + ": ",
	} {
		again, err := Listen("proxy.listen", net.JoinHostPort(host, port))
		if err == nil {
			again.Close()
			t.Errorf("%s: got no error, want one", host)
		} else if !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", host, err, want)
		}
	}
}

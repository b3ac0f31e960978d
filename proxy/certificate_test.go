package proxy_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"wxproxy/proxy"
)

// authority is a CA.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newAuthority returns a CA with a new key.
func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	c := a.sign(template)
	a.cert, a.key = c.Leaf, c.PrivateKey.(*ecdsa.PrivateKey)
	return a
}

// sign issues a certificate. The first one is that of the CA itself.
func (a *authority) sign(template *x509.Certificate) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	parent, parentKey := a.cert, a.key
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// client issues a client certificate with this common name.
func (a *authority) client(name string) tls.Certificate {
	return a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// server issues a server certificate for 127.0.0.1.
func (a *authority) server() tls.Certificate {
	return a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(3), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// TestClientCertificates checks that a certificate of the configured CA
// authenticates the caller with its common name, as a key does.
func TestClientCertificates(t *testing.T) {
	up, _ := recordingServer(t)
	ca, foreign := newAuthority(t), newAuthority(t)
	server := ca.server()
	bareCaller := named("bare", "")
	bareCaller.KeySHA256 = nil // no key: certificates only
	config := proxy.Config{
		Component: component, Upstream: up, Tokens: &fakeTokens{current: "T0"},
		Callers: []proxy.Caller{named("orders", ordersKey), bareCaller},
	}
	p, err := proxy.New(config)
	if err != nil {
		t.Fatal(err)
	}
	addr := serveTLS(t, p, &tls.Config{
		Certificates: []tls.Certificate{server}, ClientCAs: ca.pool(), ClientAuth: tls.VerifyClientCertIfGiven,
	})
	client := func(certs ...tls.Certificate) *http.Client {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.pool(), Certificates: certs}}
		t.Cleanup(tr.CloseIdleConnections)
		return &http.Client{Transport: tr}
	}
	status := func(c *http.Client, key string) int {
		t.Helper()
		req, _ := http.NewRequest("GET", "https://"+addr+"/"+account+"/cgi-bin/a", nil)
		if key != "" {
			req.Header.Set("X-Wxproxy-Key", key)
		}
		resp, err := c.Do(req)
		if err != nil {
			return 0
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return resp.StatusCode
	}
	bare := client(ca.client("bare"))
	for name, c := range map[string]struct {
		client *http.Client
		key    string
		want   int
	}{
		"certificate":            {bare, "", 200},
		"of a caller with a key": {client(ca.client("orders")), "", 200},
		"key and certificate":    {client(ca.client("orders")), ordersKey, 200},
		"key alone":              {client(), ordersKey, 200},
		"neither":                {client(), "", 401},
		"two callers":            {bare, ordersKey, 401},
		"wrong key":              {bare, "wrong", 401},
		"unknown name":           {client(ca.client("unknown")), "", 401},
		"unknown name and key":   {client(ca.client("unknown")), ordersKey, 200},
		"no name":                {client(ca.client("")), "", 401},
		"another CA":             {client(foreign.client("bare")), "", 0},
		"another CA and key":     {client(foreign.client("bare")), ordersKey, 0},
		"server certificate":     {client(server), "", 0},
	} {
		// Clients do not send a certificate of a CA that was not asked for.
		// These do.
		tc := c.client.Transport.(*http.Transport).TLSClientConfig
		if certs := tc.Certificates; len(certs) > 0 {
			tc.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certs[0], nil }
		}
		for range 2 { // the second time on the same connection
			if got := status(c.client, c.key); got != c.want {
				t.Errorf("%s: got %d, want %d", name, got, c.want)
			}
		}
	}
	// A removed caller is rejected on open connections, too.
	config.Callers = config.Callers[:1]
	if err := p.Reconfigure(config); err != nil {
		t.Fatal(err)
	}
	if got := status(bare, ""); got != 401 {
		t.Errorf("removed caller: got %d, want 401", got)
	}
}

// TestStandInOfACertificate checks under which key a stand-in is issued if a
// client certificate authenticates the request: certificate alone, with a key
// in a header, with a key as the secret × the key removed. Only the first
// outlives the key.
func TestStandInOfACertificate(t *testing.T) {
	up, _ := recordingServer(t)
	ca := newAuthority(t)
	config := rotationConfig(t, up, ordersKey)
	p, err := proxy.New(config)
	if err != nil {
		t.Fatal(err)
	}
	addr := serveTLS(t, p, &tls.Config{
		Certificates: []tls.Certificate{ca.server()}, ClientCAs: ca.pool(),
		ClientAuth: tls.VerifyClientCertIfGiven,
	})
	do := func(path, key string, certs ...tls.Certificate) string {
		t.Helper()
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.pool(), Certificates: certs}}
		defer tr.CloseIdleConnections()
		req, _ := http.NewRequest("GET", "https://"+addr+path, nil)
		if key != "" {
			req.Header.Set("X-Wxproxy-Key", key)
		}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	token, cert := "/cgi-bin/token?appid="+account+"&secret=", ca.client("orders")
	alone := standInText.FindString(do(token+"x", "", cert))
	withHeader := standInText.FindString(do(token+"x", ordersKey, cert))
	withSecret := standInText.FindString(do(token+ordersKey, "", cert))
	config.Callers[0].KeySHA256 = nil
	if err := p.Reconfigure(config); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ standIn, want string }{
		"certificate":                {alone, "T0"},
		"certificate, key in header": {withHeader, `{"errcode":40001,`},
		"certificate, key as secret": {withSecret, `{"errcode":40001,`},
	} {
		got := do("/cgi-bin/user/info?access_token="+c.standIn, "")
		if c.standIn == "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: stand-in %q got %s, want %s", name, c.standIn, got, c.want)
		}
	}
}

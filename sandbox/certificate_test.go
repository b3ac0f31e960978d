package sandbox_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"testing"

	"wxproxy/sandbox"
)

func TestNewCertificate(t *testing.T) {
	cert, ca, err := sandbox.NewCertificate("127.0.0.1", "api.example.test")
	must(t, err)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		t.Fatalf("got %q, want a certificate in PEM", ca)
	}
	s, err := sandbox.New(sandbox.Config{})
	must(t, err)
	srv := httptest.NewUnstartedServer(s)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	for _, h2 := range []bool{false, true} {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: h2}
		resp, err := tr.RoundTrip(httptest.NewRequest("GET", srv.URL+"/x", nil))
		must(t, err)
		resp.Body.Close()
		if resp.StatusCode != 200 || (resp.ProtoMajor == 2) != h2 {
			t.Errorf("HTTP/2 %v: got %s %s, want status 200", h2, resp.Proto, resp.Status)
		}
		tr.CloseIdleConnections()
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	must(t, err)
	for name, good := range map[string]bool{"api.example.test": true, "127.0.0.1": true, "localhost": false} {
		if _, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots}); (err == nil) != good {
			t.Errorf("verifying for %s: got %v, want success %v", name, err, good)
		}
	}
	cert, _, err = sandbox.NewCertificate()
	must(t, err)
	leaf, err = x509.ParseCertificate(cert.Certificate[0])
	must(t, err)
	if leaf.VerifyHostname("localhost") != nil || leaf.VerifyHostname("::1") != nil {
		t.Errorf("got names %v %v, want localhost and ::1 by default", leaf.DNSNames, leaf.IPAddresses)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{DNSName: "localhost", Roots: roots}); err == nil {
		t.Error("certificate verifies under the CA of another certificate")
	}
}

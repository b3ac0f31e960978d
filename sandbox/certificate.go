package sandbox

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"

	"wxproxy/sandbox/internal/random"
)

// NewCertificate returns a TLS certificate for these host names and IP
// addresses. caPEM is the CA certificate that signed it, for
// proxy.upstream_ca_file or a client's roots. Without arguments it is for
// localhost, 127.0.0.1 and ::1. Both are new each time and valid for a year.
// The key of the CA is discarded, so that it can never sign anything else.
func NewCertificate(hosts ...string) (cert tls.Certificate, caPEM []byte, err error) {
	cert, caPEM, err = newCertificate(hosts, time.Now())
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("sandbox: making a certificate: %w", err)
	}
	return cert, caPEM, nil
}

// newCertificate is NewCertificate at that time, without the prefix of its
// errors.
func newCertificate(hosts []string, now time.Time) (cert tls.Certificate, caPEM []byte, err error) {
	if len(hosts) == 0 {
		hosts = []string{"localhost", "127.0.0.1", "::1"}
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return cert, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return cert, nil, err
	}
	ca := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "wxproxy sandbox authority " + random.Hex(4)},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "wxproxy sandbox"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, h)
		}
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return cert, nil, err
	}
	// Sign with the CA certificate as parsed: only that has the key ID which
	// the leaf has to name.
	if ca, err = x509.ParseCertificate(caDER); err != nil {
		return cert, nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return cert, nil, err
	}
	cert = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), nil
}

// serial returns a random serial number.
func serial() *big.Int {
	b := random.Bytes(16)
	b[0] &= 0x7f // keeps it positive in DER
	return new(big.Int).SetBytes(b)
}

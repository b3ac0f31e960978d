package redis

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"
)

// topology is the kind of a Redis: how many servers it has, and how the one
// that takes writes is found.
type topology uint8

const (
	single   topology = iota // one server, or a name that always leads to the master
	sentinel                 // sentinels know the master
	cluster                  // the nodes know which of them holds a key
)

// target is a Redis as its URL describes it.
type target struct {
	topology         topology
	tls              bool
	unixSocket       bool     // addrs holds the path of a socket
	addrs            []string // HOST:PORT, of sentinels or of nodes of a cluster
	master           string   // the sentinels' name for the master
	user             string
	password         string
	sentinelPassword string
	db               int
	caFile           string // certificate authorities; "" means those of the system
}

// tlsConfig returns nil if the connections do not use TLS.
func (t *target) tlsConfig() (*tls.Config, error) {
	if !t.tls {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.caFile == "" {
		return c, nil
	}
	pem, err := os.ReadFile(t.caFile)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	// Only these: if the operator names an authority, no other is trusted.
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca_file: no certificate in %s", t.caFile)
	}
	return c, nil
}

// String returns a name for errors, without user and passwords.
func (t *target) String() string {
	addrs := strings.Join(t.addrs, ", ")
	switch t.topology {
	case sentinel:
		return fmt.Sprintf("Redis (master %q of the sentinels at %s)", t.master, addrs)
	case cluster:
		return "Redis cluster at " + addrs
	}
	return "Redis at " + addrs
}

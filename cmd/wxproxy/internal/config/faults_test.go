package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// marker is part of every secret in the test data. No fault may contain it.
const marker = "sEcReT"

// lookUp returns an environment with these variables.
func lookUp(vars map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, set := vars[name]; return v, set }
}

// testEnv returns the variables that the files in testdata refer to.
func testEnv(tb testing.TB) map[string]string {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	dir := tb.TempDir()
	sound := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, content := range map[string][]byte{
		"cert.pem":    sound,
		"key.pem":     pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
		"damaged.pem": append(sound, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der[:len(der)/2]})...),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return map[string]string{"DIR": dir, "APPSECRET": marker + "98765432109876", "EMPTY": "",
		"LINES": marker + "\n" + marker, "BINARY": marker + "\xff"}
}

// TestFaultsAndWarnings loads every file in testdata and compares the result
// with the comments at its end: "# want: …" is a fault, "# warn: …" a warning.
func TestFaultsAndWarnings(t *testing.T) {
	files, err := filepath.Glob("testdata/*.toml")
	if err != nil || len(files) < 100 {
		t.Fatalf("testdata: got %d files, %v, want at least 100", len(files), err)
	}
	vars := testEnv(t)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".toml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var want, got []string
			for line := range strings.Lines(string(text)) {
				if strings.HasPrefix(line, "# want: ") || strings.HasPrefix(line, "# warn: ") {
					want = append(want, strings.TrimSpace(line))
				}
			}
			_, warnings, err := Load(file, lookUp(vars))
			if err != nil {
				for line := range strings.SplitSeq(err.Error(), "\n") {
					if strings.Contains(line, marker) {
						t.Errorf("fault with a secret: %s", line)
					}
					sentence, ok := strings.CutPrefix(line, file+":")
					if !ok {
						t.Errorf("fault without the file: %s", line)
					}
					got = append(got, "# want: "+strings.TrimSpace(sentence))
				}
			}
			for _, w := range warnings {
				got = append(got, "# warn: "+w.String())
			}
			if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
				t.Errorf("got\n%s\n\nwant\n%s", g, w)
			}
			if strings.HasPrefix(filepath.Base(file), "ok-") && len(got) > 0 {
				t.Errorf("got %d faults and warnings, want none for a file named ok-*", len(got))
			}
			if !strings.HasPrefix(filepath.Base(file), "ok-") && len(want) == 0 {
				t.Error("the file contains no # want: or # warn: line")
			}
		})
	}
}

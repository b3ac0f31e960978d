package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
)

// keyCommand is `wxproxy key`.
type keyCommand struct {
	env  *env
	name string
	json bool
}

func newKey(e *env) command { return &keyCommand{env: e} }

// keyName is what a caller may be called. Names stand in logs and in metrics.
var keyName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

func (c *keyCommand) ParseFlags(args []string) error {
	fs := newFlags("key", "Makes a key for the caller NAME, and the block for the configuration. The key stands alone on the last line; it is shown this once and kept nowhere.")
	fs.words = []string{"NAME"}
	fs.BoolVar(&c.json, "json", false, "print name, key and key_sha256 as JSON, for scripts")
	words, err := parseWords(c.env, fs, args)
	if err != nil {
		return err
	}
	if c.name = words[0]; !keyName.MatchString(c.name) {
		return fmt.Errorf("%s cannot be a caller's name: it takes 1 to 64 of a-z, 0-9, dot, underscore and hyphen, with a letter or a digit in front", quoted(c.name))
	}
	return nil
}

func (c *keyCommand) Run(context.Context) error {
	key, sum := newCallerKey()
	if c.json {
		return json.NewEncoder(c.env.stdout).Encode(struct {
			Name string `json:"name"`
			Key  string `json:"key"`
			Sum  string `json:"key_sha256"`
		}{c.name, key, sum})
	}
	_, err := fmt.Fprintf(c.env.stdout, `# For the configuration of wxproxy, which needs no more than the key's SHA-256:

[[caller]]
name = "%s"
key_sha256 = "%s"

# For the caller, as Authorization: Bearer KEY. It is shown this once and kept nowhere:

%s
`, c.name, sum, key)
	return err
}

// newCallerKey makes a key and the digest by which the configuration knows it. 256 bits of chance need no
// slow hash: they cannot be guessed.
func newCallerKey() (key, sum string) {
	b := make([]byte, 32)
	rand.Read(b) // never fails: it ends the process instead
	key = "wxk_" + base64.RawURLEncoding.EncodeToString(b)
	digest := sha256.Sum256([]byte(key))
	return key, hex.EncodeToString(digest[:])
}

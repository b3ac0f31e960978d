package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"

	"github.com/spf13/cobra"
)

// keyName matches the names that key accepts for callers. They are narrower
// than what the configuration allows, so that new names look alike in logs and
// metrics.
var keyName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// newKey returns `wxproxy key`.
func newKey(e *env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "key NAME",
		Short: "Generate a key for a caller",
		Long: `Generate a key for the caller NAME, and print it with the [[caller]] block for
the configuration. The key is alone on the last line. It is printed only once
and stored nowhere: the configuration holds its SHA-256.

To replace the key of a caller, add the new SHA-256 to the list key_sha256, and
send SIGHUP to wxproxy. Change the key in the caller. Then remove the old
SHA-256 and send SIGHUP again: the old key ends, and so does every stand-in
token that was issued under it.`,
		Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !keyName.MatchString(args[0]) {
				return usagef(cmd, "NAME is not a caller's name: use 1 to 64 of a-z, 0-9, dot, underscore "+
					"and hyphen, starting with a letter or a digit")
			}
			return printKey(e, args[0], asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print name, key and key_sha256 as JSON, for scripts")
	return cmd
}

// printKey prints a new key for the caller name.
func printKey(e *env, name string, asJSON bool) error {
	key, sum := newCallerKey()
	if asJSON {
		return json.NewEncoder(e.stdout).Encode(struct {
			Name string `json:"name"`
			Key  string `json:"key"`
			Sum  string `json:"key_sha256"`
		}{name, key, sum})
	}
	// The key is alone on the last line, for "wxproxy key NAME | tail -n 1".
	_, err := fmt.Fprintf(e.stdout, `# Add this to the configuration of wxproxy:

[[caller]]
name = "%s"
key_sha256 = "%s"

# To replace a key of this caller, add the new one to the list, reload, change
# the caller, and remove the old one: key_sha256 = ["OLD", "NEW"]

# The caller sends this key as "Authorization: Bearer KEY". It is shown only now:

%s
`, name, sum, key)
	return err
}

// newCallerKey returns a random key and its SHA-256 in hexadecimal digits. The
// key has 256 random bits, so its digest needs no slow password hash.
func newCallerKey() (key, sum string) {
	b := make([]byte, 32)
	rand.Read(b) // never fails: it crashes the program instead
	key = "wxk_" + base64.RawURLEncoding.EncodeToString(b)
	digest := sha256.Sum256([]byte(key))
	return key, hex.EncodeToString(digest[:])
}

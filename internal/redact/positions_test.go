//go:build !race

package redact_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"wxproxy/internal/redact"
)

// TestGzipStreamsAtEachPosition checks that what a client has received before
// the end of a gzip stream decompresses to no token: positions in steps of 97
// bytes over more than a window × level × as it is, with JSON escapes, with
// percent-encoding. A decompressor that holds data back must not hide a token.
func TestGzipStreamsAtEachPosition(t *testing.T) {
	var v redact.Values
	v.Add(token)
	r := rand.New(rand.NewPCG(3, 3))
	noise := make([]byte, 140_000)
	for i := range noise {
		noise[i] = "0123456789abcdef"[r.IntN(16)]
	}
	spellings := []string{
		token, strings.ReplaceAll(token, "_", `\u005f`), strings.ReplaceAll(token, "_", "%5f"),
	}
	for i, level := range []int{gzip.HuffmanOnly, gzip.NoCompression, gzip.BestSpeed, 6} {
		for at := 66_000; at < 100_000; at += 97 {
			spelling := spellings[(i+at)%len(spellings)]
			text := bytes.Clone(noise)
			copy(text[at:], spelling)
			var b bytes.Buffer
			w, _ := gzip.NewWriterLevel(&b, level)
			w.Write(text)
			w.Close()
			got, err := io.ReadAll(redact.NewGzipReader(&b, v, func() {}))
			if !errors.Is(err, redact.ErrFound) {
				t.Errorf("level %d, position %d: got error %v, want %v", level, at, err, redact.ErrFound)
			}
			z, err := gzip.NewReader(bytes.NewReader(got))
			if err != nil {
				continue // not even a header
			}
			if plain, _ := io.ReadAll(z); bytes.Contains(plain, []byte(spelling)) {
				t.Errorf("level %d, position %d: got the token", level, at)
			}
		}
	}
}

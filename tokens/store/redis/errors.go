package redis

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"wxproxy/tokens/store"
)

// fault is the one place where an error of the library becomes one of ours.
func (s *Store) fault(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case s.closed.Load(), errors.Is(err, goredis.ErrClosed):
		return store.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	// A connection's deadline is the context's, and may be noticed a moment earlier.
	if end, ok := ctx.Deadline(); ok && !time.Now().Before(end) {
		return context.DeadlineExceeded
	}
	if word, _ := answerOf(err); word == "CLUSTERDOWN" && s.kind != cluster {
		return s.located(errors.New(refusals["MOVED"]))
	}
	return s.located(errors.New(inWords(err)))
}

// located says which Redis it was.
func (s *Store) located(err error) error { return fmt.Errorf("%s: %w", s.at, err) }

// answerOf gives the first word of an answer by which Redis refuses, such as READONLY.
func answerOf(err error) (word string, ok bool) {
	var answer goredis.Error
	if !errors.As(err, &answer) {
		return "", false
	}
	word, _, _ = strings.Cut(answer.Error(), " ")
	return strings.TrimPrefix(word, "-"), true
}

// refusals are Redis' own words, put so that they say what to do.
var refusals = map[string]string{
	"WRONGPASS":   "it refuses the user or the password",
	"NOAUTH":      "it wants a password, and none is given",
	"NOPERM":      "its user may not do all that is needed",
	"READONLY":    "it is a read-only replica: name the master, or its sentinels with redis+sentinel://",
	"OOM":         "its memory is full (maxmemory): nothing can be saved",
	"MISCONF":     "it cannot write to its disk, and refuses to be written to",
	"NOREPLICAS":  "too few replicas are connected to it (min-replicas-to-write), and it refuses to be written to",
	"LOADING":     "it has just started and still reads its data",
	"BUSY":        "it is busy with a script of somebody else's",
	"MASTERDOWN":  "it is a replica that has lost its master",
	"CLUSTERDOWN": "the cluster is down: a part of its slots is served by nobody",
	"TRYAGAIN":    "the cluster is moving slots",
	"MOVED":       "it is a node of a cluster: write redis+cluster://HOST,HOST",
	"CROSSSLOT":   "it is a cluster: write redis+cluster://HOST,HOST",
}

// passingWords are refusals that end by themselves.
var passingWords = map[string]bool{"LOADING": true, "BUSY": true, "MASTERDOWN": true, "CLUSTERDOWN": true, "TRYAGAIN": true, "READONLY": true, "NOREPLICAS": true}

// inWords tells what is wrong. What Redis itself says is shown: it has no password in it.
func inWords(err error) string {
	word, isAnswer := answerOf(err)
	said, known := refusals[word]
	text := err.Error()
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var noTLS tls.RecordHeaderError
	var op *net.OpError
	switch {
	case strings.Contains(text, "all sentinels specified in configuration are unreachable"):
		// The library joins what each of them said.
		if strings.Contains(text, "NOAUTH") || strings.Contains(text, "WRONGPASS") {
			return "its sentinels want a password, or refuse the one in ?sentinel_password="
		}
		return "none of its sentinels answers, or none knows a master of that name"
	case isAnswer && known:
		return fmt.Sprintf("%s (%s)", said, word)
	case isAnswer && strings.Contains(text, "invalid password"), isAnswer && strings.Contains(text, "without any password configured"):
		return refusals["WRONGPASS"]
	case isAnswer && strings.Contains(text, "DB index is out of range"):
		return "it has no database of that number"
	case isAnswer && strings.Contains(text, "cluster support disabled"), strings.Contains(text, "cluster support disabled"):
		return "it is no cluster: write redis://HOST:PORT"
	case isAnswer:
		return "it refuses: " + strings.ReplaceAll(text, "\n", "; ")
	case errors.As(err, &unknown):
		return "its certificate is of an authority that is not known here: name it with ?ca_file=PATH"
	case errors.As(err, &name), errors.As(err, &invalid):
		return "its certificate is not good: " + text
	case errors.As(err, &noTLS):
		return "it does not speak TLS: begin the URL with redis"
	case errors.Is(err, goredis.ErrPoolTimeout):
		return "it does not keep up: all connections are busy"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "it does not answer in time"
	case errors.As(err, &op) && op.Op == "dial":
		return "it cannot be reached: " + op.Err.Error()
	}
	return "it cannot be reached: " + strings.ReplaceAll(text, "\n", "; ")
}

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

// convertError turns an error of go-redis into one of the store. It is the only
// place that does. If ctx has ended, it returns the error of ctx.
func (s *Store) convertError(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case s.closed.Load(), errors.Is(err, goredis.ErrClosed):
		return store.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	// A connection gets the deadline of ctx, and may report it a moment before
	// ctx does.
	if end, ok := ctx.Deadline(); ok && !time.Now().Before(end) {
		return context.DeadlineExceeded
	}
	if code, _ := replyCode(err); code == "CLUSTERDOWN" && s.topology != cluster {
		return s.withName(errors.New(codeMessages["MOVED"]))
	}
	return s.withName(errors.New(describe(err)))
}

// withName adds the name of this Redis to err.
func (s *Store) withName(err error) error { return fmt.Errorf("%s: %w", s.name, err) }

// replyCode returns the first word of an error that Redis itself has sent, such
// as READONLY. ok is false for every other error.
func replyCode(err error) (code string, ok bool) {
	var reply goredis.Error
	if !errors.As(err, &reply) {
		return "", false
	}
	code, _, _ = strings.Cut(reply.Error(), " ")
	return strings.TrimPrefix(code, "-"), true
}

// codeMessages say what the codes of Redis mean here, and what to do.
var codeMessages = map[string]string{
	"WRONGPASS":   "wrong user or password",
	"NOAUTH":      "it requires a password, and the URL has none",
	"NOPERM":      "its user lacks permissions, see docs/redis.md",
	"READONLY":    "it is a read-only replica: use the master, or its sentinels with redis+sentinel://",
	"OOM":         "its memory is full (maxmemory), so nothing can be saved",
	"MISCONF":     "it cannot write to its disk, and rejects writes",
	"NOREPLICAS":  "too few replicas are connected to it (min-replicas-to-write), and it rejects writes",
	"LOADING":     "it has just started and is loading its data",
	"BUSY":        "it is busy with a script of another client",
	"MASTERDOWN":  "it is a replica that has lost its master",
	"CLUSTERDOWN": "the cluster is down: some of its slots are not served",
	"TRYAGAIN":    "the cluster is moving slots",
	"MOVED":       "it is a node of a cluster: use redis+cluster://HOST,HOST",
	"CROSSSLOT":   "it is a cluster: use redis+cluster://HOST,HOST",
}

// transientCodes are the codes after which another attempt may succeed.
var transientCodes = map[string]bool{
	"LOADING": true, "BUSY": true, "MASTERDOWN": true, "CLUSTERDOWN": true,
	"TRYAGAIN": true, "READONLY": true, "NOREPLICAS": true,
}

// isTransient reports whether the same command may succeed later. That is so
// for errors of the connection and for some of Redis's own.
func isTransient(err error) bool {
	if code, isReply := replyCode(err); isReply {
		return transientCodes[code]
	}
	return !errors.Is(err, goredis.ErrClosed)
}

// describe returns one line that says what is wrong, without the name of this
// Redis. It may quote the text of a reply, which never contains a password.
func describe(err error) string {
	// go-redis joins the errors of all sentinels, so this has to come first.
	if text := err.Error(); strings.Contains(text, "all sentinels specified in configuration are unreachable") {
		if strings.Contains(text, "NOAUTH") || strings.Contains(text, "WRONGPASS") {
			return "its sentinels require a password, or reject the one in ?sentinel_password="
		}
		return "none of its sentinels responds or knows a master of that name"
	}
	if strings.Contains(err.Error(), "cluster support disabled") {
		return "it is not a cluster: use redis://HOST:PORT"
	}
	if code, ok := replyCode(err); ok {
		return describeReply(code, err.Error())
	}
	return describeConnection(err)
}

// describeReply describes an error that Redis has sent.
func describeReply(code, text string) string {
	if message, ok := codeMessages[code]; ok {
		return fmt.Sprintf("%s (%s)", message, code)
	}
	switch {
	case strings.Contains(text, "invalid password"), strings.Contains(text, "without any password configured"):
		return codeMessages["WRONGPASS"]
	case strings.Contains(text, "DB index is out of range"):
		return "it has no database with this number"
	}
	return "it responded with an error: " + oneLine(text)
}

// describeConnection describes an error of the connection.
func describeConnection(err error) string {
	var unknownAuthority x509.UnknownAuthorityError
	var wrongName x509.HostnameError
	var invalid x509.CertificateInvalidError
	var notTLS tls.RecordHeaderError
	var op *net.OpError
	switch {
	case errors.As(err, &unknownAuthority):
		return "its certificate was issued by an unknown authority: name it with ?ca_file=PATH"
	case errors.As(err, &wrongName), errors.As(err, &invalid):
		return "invalid certificate: " + err.Error()
	case errors.As(err, &notTLS):
		return "it does not use TLS: begin the URL with redis"
	case errors.Is(err, goredis.ErrPoolTimeout):
		return "overloaded: all connections are busy"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "timeout waiting for a response"
	case errors.As(err, &op) && op.Op == "dial":
		return "cannot be reached: " + op.Err.Error()
	}
	return "cannot be reached: " + oneLine(err.Error())
}

func oneLine(text string) string { return strings.ReplaceAll(text, "\n", "; ") }

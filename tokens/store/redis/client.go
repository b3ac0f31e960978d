package redis

import (
	"context"
	"crypto/tls"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// go-redis prints to standard error unless told otherwise. Everything that it
// prints is returned as an error, too.
func init() { logging.Disable() }

// timeouts bound the single steps of a conversation with Redis.
type timeouts struct {
	dial time.Duration // connecting, with the TLS handshake
	io   time.Duration // one read or write
	ping time.Duration // a whole Ping
	poll time.Duration // each step of a poll by Watch
}

// Calls wait for these timeouts. A Redis in the same building responds within a
// millisecond; one that needs more than 1.5 seconds is down in practice. A ping
// ends before the timeouts of its callers (readiness probes), so that they
// receive the name of this Redis instead of their own timeout.
var defaultTimeouts = timeouts{
	dial: 1500 * time.Millisecond,
	io:   1500 * time.Millisecond,
	ping: time.Second,
	poll: time.Second,
}

const (
	// poolSize is the maximum number of connections to one server. A script
	// takes about 50 µs there, so more connections would not be faster.
	// Requests beyond that wait for a connection.
	poolSize = 64
	// pipelinePoolSize is the number of further connections for pipelines.
	pipelinePoolSize = 4
	// retries follow a failed attempt. Scripts may be sent twice: each
	// recognizes its own earlier work.
	retries = 1
	// maxRedirects is how often a cluster may redirect a command, or ask to try
	// again.
	maxRedirects = 4

	clientName = "wxproxy" // shown by CLIENT LIST
)

// clientOptions are the settings in which the clients of one Redis differ.
type clientOptions struct {
	name        string // shown by CLIENT LIST
	poolSize    int    // connections to each server
	pipelines   int    // further connections for pipelines
	retries     int
	dialTimeout time.Duration
	ioTimeout   time.Duration
	dials       *atomic.Int64 // counts new connections; nil disables it
}

// maxRetries translates retries for go-redis, where 0 means the default.
func (o clientOptions) maxRetries() int {
	if o.retries == 0 {
		return -1
	}
	return o.retries
}

func (o clientOptions) onConnect() func(context.Context, *goredis.Conn) error {
	if o.dials == nil {
		return nil
	}
	return func(context.Context, *goredis.Conn) error { o.dials.Add(1); return nil }
}

// newClient returns a client for t. It does not connect yet. Its only error is
// an unusable ca_file.
//
// All clients use protocol 2 and end each step with the caller's context. The
// notifications of managed services are off: they need protocol 3.
func (t *target) newClient(o clientOptions) (goredis.UniversalClient, error) {
	secure, err := t.tlsConfig()
	if err != nil {
		return nil, err
	}
	switch t.topology {
	case sentinel:
		return t.sentinelClient(o, secure), nil
	case cluster:
		return t.clusterClient(o, secure), nil
	}
	return t.singleClient(o, secure), nil
}

func (t *target) singleClient(o clientOptions, secure *tls.Config) goredis.UniversalClient {
	network := "tcp"
	if t.unixSocket {
		network = "unix"
	}
	return goredis.NewClient(&goredis.Options{
		ClientName: o.name, Network: network, Addr: t.addrs[0],
		Username: t.user, Password: t.password, DB: t.db, TLSConfig: secure,
		Protocol: 2, DisableIdentity: true, ContextTimeoutEnabled: true, OnConnect: o.onConnect(),
		MaxRetries: o.maxRetries(), PoolSize: o.poolSize, PipelinePoolSize: o.pipelines,
		DialTimeout: o.dialTimeout, DialerRetries: 1,
		ReadTimeout: o.ioTimeout, WriteTimeout: o.ioTimeout, PoolTimeout: o.ioTimeout,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
}

func (t *target) sentinelClient(o clientOptions, secure *tls.Config) goredis.UniversalClient {
	return goredis.NewFailoverClient(&goredis.FailoverOptions{
		ClientName: o.name, SentinelAddrs: t.addrs, MasterName: t.master, SentinelPassword: t.sentinelPassword,
		Username: t.user, Password: t.password, DB: t.db, TLSConfig: secure,
		Protocol: 2, DisableIdentity: true, ContextTimeoutEnabled: true, OnConnect: o.onConnect(),
		MaxRetries: o.maxRetries(), PoolSize: o.poolSize, PipelinePoolSize: o.pipelines,
		DialTimeout: o.dialTimeout, DialerRetries: 1,
		ReadTimeout: o.ioTimeout, WriteTimeout: o.ioTimeout, PoolTimeout: o.ioTimeout,
	})
}

func (t *target) clusterClient(o clientOptions, secure *tls.Config) goredis.UniversalClient {
	return goredis.NewClusterClient(&goredis.ClusterOptions{
		ClientName: o.name, Addrs: t.addrs, MaxRedirects: maxRedirects,
		Username: t.user, Password: t.password, TLSConfig: secure,
		Protocol: 2, DisableIdentity: true, ContextTimeoutEnabled: true, OnConnect: o.onConnect(),
		PoolSize: o.poolSize, PipelinePoolSize: o.pipelines,
		MinRetryBackoff: 20 * time.Millisecond, MaxRetryBackoff: 200 * time.Millisecond,
		DialTimeout: o.dialTimeout, DialerRetries: 1,
		ReadTimeout: o.ioTimeout, WriteTimeout: o.ioTimeout, PoolTimeout: o.ioTimeout,
		ClusterStateReloadInterval: 10 * time.Second,
		MaintNotificationsConfig:   &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
}

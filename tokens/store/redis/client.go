package redis

import (
	"context"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// The library prints to the standard error stream by itself. Whatever goes wrong comes back as an error, too.
func init() { logging.Disable() }

const (
	// Calls wait for these: a Redis that is in the same building answers within a millisecond, one that does not
	// within a second and a half will not soon.
	dialTimeout = 1500 * time.Millisecond
	ioTimeout   = 1500 * time.Millisecond
	// tries after the first. Scripts may be sent twice: each knows what it did already.
	tries = 1
	// redirects is how often a cluster may send a command elsewhere, or say "not yet".
	redirects = 4
)

// clientName is what CLIENT LIST shows.
const clientName = "wxproxy"

// settings are what the clients of one target differ in.
type settings struct {
	pool      int // connections, to each server
	pipes     int // more of them, for many commands at once
	tries     int
	timeout   time.Duration
	connected *atomic.Int64 // counts connections; may be nil
}

// newClient connects to nothing yet.
func (t *target) newClient(s settings) (goredis.UniversalClient, error) {
	secure, err := t.tlsConfig()
	if err != nil {
		return nil, err
	}
	tries := s.tries
	if tries == 0 {
		tries = -1 // what the library calls none
	}
	var onConnect func(context.Context, *goredis.Conn) error
	if s.connected != nil {
		onConnect = func(context.Context, *goredis.Conn) error { s.connected.Add(1); return nil }
	}
	switch t.kind {
	case sentinel:
		return goredis.NewFailoverClient(&goredis.FailoverOptions{
			ClientName: clientName, SentinelAddrs: t.addrs, MasterName: t.master, SentinelPassword: t.sentry,
			Username: t.user, Password: t.password, DB: t.db, TLSConfig: secure, OnConnect: onConnect,
			Protocol: 2, DisableIdentity: true, ContextTimeoutEnabled: true, MaxRetries: tries, PoolSize: s.pool, PipelinePoolSize: s.pipes,
			DialTimeout: s.timeout, DialerRetries: 1, ReadTimeout: s.timeout, WriteTimeout: s.timeout, PoolTimeout: s.timeout,
		}), nil
	case cluster:
		return goredis.NewClusterClient(&goredis.ClusterOptions{
			ClientName: clientName, Addrs: t.addrs, MaxRedirects: redirects,
			Username: t.user, Password: t.password, TLSConfig: secure, OnConnect: onConnect,
			Protocol: 2, DisableIdentity: true, ContextTimeoutEnabled: true, PoolSize: s.pool, PipelinePoolSize: s.pipes,
			MinRetryBackoff: 20 * time.Millisecond, MaxRetryBackoff: 200 * time.Millisecond,
			DialTimeout: s.timeout, DialerRetries: 1, ReadTimeout: s.timeout, WriteTimeout: s.timeout, PoolTimeout: s.timeout,
			ClusterStateReloadInterval: 10 * time.Second,
			MaintNotificationsConfig:   &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		}), nil
	}
	network := "tcp"
	if t.socket {
		network = "unix"
	}
	return goredis.NewClient(&goredis.Options{
		ClientName: clientName, Network: network, Addr: t.addrs[0],
		Username: t.user, Password: t.password, DB: t.db, TLSConfig: secure, OnConnect: onConnect,
		Protocol: 2, DisableIdentity: true, ContextTimeoutEnabled: true, MaxRetries: tries, PoolSize: s.pool, PipelinePoolSize: s.pipes,
		DialTimeout: s.timeout, DialerRetries: 1, ReadTimeout: s.timeout, WriteTimeout: s.timeout, PoolTimeout: s.timeout,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}), nil
}

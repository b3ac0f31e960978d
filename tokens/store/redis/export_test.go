package redis

import "time"

// WithPrefix separates the stores of tests that share a Redis.
func (o Options) WithPrefix(prefix string) Options {
	o.prefix = prefix
	return o
}

// WithTimeout sets the timeout of every step, so that a test does not depend on
// the speed of the machine.
func (o Options) WithTimeout(d time.Duration) Options {
	o.timeouts = timeouts{dial: d, io: d, ping: d, poll: d}
	return o
}

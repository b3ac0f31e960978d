package redis

// WithPrefix has the stores of a test apart from those of others on the same Redis.
func (o Options) WithPrefix(prefix string) Options {
	o.prefix = prefix
	return o
}

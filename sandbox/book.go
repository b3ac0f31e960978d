package sandbox

// Bounds that let a sandbox run for days. What falls out is unknown from then on, as it
// would be at WeChat after a while.
const (
	maxTokens   = 100_000
	maxSecrets  = 200_000
	maxAccounts = 100_000
	maxLogins   = 10_000
)

// book is a map that forgets its oldest entries. Entries are never overwritten or taken out by hand.
type book[V any] struct {
	limit int
	m     map[string]V
	order []string
}

func newBook[V any](limit int) book[V] { return book[V]{limit: limit, m: make(map[string]V)} }

func (b *book[V]) get(key string) (V, bool) {
	v, ok := b.m[key]
	return v, ok
}

func (b *book[V]) put(key string, v V) {
	if _, known := b.m[key]; known {
		b.m[key] = v
		return
	}
	b.m[key] = v
	b.order = append(b.order, key)
	if len(b.order) > b.limit {
		delete(b.m, b.order[0])
		b.order = b.order[1:] // append moves the rest to new memory in time
	}
}

// secretList keeps what was given out, the newest last.
type secretList struct{ values []string }

func (l *secretList) add(v string) {
	if v == "" {
		return
	}
	l.values = append(l.values, v)
	if len(l.values) > maxSecrets {
		l.values = l.values[1:]
	}
}

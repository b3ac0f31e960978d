package state

import (
	"slices"
	"sync"
)

// SecretList records the secrets that were given out, so that a test can look
// for them where they must not be. It keeps the last 200,000. The zero value is
// an empty list. It is safe for concurrent use.
type SecretList struct {
	mu     sync.Mutex
	values []string // oldest first
}

// Add records v, unless it is empty, and returns it.
func (l *SecretList) Add(v string) string {
	if v == "" {
		return v
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.values = append(l.values, v)
	if len(l.values) > maxSecrets {
		l.values = l.values[1:]
	}
	return v
}

// All returns a copy of the list, oldest first.
func (l *SecretList) All() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.values)
}

package state

// boundedMap is a map that drops its oldest entry once it holds more than
// limit. Age counts from the first put of a key: replacing the value does not
// renew it. Entries are never deleted otherwise. It is not safe for concurrent
// use.
type boundedMap[V any] struct {
	limit   int
	entries map[string]V
	order   []string // keys, oldest first
}

func newBoundedMap[V any](limit int) boundedMap[V] {
	return boundedMap[V]{limit: limit, entries: make(map[string]V)}
}

func (m *boundedMap[V]) get(key string) (V, bool) {
	v, ok := m.entries[key]
	return v, ok
}

// put adds or replaces the entry of key.
func (m *boundedMap[V]) put(key string, v V) {
	_, known := m.entries[key]
	m.entries[key] = v
	if known {
		return
	}
	m.order = append(m.order, key)
	if len(m.order) > m.limit {
		delete(m.entries, m.order[0])
		// The dropped key stays in the array until append reallocates it, so
		// the waste is bounded by the length of order.
		m.order = m.order[1:]
	}
}

package admission

// list is a doubly linked list whose nodes are part of its values, so that it
// allocates nothing. The zero value is empty.
type list[T any] struct{ first, last *node[T] }

// node links a value into at most one list. The zero value is in none.
type node[T any] struct {
	prev, next *node[T]
	in         *list[T] // nil if it is in none
	value      *T
}

func (l *list[T]) empty() bool { return l.first == nil }

// pushFront adds v, whose node is n.
func (l *list[T]) pushFront(n *node[T], v *T) {
	*n = node[T]{next: l.first, in: l, value: v}
	if l.first != nil {
		l.first.prev = n
	} else {
		l.last = n
	}
	l.first = n
}

// pushBack adds v, whose node is n.
func (l *list[T]) pushBack(n *node[T], v *T) {
	*n = node[T]{prev: l.last, in: l, value: v}
	if l.last != nil {
		l.last.next = n
	} else {
		l.first = n
	}
	l.last = n
}

// remove takes n out of the list it is in, if any.
func (n *node[T]) remove() {
	if n.in == nil {
		return
	}
	if n.prev != nil {
		n.prev.next = n.next
	} else {
		n.in.first = n.next
	}
	if n.next != nil {
		n.next.prev = n.prev
	} else {
		n.in.last = n.prev
	}
	*n = node[T]{}
}

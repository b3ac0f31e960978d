package admission

// turns decides whose waiting request gets the next free slot. The requests of
// each counter wait in a list of their own, so that a thousand requests of an
// account that is at its limit hide no other account.
//
// Among the accounts, the ones that have just begun to wait come first, the
// newest before the others: under overload few connections are active. An
// account that was served while more of its requests wait goes to the end of a
// second list. The two lists take turns. So an account with a few requests gets
// slots soon, however many requests others have waiting, and an account with
// many is not starved by any number of those with few.
//
// Every operation takes constant time, except unblockAll. The zero value is
// empty. It is not safe for concurrent use.
type turns struct {
	keys    [counters]keyQueue
	fresh   list[keyQueue] // not served since they began to wait, the newest first
	served  list[keyQueue] // served before, the one served last at the end
	blocked list[keyQueue] // at the limit per key
	// preferServed is set if the next slot belongs to served.
	preferServed bool
}

// keyQueue holds the requests of one counter that wait, the newest first.
type keyQueue struct {
	waiters list[waiter]
	turn    node[keyQueue] // in one of the lists of turns if any request waits
}

// add adds a request that found no slot because of reason.
func (t *turns) add(w *waiter, reason error) {
	k := &t.keys[w.slot.counter-1]
	k.waiters.pushFront(&w.key, w)
	switch {
	case k.turn.in == nil && reason == ErrKeyLimit:
		t.blocked.pushBack(&k.turn, k)
	case k.turn.in == nil, k.turn.in == &t.fresh:
		k.turn.remove()
		t.fresh.pushFront(&k.turn, k)
	}
}

// remove removes a request that waits.
func (t *turns) remove(w *waiter) {
	w.key.remove()
	if k := &t.keys[w.slot.counter-1]; k.waiters.empty() {
		k.turn.remove()
	}
}

// next returns the counter whose turn it is, nil if none waits. Those at the
// limit per key come last, because they get slots only while less than half of
// all slots is in use.
func (t *turns) next() *keyQueue {
	from := &t.fresh
	if from.empty() || t.preferServed && !t.served.empty() {
		from = &t.served
	}
	if from.empty() {
		from = &t.blocked
	}
	if from.empty() {
		return nil
	}
	return from.first.value
}

// take removes and returns the newest request of k, which got a slot.
func (t *turns) take(k *keyQueue) *waiter {
	t.preferServed = k.turn.in == &t.fresh
	w := k.waiters.first.value
	t.remove(w)
	if !k.waiters.empty() {
		k.turn.remove()
		t.served.pushBack(&k.turn, k)
	}
	return w
}

// block notes that k is at the limit per key.
func (t *turns) block(k *keyQueue) {
	k.turn.remove()
	t.blocked.pushBack(&k.turn, k)
}

// unblock notes that a slot was released with which k may have been at the
// limit.
func (t *turns) unblock(s Slot) {
	if k := &t.keys[s.counter-1]; k.turn.in == &t.blocked {
		k.turn.remove()
		t.served.pushBack(&k.turn, k)
	}
}

// unblockAll notes that the limits have changed.
func (t *turns) unblockAll() {
	for !t.blocked.empty() {
		k := t.blocked.first.value
		k.turn.remove()
		t.served.pushBack(&k.turn, k)
	}
}

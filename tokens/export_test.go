package tokens

// EarlyRenewals returns how many early renewals are scheduled or in flight.
func (b *Broker) EarlyRenewals() int {
	r := b.earlyRenewer
	r.mu.Lock() // both change under the lock, or the renewal schedules the next one first
	defer r.mu.Unlock()
	return len(r.byAppID) + len(r.inFlight)
}

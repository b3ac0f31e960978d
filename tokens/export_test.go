package tokens

// EarlyRenewals returns how many early renewals are scheduled or in flight.
func (b *Broker) EarlyRenewals() int {
	r := b.earlyRenewer
	r.mu.Lock() // both change under the lock, or the renewal schedules the next one first
	defer r.mu.Unlock()
	return len(r.byAppID) + r.inFlight
}

// DecodeAndEncode parses records and formats them again, by the prefix of their
// keys.
var DecodeAndEncode = map[string]func(raw []byte) ([]byte, error){
	"account/": decodeAndEncode[account],
	"ticket/":  decodeAndEncode[ticket],
	"code/":    decodeAndEncode[pendingCode],
	"spent/":   decodeAndEncode[exchangedCode],
	"sync/":    decodeAndEncode[syncRecord],
	"key/":     decodeAndEncode[signingKeyRecord],
	"name/":    decodeAndEncode[nameRecord],
}

func decodeAndEncode[T record](raw []byte) ([]byte, error) {
	r, err := decodeRecord[T](raw)
	if err != nil {
		return nil, err
	}
	return encodeRecord(r), nil
}

// RunMaintenance does the maintenance once, and a comparison if one is due.
func (b *Broker) RunMaintenance() {
	b.maintenance.runOnce()
	b.syncer.runIfDue()
}

// Evict drops the cached token of appid.
func (b *Broker) Evict(appid string) { b.cache.remove(appid) }

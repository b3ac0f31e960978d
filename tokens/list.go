package tokens

import (
	"context"
	"strings"
	"sync"
	"time"

	"wxproxy/tokens/store"
)

// lister pages through the accounts. It remembers where the pages of the last
// complete pass begin. Otherwise each page of a million accounts would cost as
// much as all of them. It is safe for concurrent use.
type lister struct {
	store store.Store
	kind  func(appid string) Kind
	now   func() time.Time

	mu   sync.Mutex
	last listIndex
}

// listIndex holds where the pages of one complete pass begin. The zero value is
// not used by seek.
type listIndex struct {
	filter AccountFilter
	keys   []string // of every indexStep-th account that filter selects
	total  int
	until  time.Time // from then on it is not used
}

const (
	indexStep     = 1000
	indexLifetime = 5 * time.Second
	// indexThreshold is the number of accounts below which the index is not
	// used. Shorter lists are read completely each time, so they are exact.
	indexThreshold = 10_000
)

// list implements [Broker.List].
func (l *lister) list(
	ctx context.Context, offset, limit int, filter AccountFilter,
) (list []Account, total int, err error) {
	filter.Query = strings.ToLower(filter.Query)
	began := l.now()
	n, after, total, indexed := l.seek(filter, offset, began)
	index := listIndex{filter: filter}
	// n is the number of accounts that filter selects up to key. Records outside
	// of the page are parsed only if filter has to look into them.
	err = l.store.List(ctx, accountPrefix, after, func(key string, raw []byte) bool {
		appid := strings.Clone(strings.TrimPrefix(key, accountPrefix))
		inPage := n >= offset && len(list) < limit
		if indexed && n >= offset && !inPage {
			return false // the total is known
		}
		if filter != (AccountFilter{}) || inPage {
			acc, ok := decodeOrMove[account](l.store, key, raw)
			if !ok || !filter.selects(appid, acc) {
				return true
			}
			if inPage {
				list = append(list, newAccountView(appid, l.kind(appid), acc))
			}
		}
		if n++; !indexed && n%indexStep == 0 {
			index.keys = append(index.keys, accountPrefix+appid)
		}
		return true
	})
	if !indexed {
		total = n
		if err == nil {
			// A pass that took long serves for longer.
			now := l.now()
			index.total, index.until = total, now.Add(max(indexLifetime, 5*now.Sub(began)))
			l.mu.Lock()
			l.last = index
			l.mu.Unlock()
		}
	}
	return list, total, err
}

// selects reports whether f selects an account. f.Query must be lower case.
func (f AccountFilter) selects(appid string, acc *account) bool {
	if f.State != "" && acc.state() != f.State {
		return false
	}
	return f.Query == "" ||
		strings.Contains(strings.ToLower(appid), f.Query) ||
		strings.Contains(strings.ToLower(acc.Name), f.Query)
}

// seek returns the indexed position nearest before offset: how many accounts
// are before it, and the key of the last of them. ok is false if the index
// cannot be used; then the list is read from its beginning.
func (l *lister) seek(
	filter AccountFilter, offset int, now time.Time,
) (n int, after string, total int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	index := &l.last
	if filter != index.filter || !now.Before(index.until) || index.total < indexThreshold {
		return 0, "", 0, false
	}
	if i := min(offset/indexStep, len(index.keys)); i > 0 {
		n, after = i*indexStep, index.keys[i-1]
	}
	return n, after, index.total, true
}

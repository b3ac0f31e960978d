package tokens

import "context"

// Known says whether a call for appid would have an account: nil, ErrUnknownAccount, ErrRevoked, or a fault of the
// store. WeChat is not asked.
func (b *Broker) Known(ctx context.Context, appid string) error {
	if _, ok := b.cache.get(appid); ok || b.Kind(appid) != Authorizer {
		return nil
	}
	acc, err := b.loadAccount(ctx, appid)
	switch {
	case err != nil:
		return err
	case acc == nil:
		return ErrUnknownAccount
	case acc.Gone:
		return ErrRevoked
	}
	return nil
}

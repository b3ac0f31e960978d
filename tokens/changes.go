package tokens

import (
	"context"
	"fmt"
)

// Change is a change of an authorization that no push has announced. WeChat's
// list shows it, or WeChat's answer to a question about the account.
type Change struct {
	AppID string
	// IsAuthorized is set if the account authorizes the component, and not set
	// if it has revoked its authorization.
	IsAuthorized bool
	// ID is the same if the change is reported again, because it could not be
	// saved, and differs between changes of one account.
	ID string
}

// report reports a change of an authorization before it is saved. before is the
// record without the change, nil for an account without one. After an error the
// change must not be saved: it is found again, and reported with the same ID.
//
// It reports neither the return of a forgotten account, which an operator has
// decided, nor an authorization whose push has brought a code that waits.
func (a *accounts) report(
	ctx context.Context, appid string, before *account, isAuthorized bool,
) error {
	if before.isForgotten() {
		return nil
	}
	if isAuthorized {
		p, err := loadRecord[pendingCode](ctx, a.store, pendingCodeKey(appid))
		if err != nil || p != nil {
			return err
		}
	}
	if before == nil {
		before = newAccount(Authorizer)
	}
	// Each return has a newer authorization than the one before, and each
	// withdrawal ends one.
	id := fmt.Sprint(before.newestAuthorization(), before.RevokedAt, before.FoundAt)
	return a.changed(ctx, Change{AppID: appid, IsAuthorized: isAuthorized, ID: id})
}

// isBaseline reports whether the accounts were compared with WeChat's list
// before, in the data that the store has now. If not, accounts without a record
// are no news: the platform is older than the store, or the store was lost.
func (s *syncer) isBaseline(rec *syncRecord) bool {
	return rec != nil && rec.Done != 0 && !lostRecords(rec.Data, s.data.known())
}

// knowsAccounts is isBaseline for the stored record.
func (s *syncer) knowsAccounts(ctx context.Context) (bool, error) {
	rec, err := loadRecord[syncRecord](ctx, s.store, syncKey(s.component.appid()))
	return s.isBaseline(rec), err
}

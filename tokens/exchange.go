package tokens

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// exchanger exchanges authorization codes for tokens. A code arrives twice,
// with the merchant's browser and as a push, in any order, and WeChat accepts
// it once. It is safe for concurrent use.
type exchanger struct {
	store     store.Store
	accounts  *accounts
	component *componentAPI
	tasks     *taskGroup
	now       func() time.Time
	log       *slog.Logger

	// onAuthorized is called after the tokens of a new authorization were
	// saved. epoch is the cache's, read under the account's lock.
	onAuthorized func(appid string, acc *account, epoch uint64)
	epoch        func(appid string) uint64

	mu       sync.Mutex
	attempts map[string]*exchangeAttempt // scheduled or running, by appid; nil after stop
	pushed   map[string]time.Time        // keys of codes that were pushed to this process, and when
}

// maxNodeSkew is by how many seconds the clocks of WeChat's servers may differ.
const maxNodeSkew = 2

// errForeignCode: WeChat exchanged the code for another account's tokens.
var errForeignCode = errors.New("authorization code belongs to another account")

// codeUnusable reports whether trying the code again cannot help.
func codeUnusable(err error) bool {
	switch wechat.Code(err) {
	case wechat.CodeCodeInvalid, wechat.CodeCodeExpired, wechat.CodeNotAuthorized,
		codeOAuthInvalid, codeOAuthUsed:
		return true
	}
	return errors.Is(err, errForeignCode)
}

// exchangeOnce calls exchange unless the code was exchanged before, and returns
// its account. A concurrent call with the same code waits: it holds the code's
// lock while exchange runs. That lock is taken before an account's.
//
// state is the fingerprint of the state that a browser brought, "" if the code
// did not come with a browser. See [exchangedCode.bind].
//
// It records the code only if exchange returns an account without an error.
func (x *exchanger) exchangeOnce(
	ctx context.Context, code wechat.Secret, state string,
	exchange func(ctx context.Context) (Authorization, error),
) (done Authorization, err error) {
	key := exchangedCodeKey(code)
	if done, known, err := x.exchangedUnsaved(ctx, key, state); known || err != nil {
		return done, err
	}
	var change *unsavedChange
	once := func(ctx context.Context, before *exchangedCode) (*exchangedCode, error) {
		if before != nil {
			bound, err := before.bind(state, x.now())
			if err == nil {
				done = before.authorization()
			}
			return bound, err
		}
		var err error
		if done, err = exchange(ctx); err != nil || done.AppID == "" {
			return nil, err
		}
		r := &exchangedCode{
			recordFormat: currentFormat,
			AppID:        done.AppID, FuncInfo: done.FuncInfo, At: millis(x.now()), State: state,
		}
		done = r.authorization()
		save := func(stored *exchangedCode) *exchangedCode {
			if stored != nil {
				return nil
			}
			return r
		}
		change = x.accounts.store.add(key, unsavedRecord(save))
		return r, nil
	}
	err = updateRecord(ctx, x.store, key, once)
	if err != nil && change == nil {
		// The code may have been exchanged while this call waited for its lock.
		if done, known, err := x.exchangedUnsaved(ctx, key, state); known {
			return done, err
		}
	}
	return done, x.accounts.store.finish(change, err)
}

// exchangedUnsaved is exchangeOnce for a code that was exchanged and whose
// record could not be saved yet. known is false for all other codes.
func (x *exchanger) exchangedUnsaved(
	ctx context.Context, key, state string,
) (done Authorization, known bool, err error) {
	x.mu.Lock() // of two states, one binds the code
	defer x.mu.Unlock()
	if len(x.accounts.store.visible(key)) == 0 {
		return done, false, nil
	}
	r, err := loadRecord[exchangedCode](ctx, x.store, key)
	if err != nil || r == nil {
		return done, false, err
	}
	bound, err := r.bind(state, x.now())
	if err == nil && bound != nil {
		bind := func(stored *exchangedCode) *exchangedCode {
			if stored == nil || stored.State != "" {
				return nil
			}
			stored.State = bound.State
			return stored
		}
		c := x.accounts.store.add(key, unsavedRecord(bind))
		err = x.accounts.store.finish(c, errUnsaved)
	}
	return r.authorization(), true, err
}

// bind checks that state is the one with which the code came. Otherwise a
// merchant that has learned a used code could return with it to a session of
// its own, and so claim another account.
//
// If a push brought the code, the first browser binds it: then bind returns the
// record to save. That is possible while the browser's code can be valid, and
// not for as long as the record is kept.
func (c *exchangedCode) bind(state string, now time.Time) (*exchangedCode, error) {
	switch {
	case state == "", state == c.State:
		return nil, nil
	case c.State != "", elapsed(now, c.At) >= defaultCodeLifetime:
		return nil, ErrForeignState
	}
	c.State = state
	return c, nil
}

// authorization returns what the code was exchanged for.
func (c *exchangedCode) authorization() Authorization {
	return Authorization{AppID: c.AppID, FuncInfo: c.FuncInfo, At: fromMillis(c.At)}
}

// isKnown reports whether the code needs no call to WeChat on behalf of the
// client that presents it: it was exchanged, or WeChat has pushed it.
func (x *exchanger) isKnown(ctx context.Context, code wechat.Secret) (bool, error) {
	key := exchangedCodeKey(code)
	x.mu.Lock()
	_, pushed := x.pushed[key]
	x.mu.Unlock()
	if pushed {
		return true, nil
	}
	r, err := loadRecord[exchangedCode](ctx, x.store, key)
	return r != nil, err
}

// fromClient exchanges a code that a client presented: the merchant's browser,
// or a service. Only WeChat's response says which account it belongs to, so the
// account is locked after the exchange. A push may be quicker:
//
//  1. browser: exchange code 1; WeChat issues token T1
//  2. push:    lock; exchange code 2; save T2, which invalidates T1; unlock
//  3. browser: lock; save T1 (must not happen)
//
// state is that of exchangeOnce.
func (x *exchanger) fromClient(
	ctx context.Context, code wechat.Secret, state string,
) (Authorization, error) {
	return x.exchangeOnce(ctx, code, state, func(ctx context.Context) (Authorization, error) {
		if err := x.accounts.store.writable(exchangedCodeKey(code)); err != nil {
			return Authorization{}, err
		}
		began := x.now()
		grant, err := x.component.queryAuth(ctx, code)
		if err != nil {
			return Authorization{}, err
		}
		now := x.now()
		err = x.accounts.store.saveGrant(ctx, grant.AppID, func(acc *account) *account {
			if acc == nil {
				acc = newAccount(Authorizer)
			}
			if acc.CodeFingerprint == code.Fingerprint() {
				return nil // it was saved already
			}
			switch {
			case !acc.IsRevoked && isAfter(acc.IssuedAt, began, x.now()):
				return nil // a push was quicker
			case !grant.Date.IsZero() && acc.RevokedAt > unixSeconds(grant.Date)+maxNodeSkew,
				isAfter(acc.ForgottenAt, now, x.now()):
				return nil // the grant was kept, and the account has ended meanwhile
			}
			// A browser does not say when the authorization was, and wxproxy's
			// clock may differ from WeChat's.
			acc.applyAuthorization(grant, 0, now)
			acc.dateUnpushed(grant.Date)
			acc.CodeFingerprint = code.Fingerprint()
			return acc
		})
		if err != nil {
			return Authorization{}, err
		}
		epoch := x.epoch(grant.AppID) // before the load; see cache.put
		acc, err := x.accounts.load(ctx, grant.AppID)
		if err == nil && acc != nil && acc.CodeFingerprint == code.Fingerprint() {
			x.onAuthorized(grant.AppID, acc, epoch)
		}
		return Authorization{AppID: grant.AppID, FuncInfo: grant.FuncInfo}, nil
	})
}

// exchangePending exchanges the pending code of appid. done is set if nothing
// is left to do, even if the code turned out to be unusable.
func (x *exchanger) exchangePending(ctx context.Context, appid string) (done bool, err error) {
	p, err := loadRecord[pendingCode](ctx, x.store, pendingCodeKey(appid))
	if err != nil || p == nil {
		return err == nil, err
	}
	code := wechat.NewSecret(p.Code)
	// If the merchant's browser presented the same code, there is no exchange.
	_, err = x.exchangeOnce(ctx, code, "", func(ctx context.Context) (Authorization, error) {
		return x.exchangeLocked(ctx, appid, p)
	})
	if err != nil {
		return false, err
	}
	if err := x.accounts.setAuthorizedAt(ctx, appid, code, p.Created); err != nil {
		return false, err
	}
	if err := x.revive(ctx, appid, p); err != nil {
		return false, err
	}
	return true, x.deletePending(ctx, appid, p)
}

// revive makes a revoked account active again if its code was exchanged before
// and its push says that the authorization is the newer of the two:
//
//  1. browser: exchange the code of a new authorization
//  2. push:    the account revoked its authorization, before that
//  3. push:    the new authorization, with the code of 1
//
// In 2 the authorization of 1 may have had no date. WeChat is asked, because
// the tokens of 1 are deleted then. A code that was exchanged before does not
// bring a forgotten account back.
func (x *exchanger) revive(ctx context.Context, appid string, p *pendingCode) error {
	needed := func(acc *account) bool {
		return acc != nil && acc.IsRevoked && !acc.isForgotten() && p.mayChange(acc)
	}
	if acc, err := x.accounts.load(ctx, appid); err != nil || !needed(acc) {
		return err
	}
	return x.accounts.update(ctx, appid, func(ctx context.Context, acc *account) (*account, error) {
		if !needed(acc) {
			return nil, nil
		}
		answer, authorized, err := x.component.queryAuthorizer(ctx, appid)
		if err != nil || !authorized {
			return nil, err
		}
		acc.reinstate(answer.Refresh, p.Created, answer.Date, x.now())
		acc.CodeFingerprint = p.secret().Fingerprint()
		return acc, nil
	})
}

// exchangeLocked exchanges p while it holds the account's lock from beginning
// to end. So no code is exchanged twice, and this cannot happen:
//
//  1. renewal:  load refresh token R1; ask WeChat for a token
//  2. exchange: exchange the code; save the new refresh token R2
//  3. renewal:  save R1 (must not happen)
//
// It returns no account if the code is unusable.
func (x *exchanger) exchangeLocked(
	ctx context.Context, appid string, p *pendingCode,
) (done Authorization, err error) {
	code := wechat.NewSecret(p.Code)
	var saved *account
	var epoch uint64
	var change *unsavedChange
	err = x.accounts.update(ctx, appid, func(ctx context.Context, acc *account) (*account, error) {
		epoch = x.epoch(appid)
		from := acc.clone()
		// Another process may have exchanged or given up the code meanwhile.
		left, err := loadRecord[pendingCode](ctx, x.store, pendingCodeKey(appid))
		if err != nil || left == nil || left.Code != p.Code {
			return nil, err
		}
		if acc == nil {
			acc = newAccount(Authorizer)
		}
		if acc.CodeFingerprint == code.Fingerprint() && !acc.IsRevoked {
			done.AppID = appid // exchanged before a crash
			return nil, nil
		}
		if !p.mayChange(acc) {
			return nil, nil
		}
		if err := x.accounts.store.writable(accountKey(appid)); err != nil {
			return nil, err
		}
		grant, err := x.query(ctx, appid, acc, p)
		if err != nil || grant == nil {
			return nil, err
		}
		acc.applyAuthorization(*grant, p.Created, x.now())
		acc.CodeFingerprint = code.Fingerprint()
		change = x.accounts.store.addGrant(appid, from, acc)
		saved, done = acc, Authorization{AppID: appid, FuncInfo: grant.FuncInfo}
		return acc, nil
	})
	err = x.accounts.store.finish(change, err)
	if err == nil && saved != nil {
		x.onAuthorized(appid, saved, epoch)
	}
	return done, err
}

// query exchanges p at WeChat. If WeChat says that the code is of no use,
// because it was exchanged elsewhere or has expired, and the account has no
// refresh token, it returns the one that WeChat holds. It returns nil, and has
// deleted p, if there is nothing to save: the account needs no token, or does
// not authorize the component. It does not change acc.
//
// Only WeChat's answers count. While there is none, the code is kept, however
// old it is.
func (x *exchanger) query(
	ctx context.Context, appid string, acc *account, p *pendingCode,
) (*wechat.Grant, error) {
	grant, err := x.component.queryAuth(ctx, wechat.NewSecret(p.Code))
	if err == nil && grant.AppID != appid {
		err = errForeignCode
	}
	if err == nil {
		return &grant, nil
	}
	if !codeUnusable(err) {
		return nil, err
	}
	x.log.Warn("authorization code unusable", "account", appid, "error", err)
	if acc.Refresh != "" && !acc.IsRevoked {
		return nil, x.deletePending(ctx, appid, p)
	}
	answer, authorized, err := x.component.queryAuthorizer(ctx, appid)
	if err != nil {
		return nil, err
	}
	if !authorized {
		x.log.Error("authorization lost, account has to authorize again", "account", appid)
		return nil, x.deletePending(ctx, appid, p)
	}
	if answer.Refresh.IsEmpty() {
		answer.Refresh = wechat.NewSecret(acc.Refresh) // kept from before; see markFound
	}
	return &wechat.Grant{AppID: appid, Refresh: answer.Refresh}, nil
}

// deletePending deletes p unless a newer code replaced it.
func (x *exchanger) deletePending(ctx context.Context, appid string, p *pendingCode) error {
	return deleteRecord(ctx, x.store, pendingCodeKey(appid), func(stored *pendingCode) bool {
		return stored.Code == p.Code
	})
}

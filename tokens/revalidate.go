package tokens

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"wxproxy/wechat"
)

// Revalidate is called when WeChat rejected a request for appid with errcode.
// For 61003 and 42007, which may mean that the authorization ended, it asks
// WeChat in the background whether it still stands, and marks the account
// revoked or renews its token. It asks at most once in ten minutes for an
// account. It does nothing for all other codes, and returns at once.
func (b *Broker) Revalidate(appid string, errcode int) {
	switch errcode {
	case wechat.CodeNotAuthorized, wechat.CodePasswordChanged:
		if b.Kind(appid) == Authorizer {
			b.revalidator.start(appid, errcode)
		}
	}
}

// revalidator asks WeChat about accounts whose records may be wrong: those that
// WeChat rejects, those that are revoked and called all the same, and those
// that are called although they are unknown. It is safe for concurrent use.
//
// Only WeChat's answers count. A question that was not answered changes nothing
// and is asked again after unansweredPause.
type revalidator struct {
	accounts  *accounts
	component *componentAPI
	tasks     *taskGroup
	now       func() time.Time
	log       *slog.Logger

	// renew returns a token of appid that differs from stale.
	renew func(ctx context.Context, appid string, stale wechat.Secret) error
	// sync compares all accounts with WeChat's list.
	sync func(ctx context.Context) error
	// knowsAccounts reports whether an account without a record is news.
	knowsAccounts func(ctx context.Context) (bool, error)

	inFlight chan struct{} // a slot for each question in the background
	asking   chan struct{} // a slot for each question about an unknown account
	flights  singleflight.Group

	mu       sync.Mutex
	rejected map[string]time.Time // next check after a rejection, by appid
	revoked  map[string]time.Time // next question about a revoked account, by appid
	unknown  map[string]time.Time // until when WeChat's answer "not authorized" counts, by appid
	pause    time.Time            // until then WeChat is not asked about unknown accounts
	compared time.Time            // last attempt of compare
	// limiter bounds WeChat's answers that an unknown account is not
	// authorized, and recheckLimiter the questions about revoked ones.
	limiter        *rate.Limiter
	recheckLimiter *rate.Limiter
}

const (
	// revalidatePause is the least time between two answers about an account
	// after a rejection, and how long the answer about an unknown one counts.
	revalidatePause = 10 * time.Minute
	// unansweredPause is the least time between a question that WeChat did not
	// answer and the next.
	unansweredPause = time.Second
	// maxRemembered bounds the accounts that are remembered. When that many
	// were asked about within a pause, no more questions are asked.
	maxRemembered = 10_000
	// maxRevalidations bounds the questions in flight, of each sort.
	maxRevalidations = 4
	// discoverBurst answers that an unknown account is not authorized are
	// allowed at once, then one every discoverEvery. That is some 9,000 a day,
	// so that calls for made-up appids cannot exhaust the quota. Accounts that
	// turn out to be authorized use up nothing.
	discoverBurst = 30
	discoverEvery = 10 * time.Second
	// recheckBurst questions about revoked accounts are allowed at once, then
	// one every recheckEvery: some 43,000 a day, if 30 and more are called all
	// the time.
	recheckBurst = 30
	recheckEvery = 2 * time.Second
	// comparePause is the least time between two comparisons with WeChat's
	// list because of unknown accounts.
	comparePause = time.Hour
)

// newRevalidator returns a revalidator without the functions of other parts.
func newRevalidator(
	a *accounts, c *componentAPI, tasks *taskGroup, now func() time.Time, log *slog.Logger,
) *revalidator {
	return &revalidator{
		accounts: a, component: c, tasks: tasks, now: now, log: log,
		inFlight: make(chan struct{}, maxRevalidations),
		asking:   make(chan struct{}, maxRevalidations),
		rejected: map[string]time.Time{},
		revoked:  map[string]time.Time{},
		unknown:  map[string]time.Time{},

		limiter:        rate.NewLimiter(rate.Every(discoverEvery), discoverBurst),
		recheckLimiter: rate.NewLimiter(rate.Every(recheckEvery), recheckBurst),
	}
}

// start checks appid in the background, unless that was done a short while ago.
func (v *revalidator) start(appid string, errcode int) {
	v.mu.Lock()
	due := remember(v.rejected, appid, v.now(), revalidatePause)
	v.mu.Unlock()
	if due {
		go v.inBackground(v.rejected, appid, func(ctx context.Context) error {
			return v.check(ctx, appid, errcode)
		})
	}
}

// recheck asks WeChat in the background whether a revoked account authorizes
// the component again, if that is due. acc is the record as it was read.
func (v *revalidator) recheck(appid string, acc *account) {
	now := v.now()
	if !acc.recheckDue(now) {
		return
	}
	v.mu.Lock()
	// Ask the limiter last: a question that is not asked must not use it up.
	due := v.recheckLimiter.TokensAt(now) >= 1 &&
		remember(v.revoked, appid, now, recheckPause) && v.recheckLimiter.AllowN(now, 1)
	v.mu.Unlock()
	if due {
		go v.inBackground(v.revoked, appid, func(ctx context.Context) error {
			_, err := v.ask(ctx, appid, func(acc *account) bool { return acc.recheckDue(v.now()) })
			return err
		})
	}
}

// inBackground runs a question about appid, which asked remembers. If there is
// no answer, the next may be asked after unansweredPause.
func (v *revalidator) inBackground(
	asked map[string]time.Time, appid string, question func(ctx context.Context) error,
) {
	err := v.tasks.run(v.tasks.ctx, taskTimeout, func(ctx context.Context) error {
		select {
		case v.inFlight <- struct{}{}:
			defer func() { <-v.inFlight }()
		case <-ctx.Done():
			return ctx.Err() // too many at once
		}
		return question(ctx)
	})
	if err == nil {
		return
	}
	v.mu.Lock()
	asked[appid] = v.now().Add(unansweredPause)
	v.mu.Unlock()
	if !errors.Is(err, ErrClosed) {
		v.log.Warn("revalidation failed", "account", appid, "error", err)
	}
}

// check finds out what a rejection with errcode means, and records it.
func (v *revalidator) check(ctx context.Context, appid string, errcode int) error {
	acc, err := v.accounts.load(ctx, appid)
	if err != nil || acc == nil || acc.IsRevoked {
		return err
	}
	if errcode == wechat.CodePasswordChanged {
		// WeChat says that both tokens are invalid. A renewal shows whether it
		// holds another refresh token. Its failures are recorded and logged.
		err := v.renew(ctx, appid, wechat.NewSecret(acc.Access))
		switch {
		case errors.Is(err, ErrRevoked), errors.Is(err, ErrForgotten),
			errors.Is(err, ErrUnavailable), errors.Is(err, ErrThrottled):
			return nil
		}
		return err
	}
	_, authorized, err := v.component.queryAuthorizer(ctx, appid)
	if err != nil || authorized {
		return err
	}
	return v.accounts.confirmRevoked(ctx, appid, acc)
}

// ask asks WeChat whether appid authorizes the component, and records the
// answer, which it returns. It holds the account's lock meanwhile, so that of
// all processes one asks, and a new authorization waits:
//
//  1. wxproxy:  ask WeChat: not authorized
//  2. merchant: authorize again; its push is recorded
//  3. wxproxy:  record the answer (must not happen)
//
// due decides under the lock whether the question is asked; acc is nil for an
// account without a record. An account that is forgotten is not any more.
func (v *revalidator) ask(
	ctx context.Context, appid string, due func(acc *account) bool,
) (authorized bool, err error) {
	changed := false
	err = v.accounts.update(ctx, appid, func(ctx context.Context, acc *account) (*account, error) {
		if !due(acc) {
			return nil, nil
		}
		answer, is, err := v.component.queryAuthorizer(ctx, appid)
		if err != nil {
			return nil, err
		}
		now := v.now()
		switch authorized = is; {
		case is:
			if err := v.accounts.report(ctx, appid, acc, true); err != nil {
				return nil, err
			}
			if acc == nil {
				acc = newAccount(Authorizer)
			}
			acc.reinstate(answer.Refresh, 0, answer.Date, now)
			changed = true
		case acc == nil:
			return nil, nil
		default:
			acc.ForgottenAt, acc.IsRestorable = 0, false
			acc.confirm(now)
		}
		return acc, nil
	})
	if err == nil && changed {
		v.accounts.cache.remove(appid)
		v.log.Info("account is authorized, as WeChat answered", "account", appid)
	}
	return authorized, err
}

// askForOperator is ask for a revoked, forgotten or unknown account, at once
// and whatever was asked before. It returns ErrRevoked or ErrUnknownAccount if
// WeChat answers that the account is not authorized.
func (v *revalidator) askForOperator(ctx context.Context, appid string) error {
	if v.component.appid() == "" {
		return ErrUnknownAccount
	}
	denied, asked := error(nil), false
	authorized, err := v.ask(ctx, appid, func(acc *account) bool {
		asked = acc == nil || acc.IsRevoked
		denied = ErrRevoked
		if acc == nil {
			denied = ErrUnknownAccount
		}
		return asked
	})
	if err == nil && asked && !authorized {
		return denied
	}
	return err
}

// discover asks WeChat about an account without a record, whose push may have
// been lost, and adds it. Callers that ask about the same account share one
// question. It returns ErrUnknownAccount only if WeChat answered that the
// account is not authorized, and ErrUnavailable if WeChat did not answer or may
// not be asked now.
func (v *revalidator) discover(ctx context.Context, appid string) error {
	ch := v.flights.DoChan(appid, func() (any, error) {
		return nil, v.tasks.run(v.tasks.ctx, taskTimeout, func(ctx context.Context) error {
			return v.discoverOnce(ctx, appid)
		})
	})
	select {
	case res := <-ch:
		return res.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (v *revalidator) discoverOnce(ctx context.Context, appid string) error {
	if err := v.mayDiscover(appid); err != nil {
		return err
	}
	select {
	case v.asking <- struct{}{}:
		defer func() { <-v.asking }()
	case <-ctx.Done():
		return v.unanswered(ctx.Err())
	}
	if err := v.mayDiscover(appid); err != nil { // it may have changed meanwhile
		return err
	}
	answer, authorized, err := v.component.queryAuthorizer(ctx, appid)
	switch {
	case err != nil:
		return v.unanswered(err)
	case authorized:
		v.log.Info("unknown account found at WeChat", "account", appid)
		isNews, err := v.knowsAccounts(ctx)
		if err == nil {
			_, err = v.accounts.adopt(ctx, answer, time.Time{}, isNews)
		}
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.limiter.ReserveN(v.now(), 1) // even if concurrent questions have used it up
	remember(v.unknown, appid, v.now(), revalidatePause)
	return ErrUnknownAccount
}

// mayDiscover returns nil if WeChat may be asked about an unknown account.
func (v *revalidator) mayDiscover(appid string) error {
	now := v.now()
	v.mu.Lock()
	defer v.mu.Unlock()
	if now.Before(v.unknown[appid]) {
		return ErrUnknownAccount
	}
	if now.Before(v.pause) {
		return &unavailableError{reason: notAsked + "it did not respond", retryAt: v.pause}
	}
	missing := 1 - v.limiter.TokensAt(now)
	if missing <= 0 && len(v.unknown) < maxRemembered {
		return nil
	}
	// A flood of calls for made-up appids must not hide the account of a
	// merchant whose push was lost. WeChat's list names it.
	if now.Sub(v.compared) >= comparePause {
		v.compared = now
		go v.compare()
	}
	wait := time.Duration(max(missing, 0.1) * float64(discoverEvery))
	return &unavailableError{
		reason: notAsked + "too many unknown accounts are called", retryAt: now.Add(wait),
	}
}

// compare compares all accounts with WeChat's list, because more unknown
// accounts are called than WeChat may be asked about. Of all processes, one
// does so, once in comparePause.
func (v *revalidator) compare() {
	_ = v.tasks.run(v.tasks.background, 0, func(ctx context.Context) error {
		until := time.Now().Add(comparePause) // claims end by the clock of the store
		key := "compare-for-unknown/" + v.component.appid()
		if first, err := v.accounts.store.Claim(ctx, key, until); err != nil || !first {
			return err
		}
		v.log.Warn("many unknown accounts are called, comparing accounts with WeChat's list")
		return v.sync(ctx)
	})
}

// notAsked begins the texts of errors about accounts that are not known.
const notAsked = "unknown account, and WeChat cannot be asked about it now: "

// unanswered returns the error of a question about an unknown account that
// WeChat did not answer, and pauses such questions for a moment.
func (v *revalidator) unanswered(err error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.pause = v.now().Add(unansweredPause)
	retryAt := v.pause
	var u *unavailableError
	if errors.As(err, &u) && u.retryAt.After(retryAt) {
		retryAt = u.retryAt
	}
	return &unavailableError{reason: notAsked + err.Error(), retryAt: retryAt, cause: err}
}

// remember reports whether appid may be asked about, and if so, notes that it
// may not for a pause. next has the time of the next question by appid.
func remember(
	next map[string]time.Time, appid string, now time.Time, pause time.Duration,
) bool {
	if at, ok := next[appid]; ok && now.Before(at) {
		return false
	}
	if len(next) >= maxRemembered {
		for a, at := range next {
			if !now.Before(at) {
				delete(next, a)
			}
		}
		if len(next) >= maxRemembered {
			return false
		}
	}
	next[appid] = now.Add(pause)
	return true
}

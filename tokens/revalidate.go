package tokens

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

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
// WeChat rejects, and those that are called although they are unknown. It is
// safe for concurrent use.
type revalidator struct {
	accounts  *accounts
	component *componentAPI
	tasks     *taskGroup
	now       func() time.Time
	log       *slog.Logger

	// renew returns a token of appid that differs from stale.
	renew func(ctx context.Context, appid string, stale wechat.Secret) error

	inFlight chan struct{} // a slot for each check that runs

	mu       sync.Mutex
	rejected map[string]time.Time // last check after a rejection, by appid
	unknown  map[string]time.Time // last question about an unknown account, by appid
	limiter  *rate.Limiter        // of questions about unknown accounts
}

const (
	// revalidatePause is the least time between two questions about one
	// account.
	revalidatePause = 10 * time.Minute
	// maxRemembered bounds the accounts that are remembered. When that many
	// were asked about within revalidatePause, no more questions are asked.
	maxRemembered = 10_000
	// maxRevalidations bounds the checks in flight.
	maxRevalidations = 4
	// discoverBurst questions about unknown accounts are allowed at once, then
	// one every discoverEvery. That is some 3,000 a day, so that calls for
	// made-up appids cannot exhaust the quota.
	discoverBurst = 30
	discoverEvery = 30 * time.Second
)

// start checks appid in the background, unless that was done a short while ago.
func (v *revalidator) start(appid string, errcode int) {
	v.mu.Lock()
	due := remember(v.rejected, appid, v.now(), revalidatePause)
	v.mu.Unlock()
	if !due {
		return
	}
	go func() {
		err := v.tasks.run(v.tasks.ctx, taskTimeout, func(ctx context.Context) error {
			select {
			case v.inFlight <- struct{}{}:
				defer func() { <-v.inFlight }()
			case <-ctx.Done():
				return nil // too many at once; a later rejection asks again
			}
			return v.check(ctx, appid, errcode)
		})
		if err != nil && !errors.Is(err, ErrClosed) {
			v.log.Warn("revalidation failed", "account", appid, "errcode", errcode, "error", err)
		}
	}()
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
		case errors.Is(err, ErrRevoked), errors.Is(err, ErrUnavailable), errors.Is(err, ErrThrottled):
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

// discover asks WeChat about an account without a record, whose push may have
// been lost. found is set if the account has a record now.
func (v *revalidator) discover(ctx context.Context, appid string) (found bool) {
	if v.component.appid() == "" || !v.mayDiscover(appid) {
		return false
	}
	listed, authorized, err := v.component.queryAuthorizer(ctx, appid)
	if err != nil || !authorized {
		return false
	}
	v.log.Info("unknown account found at WeChat", "account", appid)
	_, err = v.accounts.adopt(ctx, listed, time.Time{})
	return err == nil
}

// mayDiscover reports whether WeChat may be asked about an unknown account, and
// if so, counts the question.
func (v *revalidator) mayDiscover(appid string) bool {
	now := v.now()
	v.mu.Lock()
	defer v.mu.Unlock()
	// Ask the limiter last: a question that is not asked must not use it up.
	return v.limiter.TokensAt(now) >= 1 &&
		remember(v.unknown, appid, now, revalidatePause) &&
		v.limiter.AllowN(now, 1)
}

// remember reports whether appid was not asked about for a pause, and if so,
// notes that it is now.
func remember(
	asked map[string]time.Time, appid string, now time.Time, pause time.Duration,
) bool {
	if last, ok := asked[appid]; ok && now.Sub(last) < pause {
		return false
	}
	if len(asked) >= maxRemembered {
		for a, at := range asked {
			if now.Sub(at) >= pause {
				delete(asked, a)
			}
		}
		if len(asked) >= maxRemembered {
			return false
		}
	}
	asked[appid] = now
	return true
}

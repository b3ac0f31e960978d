package tokens

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"wxproxy/tokens/governor"
	"wxproxy/wechat"
)

// unanswered notes the renewals that failed in this process without an answer
// of WeChat about the account: WeChat did not respond, or rejected a new token
// of the component. That is no reason for other replicas to wait, so it is not
// stored. It is safe for concurrent use.
type unanswered struct {
	now func() time.Time

	mu       sync.Mutex
	accounts map[string]unansweredRenewals // by appid
}

// unansweredRenewals are those of one account since the last answer.
type unansweredRenewals struct {
	count   int
	reason  string
	retryAt time.Time
}

const (
	// maxUnanswered bounds the accounts that are remembered. Others are tried
	// again at once, as far as the governor lets them.
	maxUnanswered = 10_000
	// maxUnansweredPause bounds the pause of one account. It is short, because
	// an account that has no token must have one soon after WeChat is back.
	maxUnansweredPause = 10 * time.Second
)

// note records a failed renewal of appid, and returns the error for its
// callers.
func (u *unanswered) note(appid, reason string, cause error) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.now()
	f := u.accounts[appid]
	f.count, f.reason = f.count+1, reason
	f.retryAt = now.Add(min(backoff(f.count), maxUnansweredPause))
	if len(u.accounts) >= maxUnanswered {
		for other, of := range u.accounts {
			if now.Sub(of.retryAt) >= time.Minute {
				delete(u.accounts, other)
			}
		}
	}
	if _, known := u.accounts[appid]; known || len(u.accounts) < maxUnanswered {
		u.accounts[appid] = f
	}
	return &unavailableError{reason: reason, retryAt: f.retryAt, cause: cause}
}

// answered forgets the failures of appid.
func (u *unanswered) answered(appid string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.accounts, appid)
}

// last returns the failures of appid since WeChat last answered; false if there
// are none.
func (u *unanswered) last(appid string) (unansweredRenewals, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f, ok := u.accounts[appid]
	return f, ok
}

// check returns ErrUnavailable during the pause after a failure.
func (u *unanswered) check(appid string) error {
	f, ok := u.last(appid)
	if !ok || !u.now().Before(f.retryAt) {
		return nil
	}
	return &unavailableError{reason: f.reason, retryAt: f.retryAt}
}

// isUnanswered reports whether a failed renewal says nothing about its account:
// WeChat did not answer, or not yet, or keeps rejecting the component's token.
func isUnanswered(err error) bool {
	if errors.Is(err, ErrThrottled) || errors.Is(err, errTokenRejected) ||
		errors.Is(err, errSearching) {
		return true
	}
	if err == nil || wechat.Code(err) != 0 {
		return false
	}
	for _, known := range []error{
		ErrUnavailable, ErrRevoked, ErrClosed, ErrNoTicket, errNoRefreshToken,
	} {
		if errors.Is(err, known) {
			return false
		}
	}
	return true
}

// paused returns the error with which a renewal is rejected without asking
// WeChat, or nil. An operator's renewal is not.
func (r *renewer) paused(ctx context.Context, want tokenRequest) error {
	if governor.Insists(ctx) {
		return nil
	}
	if err := r.unanswered.check(want.appid); err != nil {
		return err
	}
	return r.checkGate(ctx, want.kind, want.appid)
}

// reachability knows whether WeChat answers this process. It is safe for
// concurrent use.
type reachability struct {
	governor *governor.Governor
	client   func() *wechat.Client
	tasks    *taskGroup
	now      func() time.Time
	log      *slog.Logger

	mu     sync.Mutex
	pinged time.Time // when the last ping began
}

const (
	// silenceLimit is how long WeChat may not have answered at all until the
	// process is not ready any more.
	silenceLimit = time.Minute
	// minFailing is for how long requests must have failed by then. A process
	// without requests is ready, and one failed request proves little.
	minFailing = 20 * time.Second
	// pingAfter is how long after its last answer WeChat is asked for one, and
	// pingPause how often, so that a process without requests knows.
	pingAfter = 30 * time.Second
	pingPause = 10 * time.Second
)

// check returns an error if WeChat has not answered for a minute. It does not
// wait for WeChat. It asks for an answer in the background if there was none
// for half a minute, so the next calls know more.
func (r *reachability) check() error {
	silent, failing, cause := r.governor.Silence()
	if silent >= pingAfter {
		r.ping()
	}
	if silent < silenceLimit || failing < minFailing {
		return nil
	}
	return fmt.Errorf("no response from WeChat for %v: %w", silent.Round(time.Second), cause)
}

// ping asks WeChat for an answer in the background, unless that was done a
// short while ago.
func (r *reachability) ping() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if now.Sub(r.pinged) < pingPause {
		return
	}
	r.pinged = now
	go func() {
		err := r.tasks.run(r.tasks.background, taskTimeout, r.client().Ping)
		if err != nil && !errors.Is(err, ErrClosed) {
			r.log.Debug("WeChat does not respond", "error", err)
		}
	}()
}

package tokens

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"time"
)

// profileLifetime is how long an account's name serves before it is read again.
const profileLifetime = 24 * time.Hour

// profiler reads the names and types of accounts for the operator, and their
// original ids for [names], one account at a time. It reads an account after
// its authorization and after a renewal, so accounts that are not used cost
// nothing. It is safe for concurrent use.
type profiler struct {
	accounts  *accounts
	component *componentAPI
	tasks     *taskGroup
	now       func() time.Time
	log       *slog.Logger
	queue     chan string // appids
	// learn notes the original id of an account.
	learn func(ctx context.Context, appid, userName string) error
}

// profileQueueSize is how many accounts may wait to be read.
const profileQueueSize = 1000

// enqueue reads appid soon. It drops appid if too many wait: the next renewal
// enqueues it again.
func (p *profiler) enqueue(appid string) {
	select {
	case p.queue <- appid:
	default:
	}
}

// run reads the accounts in the queue until the Broker is closed.
func (p *profiler) run() {
	for {
		select {
		case appid := <-p.queue:
			err := p.tasks.run(p.tasks.background, taskTimeout, func(ctx context.Context) error {
				_, err := p.profile(ctx, appid)
				if ctx.Err() != nil {
					return nil
				}
				return err
			})
			if err != nil && !errors.Is(err, ErrClosed) {
				p.log.Debug("reading an account's profile failed", "account", appid, "error", err)
			}
		case <-p.tasks.background.Done():
			return
		}
	}
}

// stale reports whether the profile of acc is to be read again.
func (p *profiler) stale(acc *account) bool {
	return acc.Kind == Authorizer.String() &&
		elapsed(p.now(), acc.ProfiledAt) >= profileLifetime
}

// profile returns the record of appid with a profile that is no older than a
// day. If WeChat does not respond it returns the record as it is, and the
// error. The record of an unknown account is nil.
func (p *profiler) profile(ctx context.Context, appid string) (*account, error) {
	acc, err := p.accounts.load(ctx, appid)
	if err != nil || acc == nil || acc.IsRevoked || !p.stale(acc) {
		return acc, err
	}
	return p.read(ctx, appid, acc)
}

// read reads the profile of an account from WeChat, saves it and returns the
// new record. acc is the record so far, which it returns with an error.
func (p *profiler) read(ctx context.Context, appid string, acc *account) (*account, error) {
	if err := p.accounts.store.writable(accountKey(appid)); err != nil {
		return acc, err
	}
	profile, err := p.component.profile(ctx, appid)
	if err != nil {
		return acc, err
	}
	// Before the account is saved: an account that has a name has its record.
	if err := p.learn(ctx, appid, profile.UserName); err != nil {
		return acc, err
	}
	err = p.accounts.change(ctx, appid, func(current *account) (*account, error) {
		if current == nil || current.IsRevoked {
			return nil, nil
		}
		current.Name, current.Type, current.ProfiledAt = profile.Name, profile.Type, millis(p.now())
		current.UserName = cmp.Or(profile.UserName, current.UserName)
		acc = current
		return current, nil
	})
	return acc, err
}

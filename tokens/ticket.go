package tokens

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"slices"
	"time"

	"wxproxy/internal/clock"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// PutTicket stores a component_verify_ticket durably. created is the push's
// CreateTime. It returns ErrStale if a newer ticket is known, or this very
// push: a push that was recorded must not make an old ticket look new.
func (b *Broker) PutTicket(ctx context.Context, t wechat.Secret, created time.Time) error {
	if err := b.tickets.put(ctx, t, created); err != nil {
		return err
	}
	b.syncer.wake() // the accounts may never have been listed for want of a ticket
	return nil
}

// tickets keeps the component's ticket, and asks WeChat to push one if there is
// none. It is safe for concurrent use.
type tickets struct {
	store    store.Store
	accounts *accounts
	secrets  func() *Secrets
	client   func() *wechat.Client
	now      func() time.Time
	weChat   *clock.Meter // measures WeChat's clock
	log      *slog.Logger
}

const (
	// maxTicketAhead is how far the CreateTime of a ticket may be ahead of
	// WeChat's clock, as far as that is known from its responses; see put.
	maxTicketAhead = 15 * time.Minute

	// pushRequestPause is the least time between two requests for tickets.
	// WeChat answers such a request with its next push, up to ten minutes
	// later.
	pushRequestPause = 10 * time.Minute

	// ticketOverdueAfter is how long no ticket has to arrive until maintenance
	// asks for one. WeChat pushes one every ten minutes, so by then it has
	// given up, or cannot reach the callback listener.
	ticketOverdueAfter = time.Hour
)

func (ts *tickets) key() string { return ticketKey(ts.secrets().Component) }

// load returns the stored ticket, or nil if there is none.
func (ts *tickets) load(ctx context.Context) (*ticket, error) {
	return loadRecord[ticket](ctx, ts.store, ts.key())
}

// current returns the stored ticket, or ErrNoTicket if it has expired or there
// is none.
func (ts *tickets) current(ctx context.Context) (wechat.Secret, error) {
	t, err := ts.load(ctx)
	if err != nil {
		return wechat.Secret{}, err
	}
	if t == nil || t.Ticket == "" || ts.now().Sub(fromMillis(t.Received)) >= ticketLifetime {
		return wechat.Secret{}, ErrNoTicket
	}
	return wechat.NewSecret(t.Ticket), nil
}

// put stores a ticket unless a newer one is stored. Which is newer is decided
// by WeChat's times alone, so that a push which was recorded never replaces a
// later one, and a wrong clock of this machine refuses none:
//
//   - A CreateTime after that of the stored ticket is newer.
//   - One CreateTime in the far future must not keep all later tickets out.
//     What is ahead of WeChat's clock, as its responses show it, is stored as
//     the time of that clock, but always after the ticket before.
//   - A stored CreateTime that is ahead of WeChat's clock nevertheless,
//     because that was not known then, is not compared with.
//
// If WeChat's clock is measured wrongly, behind what it is, then a recorded
// push can replace the stored ticket until the next one arrives, ten minutes
// later at most. It takes a wrong Date in most of WeChat's responses.
func (ts *tickets) put(ctx context.Context, t wechat.Secret, created time.Time) error {
	at := unixSeconds(created)
	latest := ts.latestCreated()
	err := changeRecord(ctx, ts.store, ts.key(), func(stored *ticket) (*ticket, error) {
		kept := min(at, latest)
		if stored != nil && stored.Created <= latest+int64(maxTicketAhead.Seconds()) {
			// WeChat may push two tickets in one second.
			if at < stored.Created || at == stored.Created && stored.Ticket == t.Reveal() {
				return nil, ErrStale
			}
			kept = max(kept, min(at, stored.Created+1))
		}
		// PushRequestedAt is dropped: the request was answered.
		return &ticket{
			recordFormat: currentFormat,
			Ticket:       t.Reveal(), Created: kept, Received: millis(ts.now()),
		}, nil
	})
	if err == nil {
		ts.clearPause(ctx)
	}
	return err
}

// latestCreated returns WeChat's time in Unix seconds, and a time that no push
// reaches if no response has said what time it is there.
func (ts *tickets) latestCreated() int64 {
	now := ts.now()
	ahead, known := ts.weChat.Ahead(now)
	if !known {
		return math.MaxInt64 / 2
	}
	return unixSeconds(now.Add(ahead + time.Second)) // a part of a second is cut off
}

// clearPause lets the component's token be fetched at once with a new ticket,
// although the last renewal failed. It gives up after a second: whatever holds
// the component's lock is fetching the token already, and WeChat is waiting for
// the response to its push.
func (ts *tickets) clearPause(ctx context.Context) {
	component := ts.secrets().Component
	if acc, err := ts.accounts.load(ctx, component); err != nil || acc == nil || acc.RetryAt == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = ts.accounts.change(ctx, component, func(acc *account) (*account, error) {
		if acc == nil || acc.ErrCode == wechat.CodeQuota {
			return nil, nil // a ticket does not bring back the day's quota
		}
		acc.RetryAt = 0
		if acc.NoTicket {
			acc.clearFailures()
		}
		return acc, nil
	})
}

// ticketCodes are the errcodes that mean that the ticket is missing, expired or
// wrong.
var ticketCodes = []int{
	wechat.CodeInvalidTicket, wechat.CodeTicketExpired, wechat.CodeTicketInvalid, codeMissingTicket,
}

// isTicketError reports whether a fetch of the component's token failed because
// of the ticket.
func isTicketError(err error) bool {
	return errors.Is(err, ErrNoTicket) || slices.Contains(ticketCodes, wechat.Code(err))
}

// componentToken fetches the component's token with the current ticket
// (api_component_token). If WeChat rejects the ticket, it tries again with a
// newer one that another replica may have stored meanwhile. If there is none,
// it asks WeChat to push one.
func (ts *tickets) componentToken(
	ctx context.Context, appid string, secret wechat.Secret,
) (wechat.Grant, error) {
	t, err := ts.current(ctx)
	for err == nil {
		var grant wechat.Grant
		grant, err = ts.client().ComponentToken(ctx, appid, secret, t)
		if err == nil || !slices.Contains(ticketCodes, wechat.Code(err)) {
			return grant, err
		}
		newest, loadErr := ts.current(ctx)
		if loadErr != nil || newest.Equal(t) {
			break
		}
		t, err = newest, nil
	}
	if errors.Is(err, ErrNoTicket) || wechat.Code(err) != 0 {
		ts.requestPush(ctx)
	}
	return wechat.Grant{}, err
}

// requestOverdue asks WeChat to push tickets if none came for an hour. since is
// when this process started: before that it could not receive any.
func (ts *tickets) requestOverdue(ctx context.Context, since time.Time) {
	t, err := ts.load(ctx)
	if err != nil {
		return
	}
	now := ts.now()
	overdue := now.Sub(since)
	if t != nil {
		overdue = min(overdue, elapsed(now, t.Received))
	}
	if overdue >= ticketOverdueAfter {
		ts.requestPush(ctx)
	}
}

// requestPush asks WeChat to push tickets (api_start_push_ticket), at most once
// in ten minutes for all replicas together. The ticket arrives later, as a
// push, so a failure is only logged.
func (ts *tickets) requestPush(ctx context.Context) {
	claimed := false
	err := changeRecord(ctx, ts.store, ts.key(), func(t *ticket) (*ticket, error) {
		if t == nil {
			t = &ticket{recordFormat: currentFormat}
		}
		if elapsed(ts.now(), t.PushRequestedAt) < pushRequestPause {
			return nil, nil
		}
		claimed, t.PushRequestedAt = true, millis(ts.now())
		return t, nil
	})
	if err != nil || !claimed {
		return
	}
	s := ts.secrets()
	switch running, err := ts.client().StartPushTicket(ctx, s.Component, s.ComponentSecret); {
	case err != nil:
		ts.log.Warn("requesting ticket pushes failed", "error", err)
	case running:
		ts.log.Warn("no tickets received although WeChat pushes them",
			"hint", "check that WeChat reaches /component/events of the callback listener")
	default:
		ts.log.Info("ticket pushes requested")
	}
}

package tokens

import (
	"context"
	"errors"
	"slices"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// PutTicket stores a component_verify_ticket durably. created is its CreateTime: the newest counts,
// and an older one is ErrStale. The same ticket pushed again is a new sign of life.
//
// One that is dated far in the future does not keep later ones out: it counts as little newer than our clock.
func (b *Broker) PutTicket(ctx context.Context, t wechat.Secret, created time.Time) error {
	component := b.Component()
	if latest := b.now().Add(maxTicketSkew); created.After(latest) {
		created = latest
	}
	err := b.store.Update(ctx, ticketKey(component), func(_ context.Context, raw []byte) ([]byte, error) {
		old, err := decodeTicket(raw)
		if err != nil {
			return nil, err
		}
		if old != nil && seconds(created) < old.Created {
			return nil, ErrStale
		}
		return encode(&ticket{Version: recordVersion, Ticket: t.Reveal(), Created: seconds(created), Received: millis(b.now())}), nil
	})
	if err == nil {
		b.clearTicketPause(ctx, component)
		b.maintenance.wake() // the accounts may never have been listed for want of a ticket
	}
	return err
}

// askComponent fetches the component's token with the newest ticket. Where WeChat does not like it, another
// replica may have stored a newer one meanwhile; otherwise WeChat is asked to push again.
func (b *Broker) askComponent(ctx context.Context, appid string, secret wechat.Secret) (wechat.Grant, error) {
	t, err := b.currentTicket(ctx)
	for err == nil {
		var grant wechat.Grant
		grant, err = b.client.Load().ComponentToken(ctx, appid, secret, t)
		if err == nil || !slices.Contains(ticketCodes, wechat.Code(err)) {
			return grant, err
		}
		newest, loadErr := b.currentTicket(ctx)
		if loadErr != nil || newest.Equal(t) {
			break
		}
		t, err = newest, nil
	}
	if errors.Is(err, ErrNoTicket) || wechat.Code(err) != 0 {
		b.startPush(ctx)
	}
	return wechat.Grant{}, err
}

// maxTicketSkew is by how much WeChat's clock may be ahead of ours, for all that we know.
const maxTicketSkew = 15 * time.Minute

// pushPause is the least time between two askings for tickets: the next push comes that late.
const pushPause = 10 * time.Minute

// startPush asks WeChat to push tickets again (api_start_push_ticket), once in ten minutes at most, for all
// replicas together. The ticket comes later, by a push; so nobody hears of a failure but the log.
func (b *Broker) startPush(ctx context.Context) {
	s := b.secrets.Load()
	mine := false
	err := b.store.Update(ctx, ticketKey(s.Component), func(_ context.Context, raw []byte) ([]byte, error) {
		t, err := decodeTicket(raw)
		if err != nil {
			return nil, err
		}
		if t == nil {
			t = &ticket{Version: recordVersion}
		}
		if now := b.now(); now.Sub(fromMillis(t.PushRequestedAt)) < pushPause {
			return store.Keep, nil
		}
		mine, t.PushRequestedAt = true, millis(b.now())
		return encode(t), nil
	})
	if err != nil || !mine {
		return
	}
	switch running, err := b.client.Load().StartPushTicket(ctx, s.Component, s.ComponentSecret); {
	case err != nil:
		b.log.Warn("WeChat could not be asked to push tickets", "error", err)
	case running:
		b.log.Warn("WeChat says that it pushes tickets every ten minutes: do they reach /component/events of the callback listener?")
	default:
		b.log.Info("WeChat was asked to push tickets again")
	}
}

// clearTicketPause lets what failed try again without waiting. Whoever holds the component's lock at the moment is
// trying already, and WeChat waits for our answer: it is not worth a delay.
func (b *Broker) clearTicketPause(ctx context.Context, component string) {
	if acc, err := b.loadAccount(ctx, component); err != nil || acc == nil || acc.RetryAt == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = b.store.Update(ctx, accountKey(component), func(_ context.Context, raw []byte) ([]byte, error) {
		acc, err := decodeAccount(raw)
		if err != nil || acc == nil || acc.ErrCode == wechat.CodeQuota {
			return store.Keep, err
		}
		acc.RetryAt = 0
		if acc.NoTicket {
			acc.clearFailures()
		}
		return encode(acc), nil
	})
}

// currentTicket gives the stored currentTicket while it is young enough to serve.
func (b *Broker) currentTicket(ctx context.Context) (wechat.Secret, error) {
	t, err := b.loadTicket(ctx)
	if err != nil {
		return wechat.Secret{}, err
	}
	if t == nil || t.Ticket == "" || b.now().Sub(fromMillis(t.Received)) >= ticketLife {
		return wechat.Secret{}, ErrNoTicket
	}
	return wechat.NewSecret(t.Ticket), nil
}

func (b *Broker) loadTicket(ctx context.Context) (*ticket, error) {
	raw, err := b.store.Load(ctx, ticketKey(b.Component()))
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, storeFault(err)
	}
	return decodeTicket(raw)
}

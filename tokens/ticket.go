package tokens

import (
	"context"
	"errors"
	"time"

	"wxproxy/wechat"
)

// PutTicket stores a component_verify_ticket durably. created is its CreateTime: the newest counts,
// and an older one is ErrStale. The same ticket pushed again is a new sign of life.
func (b *Broker) PutTicket(ctx context.Context, t wechat.Secret, created time.Time) error {
	component := b.Component()
	err := b.store.Update(ctx, ticketKey(component), func(_ context.Context, raw []byte) ([]byte, error) {
		old, err := decodeTicket(raw)
		if err != nil {
			return nil, err
		}
		if old != nil && created.Unix() < old.Created {
			return nil, ErrStale
		}
		return encode(&ticket{Version: recordVersion, Ticket: t.Reveal(), Created: created.Unix(), Received: millis(b.now())}), nil
	})
	if err != nil {
		return err
	}
	// What failed for want of a ticket need not wait any longer.
	return b.store.Update(ctx, accountKey(component), func(_ context.Context, raw []byte) ([]byte, error) {
		acc, err := decodeAccount(raw)
		if err != nil {
			return nil, err
		}
		if acc == nil || acc.RetryAt == 0 {
			return Keep, nil
		}
		acc.RetryAt = 0
		return encode(acc), nil
	})
}

// ticket gives the stored ticket while it is young enough to serve.
func (b *Broker) ticket(ctx context.Context) (wechat.Secret, error) {
	t, err := b.loadTicket(ctx)
	if err != nil {
		return wechat.Secret{}, err
	}
	if t == nil || b.now().Sub(fromMillis(t.Received)) >= ticketLife {
		return wechat.Secret{}, ErrNoTicket
	}
	return wechat.NewSecret(t.Ticket), nil
}

func (b *Broker) loadTicket(ctx context.Context) (*ticket, error) {
	raw, err := b.store.Load(ctx, ticketKey(b.Component()))
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, storeFault(err)
	}
	return decodeTicket(raw)
}

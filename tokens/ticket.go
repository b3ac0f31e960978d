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
		if old != nil && seconds(created) < old.Created {
			return nil, ErrStale
		}
		return encode(&ticket{Version: recordVersion, Ticket: t.Reveal(), Created: seconds(created), Received: millis(b.now())}), nil
	})
	if err == nil {
		b.encourage(ctx, component)
	}
	return err
}

// encourage lets what failed try again without waiting. Whoever holds the component's lock at the moment is
// trying already, and WeChat waits for our answer: it is not worth a delay.
func (b *Broker) encourage(ctx context.Context, component string) {
	if acc, err := b.loadAccount(ctx, component); err != nil || acc == nil || acc.RetryAt == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = b.store.Update(ctx, accountKey(component), func(_ context.Context, raw []byte) ([]byte, error) {
		acc, err := decodeAccount(raw)
		if err != nil || acc == nil {
			return Keep, err
		}
		acc.RetryAt = 0
		if acc.NoTicket {
			acc.forgive()
		}
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

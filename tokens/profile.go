package tokens

import (
	"context"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// profileLife is how long an account's name serves before it is read again.
const profileLife = 24 * time.Hour

// profiler reads the names and kinds of accounts, one after the other. An account is read when it
// has authorized and when its token is renewed; one that nobody uses costs nothing.
type profiler struct {
	b     *Broker
	queue chan string
}

func newProfiler(b *Broker) *profiler {
	p := &profiler{b: b, queue: make(chan string, 1000)}
	go p.run()
	return p
}

// enqueue has appid read soon, unless very many are waiting: the next renewal asks again.
func (p *profiler) enqueue(appid string) {
	select {
	case p.queue <- appid:
	default:
	}
}

func (p *profiler) run() {
	for {
		select {
		case appid := <-p.queue:
			p.read(appid)
		case <-p.b.life.Done():
			return
		}
	}
}

func (p *profiler) read(appid string) {
	b := p.b
	if !b.begin() {
		return
	}
	defer b.work.Done()
	ctx, cancel := context.WithTimeout(b.maintenance.ctx, renewTimeout)
	defer cancel()
	if _, err := b.profile(ctx, appid); err != nil && ctx.Err() == nil {
		b.log.Debug("an account's name could not be read", "account", appid, "error", err)
	}
}

// profile gives the record of appid with a name that is not older than a day, or as it is where WeChat
// does not answer; nil for an unknown account.
func (b *Broker) profile(ctx context.Context, appid string) (*account, error) {
	acc, err := b.loadAccount(ctx, appid)
	if err != nil || acc == nil || acc.IsRevoked || acc.Kind != Authorizer.String() || b.now().Sub(fromMillis(acc.ProfiledAt)) < profileLife {
		return acc, err
	}
	var a wechat.Authorizer
	err = b.withComponentToken(ctx, func(component string, token wechat.Secret) error {
		var err error
		a, err = b.client.Load().Authorizer(ctx, component, token, appid)
		return err
	})
	if err != nil {
		return acc, err
	}
	err = b.store.Update(ctx, accountKey(appid), func(_ context.Context, raw []byte) ([]byte, error) {
		current, err := decodeAccount(raw)
		if err != nil || current == nil || current.IsRevoked {
			return store.Keep, err
		}
		current.Name, current.Type, current.ProfiledAt = a.Name, a.Type, millis(b.now())
		acc = current
		return encode(current), nil
	})
	return acc, err
}

package tokens

import (
	"context"
	"errors"

	"wxproxy/tokens/governor"
	"wxproxy/wechat"
)

// newGovernor returns the governor of a Broker's requests.
func newGovernor(c Config) *governor.Governor {
	g := governor.Config{Limit: c.OwnCalls, Now: c.Now, Log: c.Log}
	if c.Observer != nil {
		g.Observe = c.Observer.OwnCall
	}
	return governor.New(g)
}

// gate is a [wechat.Gate] that makes the errors of a governor ErrUnavailable: a
// request that was not sent is no failure of its account. It measures WeChat's
// clock.
type gate struct {
	*governor.Governor
	clocks *clocks
}

// Enter implements [wechat.Gate].
func (g gate) Enter(ctx context.Context, call wechat.Call) (func(wechat.Outcome), error) {
	leave, err := g.Governor.Enter(ctx, call)
	if err != nil {
		return nil, notSent(err)
	}
	sent := g.clocks.now()
	return func(o wechat.Outcome) {
		g.clocks.weChat.Observe(sent, g.clocks.now(), o.Date, dateResolution)
		leave(o)
	}, nil
}

// check returns the error with which a renewal of an account of that kind would
// be rejected now, or nil.
func (g gate) check(ctx context.Context, kind Kind, appid, component string) error {
	call := wechat.Call{Endpoint: "api_authorizer_token", AppID: component}
	switch kind {
	case Component:
		call = wechat.Call{Endpoint: "api_component_token", AppID: appid}
	case App:
		call = wechat.Call{Endpoint: "stable_token", AppID: appid}
	}
	return notSent(g.Governor.Check(ctx, call))
}

// notSent makes an error of a governor an ErrUnavailable.
func notSent(err error) error {
	var n *governor.NotSentError
	if !errors.As(err, &n) {
		return err
	}
	return &unavailableError{reason: n.Error(), retryAt: n.Until, cause: n}
}

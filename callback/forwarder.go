package callback

import (
	"context"
	"fmt"
	"log/slog"

	"wxproxy/wechat"
)

// relay has an authorization event that was stored handed to the service of the first rule that fits, in the background.
//
// A ticket goes to nobody, whatever the rules say: with it and the app secret one is the platform. Codes are masked:
// each serves once, and is ours.
func (h *Handler) relay(l letter, e wechat.Event) {
	if e.InfoType == infoTicket || len(l.keys.rules) == 0 {
		return
	}
	account := l.doc.Account()
	if !wechat.IsAppID(account) {
		account = l.keys.component // it is about the platform itself
	}
	n := firstMatch(l.keys.rules, account, e.InfoType)
	if n == 0 {
		return
	}
	masked := l.doc.MaskCodes(e)
	d := delivery{url: l.keys.rules[n-1].URL, account: account, id: newID(), doc: masked}
	attrs := []any{"event", eventOf(e.InfoType), "account", account, "service", fmt.Sprintf("forward[%d] as %s", n, d.id)}
	failed := func(err error) {
		h.observe(eventOf(e.InfoType), resultUndelivered)
		h.log.Error("an event was not taken by the service, and is dropped", append(attrs, slog.Any("error", err))...)
	}
	again := 0
	if !h.outbox.add(job{
		size: len(d.doc),
		do: func(ctx context.Context) error {
			_, err := send(ctx, h.services, d)
			if badReply(err) {
				err = nil // nobody wants a reply
			}
			switch {
			case err == nil:
				h.log.Info("an event was taken by the service", append(attrs, slog.Int("tries", again+1))...)
			case again == 0:
				h.log.Warn("an event could not be handed to the service, it will be tried again", append(attrs, slog.Any("error", err))...)
			}
			again++
			return err
		},
		failed: failed,
	}) {
		failed(errBusy)
	}
}

package callback

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"

	"wxproxy/wechat"
)

// eventForwarder sends authorization events to services in the background.
type eventForwarder struct {
	services *http.Client
	outbox   *outbox
	observe  func(event, result string)
	log      *slog.Logger
}

// forward sends an event that was stored to the service of the first rule that
// matches. It returns at once.
//
// Tickets are never forwarded, whatever the rules say: a ticket and the app
// secret give full control of the platform. Codes are masked, because each
// works once, and wxproxy needs it.
func (f *eventForwarder) forward(p verifiedPush, e wechat.Event) {
	forwards := p.settings.forwards
	if e.InfoType == infoTicket || len(forwards) == 0 {
		return
	}
	account := p.doc.Account()
	if !wechat.IsAppID(account) {
		account = p.settings.component // the event is about the platform itself
	}
	n := firstMatch(forwards, account, e.InfoType)
	if n == 0 {
		return
	}
	d := delivery{
		url: forwards[n-1].URL, account: account, id: newDeliveryID(), doc: p.doc.MaskCodes(e),
	}
	j := f.job(d, eventLabel(e.InfoType), fmt.Sprintf("forward[%d] as %s", n, d.id))
	if !f.outbox.add(j) {
		j.failed(errOutboxFull)
	}
}

// job returns the delivery of an event as a job. service names the rule and the
// delivery in the log.
func (f *eventForwarder) job(d delivery, event, service string) job {
	log := f.log.With("event", event, "account", d.account, "service", service)
	attempts := 0
	return job{
		size: len(d.doc),
		do: func(ctx context.Context) error {
			attempts++
			_, err := send(ctx, f.services, d)
			if isBadReply(err) {
				err = nil // an event needs no reply
			}
			switch {
			case err == nil:
				log.Info("event delivered", "attempts", attempts)
			case attempts == 1:
				log.Warn("event not delivered, trying again", "error", err)
			}
			return err
		},
		failed: func(err error) {
			f.observe(event, resultUndelivered)
			log.Error("event dropped, no service accepted it", "error", err)
		},
	}
}

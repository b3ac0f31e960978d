package callback

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"wxproxy/callback/queue"
	"wxproxy/tokens"
)

// changeKnown is how long a change is remembered. It is longer than the pause
// after which an interrupted comparison is resumed.
const changeKnown = 24 * time.Hour

// AccountChanged queues an event for a change that no push has announced. The
// document is like that of WeChat's event, without a code. When AccountChanged
// returns nil, the event is stored, or the queue of its service is full. That
// is logged and no error: a service that is down must not keep accounts out.
func (h *Handler) AccountChanged(ctx context.Context, c tokens.Change) error {
	s := h.settings.Load()
	infoType := infoUnauthorized
	if c.IsAuthorized {
		infoType = infoAuthorized
	}
	var services []string
	for _, f := range s.forwards {
		if f.Mode != ModeRaw && f.matches(c.AppID, infoType) {
			services = append(services, f.Name)
		}
	}
	if len(services) == 0 {
		return nil
	}
	now := h.now()
	sum := sha256.Sum256(fmt.Appendf(nil, "comparison\n%s\n%s\n%s", c.AppID, infoType, c.ID))
	err := h.queue.Add(ctx, changeKnown, queue.Event{
		ID: hex.EncodeToString(sum[:]), AppID: c.AppID, Kind: infoType,
		Document: fmt.Appendf(nil, "<xml><AppId>%s</AppId><CreateTime>%d</CreateTime>"+
			"<InfoType>%s</InfoType><AuthorizerAppid>%s</AuthorizerAppid></xml>",
			s.component, now.Unix(), infoType, c.AppID),
		Reconciled: true, Created: now,
	}, services...)
	if errors.Is(err, queue.ErrFull) {
		h.log.Error("event of a comparison dropped, the queue of a service is full",
			"event", infoType, "account", c.AppID)
		return nil
	}
	return err
}

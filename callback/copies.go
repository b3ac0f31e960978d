package callback

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"time"

	"wxproxy/callback/queue"
)

// copier puts copies of pushes into the queue, from which services get them
// later.
type copier struct {
	queue *queue.Queue
	now   func() time.Time
}

// add queues a copy of a push for each of the services. They are durable when
// it returns nil; otherwise it returns the outcome of the push, which WeChat
// repeats. A copy that is queued already, or was delivered while WeChat could
// repeat the push, is not queued again. So a push can be added again after
// anything that may have happened to a process.
func (c *copier) add(
	ctx context.Context, p verifiedPush, e queue.Event, services []string,
) *outcome {
	if len(services) == 0 {
		return nil
	}
	e.Created = c.now()
	err := c.queue.Add(ctx, p.settings.maxAge+maxAhead, e, services...)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, queue.ErrFull):
		return failure(http.StatusInternalServerError, e.Kind, resultQueueFull, err)
	}
	return failure(http.StatusInternalServerError, e.Kind, resultStore, err)
}

// documentID identifies a document that was pushed for an account. A repeat by
// WeChat has the same one, also if it was encrypted and signed anew.
type documentID [sha256.Size]byte

func documentIDOf(account string, doc []byte) documentID {
	h := sha256.New()
	h.Write([]byte(account + "\x00"))
	h.Write(doc)
	return documentID(h.Sum(nil))
}

// String returns the id as services and operators see it.
func (id documentID) String() string { return hex.EncodeToString(id[:]) }

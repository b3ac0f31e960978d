package queue

import (
	"context"
	"encoding/json"
	"errors"
	"runtime/debug"
	"strings"
	"time"

	"wxproxy/internal/clock"
	"wxproxy/internal/recovery"
	"wxproxy/tokens/store"
)

// Reasons why an entry is dead or waits, for operators.
const (
	textUnreadable    = "stored event cannot be read"
	textNotConfigured = "service is not configured"
	textPanic         = "internal error"
)

var errPanic = errors.New(textPanic)

// try delivers an entry that was taken, and tells the store what became of it.
func (q *Queue) try(s *service, t store.TakenEntry) {
	began := clock.Now()
	outcome, isDelivered := q.delivered(t.QueueKey)
	held := &s.inFlight // nil: no slot any more
	if !isDelivered {
		if t.Attempts > 0 {
			defer time.AfterFunc(slowAfter, func() { q.makeSlow(s, &held) }).Stop()
		}
		outcome = q.attempt(s, t)
	}
	t.Payload = nil // the store may take long
	q.mu.Lock()
	s.isDue = true
	*held--
	held = nil
	s.settling++
	q.settling[t.QueueKey] = outcome
	q.mu.Unlock()
	q.settle(t, outcome, began.Add(lease))
	q.mu.Lock()
	s.isDue = true
	s.settling--
	delete(q.settling, t.QueueKey)
	q.mu.Unlock()
	q.wake()
}

// makeSlow moves a try that takes long to one of slowSlots, if one is free.
func (q *Queue) makeSlow(s *service, held **int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if *held == nil || s.slow >= slowSlots {
		return
	}
	s.inFlight--
	s.slow++
	*held, s.isDue = &s.slow, true
	q.wake()
}

// delivered returns the outcome of an entry that this process has delivered
// before, without the store's knowing.
func (q *Queue) delivered(key store.QueueKey) (store.QueueOutcome, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	o := q.settling[key]
	return o, o.Result == store.QueueDelivered
}

// attempt delivers an entry once and returns what is to become of it. It counts
// and logs the result.
func (q *Queue) attempt(s *service, t store.TakenEntry) store.QueueOutcome {
	keep, ok := q.c.Service(t.Service)
	if !ok { // since it was taken
		return failedOutcome(store.MaxQueuePause, textNotConfigured)
	}
	d := Delivery{Service: t.Service, Attempt: t.Attempts + 1}
	if json.Unmarshal(t.Payload, &d.Event) != nil || d.AppID != t.AppID || d.ID != t.ID {
		return q.kill(s, t, "", textUnreadable)
	}
	began := clock.Now()
	err := q.deliver(d)
	now := clock.Now()
	pause := pauseAfter(d.Attempt)
	q.note(s, t, err, began, now, pause)
	switch {
	case err == nil:
		q.c.Observe(resultOK)
		q.c.Log.Debug("event delivered", "event", d.Kind, "id", d.ID, "account", d.AppID,
			"service", d.Service, "attempt", d.Attempt)
		return store.QueueOutcome{Result: store.QueueDelivered}
	case q.ctx.Err() != nil: // canceled by Close; the next process is not to wait
		q.c.Observe(resultFailed)
		return failedOutcome(0, err.Error())
	case now.Add(q.c.StoreAhead()).Sub(t.Since) >= keep:
		return q.kill(s, t, d.Kind, err.Error())
	}
	q.c.Observe(resultFailed)
	return failedOutcome(pause, err.Error())
}

// deliver calls Deliver. A panic in it is a failure of this event.
func (q *Queue) deliver(d Delivery) (err error) {
	ctx, cancel := context.WithTimeout(q.ctx, tryTimeout)
	defer cancel()
	defer func() {
		if cause := recover(); cause != nil {
			err = errPanic
			q.c.Log.Error("BUG: panic", "where", "delivery of an event",
				"panic", recovery.Describe(cause), "stack", string(debug.Stack()))
		}
	}()
	return q.c.Deliver(ctx, d)
}

// note notes for the service how a try ended.
func (q *Queue) note(
	s *service, t store.TakenEntry, err error, began, now time.Time, pause time.Duration,
) {
	if q.ctx.Err() != nil {
		return // a try that Close has canceled says nothing about the service
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	h := &s.health
	if err == nil {
		s.count(-1, -len(t.Payload))
		if failures := h.failures; h.succeeded(now) == recovered {
			q.c.Log.Info("service accepts events again", "service", s.name,
				"failed_tries", failures, "after", now.Sub(h.failingSince).Round(time.Second))
		}
		return
	}
	_, isUnavailable := errors.AsType[unavailableError](err)
	wasDown := h.isDown
	if h.failed(now, began, t.AppID, isUnavailable) == beganToFail {
		q.c.Log.Warn("service did not accept an event, trying again", "service", s.name,
			"account", t.AppID, "id", t.ID, "error", err)
	}
	if h.isDown && !wasDown {
		s.tryAll()
	}
	if next := now.Add(pause); s.nextAt.IsZero() || next.Before(s.nextAt) {
		s.nextAt = next
	}
}

// kill logs and counts a dead entry, and returns its outcome.
func (q *Queue) kill(
	s *service, t store.TakenEntry, kind, reason string,
) store.QueueOutcome {
	q.c.Observe(resultDead)
	q.mu.Lock()
	hidden, isLogged := s.logsDead(clock.Now())
	q.mu.Unlock()
	if isLogged {
		q.c.Log.Error("event is dead, its service did not accept it", "event", kind,
			"id", t.ID, "account", t.AppID, "service", t.Service,
			"attempts", t.Attempts+1, "error", reason, "not_logged", hidden)
	}
	return store.QueueOutcome{Result: store.QueueDead, Error: shorten(reason)}
}

func failedOutcome(pause time.Duration, reason string) store.QueueOutcome {
	return store.QueueOutcome{Result: store.QueueFailed, Pause: pause, Error: shorten(reason)}
}

// shorten cuts a reason to what the store keeps, without half a character.
func shorten(reason string) string {
	const maxReason = 200
	return strings.ToValidUTF8(reason[:min(len(reason), maxReason)], "")
}

// settle tells the store an outcome, again and again until it has accepted it.
// A failure needs not be told once the lease has ended: the entry is due
// again by then. A delivery must be, or the service gets the event once more.
func (q *Queue) settle(t store.TakenEntry, o store.QueueOutcome, leaseEnd time.Time) {
	for pause := firstStorePause; ; pause = min(2*pause, maxStorePause) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(q.ctx), storeTimeout)
		err := q.c.Store.Settle(ctx, t, o)
		cancel()
		q.health.note(opSettle, err)
		if err == nil || errors.Is(err, store.ErrClosed) || q.ctx.Err() != nil ||
			o.Result != store.QueueDelivered && clock.Now().After(leaseEnd) {
			return
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-q.ctx.Done(): // once more
			timer.Stop()
		}
	}
}

package console

import (
	"time"

	"wxproxy/callback/queue"
	"wxproxy/tokens/store"
)

// event is an entry of the queue as JSON: one event for one service. An entry
// always has all fields.
type event struct {
	ID       string     `json:"id"`
	Service  string     `json:"service"`
	AppID    string     `json:"appid"`
	State    string     `json:"state"`    // waiting or dead
	Attempts int        `json:"attempts"` // tries that have failed
	Created  time.Time  `json:"created"`  // when WeChat pushed the event
	Next     *time.Time `json:"next"`     // the next try; null if dead, or if others come first
	Error    string     `json:"error"`    // why the last try failed; "" if none has
}

// States of an event.
const (
	waitingEvent = "waiting"
	deadEvent    = "dead"
)

// newEvent returns e as JSON.
func newEvent(e store.QueueEntry) event {
	out := event{
		ID: e.ID, Service: e.Service, AppID: e.AppID, State: waitingEvent,
		Attempts: e.Attempts, Created: utc(e.Created), Error: e.Error,
	}
	if e.Dead {
		out.State = deadEvent
	}
	if !e.Next.IsZero() {
		next := utc(e.Next)
		out.Next = &next
	}
	return out
}

// eventDocument is an event with its content, as JSON.
type eventDocument struct {
	event
	Kind        string  `json:"kind,omitempty"` // an InfoType, or message
	OpenID      string  `json:"openid,omitempty"`
	ContentType string  `json:"content_type,omitempty"`
	Document    *string `json:"document"` // null if the stored event cannot be read
	// Comparison says that the comparison with WeChat's list has found the
	// event, not a push.
	Comparison bool    `json:"comparison,omitempty"`
	Deliveries []event `json:"deliveries"` // of all services, sorted by name
}

// newEventDocument returns the event in found as JSON, with the fields of its
// entry for service, or of the first one if service is "". It returns false if
// there is no such entry.
func newEventDocument(found []queue.Stored, service string) (out eventDocument, ok bool) {
	for _, entry := range found {
		view := newEvent(entry.QueueEntry)
		out.Deliveries = append(out.Deliveries, view)
		if !ok && (service == "" || service == entry.Service) {
			out.event, ok = view, true
		}
		if e := entry.Event; e != nil && out.Document == nil {
			text := string(e.Document)
			out.Document, out.ContentType = &text, e.ContentType
			out.Kind, out.OpenID, out.Comparison = e.Kind, e.OpenID, e.Reconciled
			if out.ContentType == "" {
				out.ContentType = "text/xml"
			}
		}
	}
	return out, ok
}

// eventTotals is the size of the queue of events as JSON.
type eventTotals struct {
	Waiting int    `json:"waiting"`
	Dead    int    `json:"dead"`
	Oldest  *int64 `json:"oldest"` // age of the oldest waiting event in seconds; null without one
}

// eventTotals returns the size of the queue, nil if there is none, or if the
// store has not said.
func (s *state) eventTotals() *eventTotals {
	if s.events == nil {
		return nil
	}
	t, known := s.events.Totals()
	if !known {
		return nil
	}
	out := &eventTotals{Waiting: t.Waiting, Dead: t.Dead}
	if !t.Oldest.IsZero() {
		out.Oldest = seconds(max(time.Since(t.Oldest), 0))
	}
	return out
}

package callback

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"wxproxy/callback/queue"
	"wxproxy/tokens"
	"wxproxy/tokens/store"
)

// TestAccountChanged: a withdrawal and a return × rules that match the account
// and the type, either, or none × modes. Each service gets one event, like
// WeChat's; a report that is repeated makes no second one. With a full queue
// it is dropped and logged.
func TestAccountChanged(t *testing.T) {
	stored := store.NewMemory().(store.Queuer).Queue()
	var log bytes.Buffer
	rule := func(name string, mode Mode, appid, event string) Forward {
		return Forward{Name: name, Mode: mode, AppIDs: []string{appid}, Events: []string{event},
			URL: "http://127.0.0.1:1/"}
	}
	h := New(Config{
		ComponentAppID: internalComponent, Queue: stored,
		QueueLimits: queue.Limits{Entries: 2},
		Now:         func() time.Time { return time.Unix(1700000000, 0) },
		Log:         slog.New(slog.NewTextHandler(&log, nil)),
		Forwards: []Forward{
			rule("all", ModeReply, "*", "*"), rule("gone", ModeQueue, internalAccount, "Unauthorized"),
			rule("raw", ModeRaw, "*", "*"), rule("other", ModeQueue, internalComponent, "*"),
			rule("text", ModeQueue, "*", "text"),
		},
	})
	if err := h.Close(t.Context()); err != nil { // nothing is delivered
		t.Fatal(err)
	}
	report := func(isAuthorized bool, id string) error {
		return h.AccountChanged(t.Context(), tokens.Change{
			AppID: internalAccount, IsAuthorized: isAuthorized, ID: id,
		})
	}
	var got []string
	for range 2 {
		for _, isAuthorized := range []bool{false, true} {
			if err := report(isAuthorized, "1"); err != nil {
				t.Errorf("authorized %v: got %v", isAuthorized, err)
			}
		}
	}
	err := stored.Scan(t.Context(), func(e store.QueueEntry) bool {
		got = append(got, e.Service)
		found, err := h.Queue().Find(context.Background(), e.ID)
		if err != nil || !found[0].Event.Reconciled {
			t.Errorf("found %+v, %v, want a reconciled event", found, err)
			return true
		}
		ev := found[0].Event
		want := "<xml><AppId>" + internalComponent + "</AppId><CreateTime>1700000000</CreateTime>" +
			"<InfoType>" + ev.Kind + "</InfoType><AuthorizerAppid>" + internalAccount +
			"</AuthorizerAppid></xml>"
		if string(ev.Document) != want {
			t.Errorf("document: got %s, want %s", ev.Document, want)
		}
		return true
	})
	slices.Sort(got)
	if want := []string{"all", "all", "gone"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("services: got %v, %v, want %v", got, err, want)
	}
	for i := range 4 {
		if err := report(false, strings.Repeat("2", i+1)); err != nil {
			t.Errorf("full queue: got %v, want no error", err)
		}
	}
	if !strings.Contains(log.String(), "queue of a service is full") {
		t.Errorf("full queue: got the log\n%s\nwant a line about it", log.String())
	}
}

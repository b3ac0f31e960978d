package callback

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"wxproxy/tokens"
	"wxproxy/wechat"
)

// The tests in this file are about time and about the order of events. They run
// in a bubble of testing/synctest with a service that is not on the network:
// there, time passes only while everything waits.

const (
	internalComponent = "wx6001eeeefe06e0af"
	internalAccount   = "wxf7d2ddffc117e8de"
	passiveReply      = "<xml><a>b</a></xml>"
	textMessage       = "<xml><MsgType>text</MsgType><Content>hello</Content></xml>"
)

// bubble is a Handler whose service is a function.
type bubble struct {
	t       *testing.T
	handler *Handler
	crypt   *wechat.Crypt
	asked   int // requests to the service
}

// roundTripper is a transport that does not use the network.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// newBubble returns a Handler that forwards everything to service, which
// returns the body of its response.
func newBubble(t *testing.T, service func(ctx context.Context) (string, error)) *bubble {
	token, key := wechat.NewSecret("token"), wechat.NewSecret(strings.Repeat("k", 43))
	crypt, err := wechat.NewCrypt(token, key, internalComponent)
	if err != nil {
		t.Fatal(err)
	}
	b := &bubble{t: t, crypt: crypt}
	b.handler = New(Config{
		ComponentAppID: internalComponent, Crypts: []*wechat.Crypt{crypt}, Accounts: blockedAccounts{},
		Forwards: []Forward{{AppIDs: []string{"*"}, Events: []string{"*"}, URL: "http://service/"}},
	})
	t.Cleanup(func() { _ = b.handler.Close(context.Background()) })
	b.handler.services.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		b.asked++
		body, err := service(r.Context())
		if err != nil {
			return nil, err
		}
		return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(body))}, nil
	})
	return b
}

// request returns a push of a document, signed anew each time.
func (b *bubble) request(ctx context.Context, path, doc string) *http.Request {
	encrypted := b.crypt.Encrypt([]byte(doc))
	timestamp, nonce := strconv.FormatInt(time.Now().Unix(), 10), "1590219412"
	target := fmt.Sprintf("%s?timestamp=%s&nonce=%s&msg_signature=%s",
		path, timestamp, nonce, b.crypt.Signature(timestamp, nonce, encrypted))
	body := []byte("<xml><Encrypt>" + encrypted + "</Encrypt></xml>")
	return httptest.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
}

// repeat returns a request with the same bytes.
func repeat(ctx context.Context, r *http.Request) (first, second *http.Request) {
	body, _ := io.ReadAll(r.Body)
	first = httptest.NewRequestWithContext(r.Context(), r.Method, r.RequestURI, bytes.NewReader(body))
	second = httptest.NewRequestWithContext(ctx, r.Method, r.RequestURI, bytes.NewReader(body))
	return first, second
}

// serve serves a request in the background. Its result is complete when the
// channel is closed.
func (b *bubble) serve(r *http.Request) (*httptest.ResponseRecorder, <-chan struct{}) {
	resp, done := httptest.NewRecorder(), make(chan struct{})
	go func() {
		defer close(done)
		b.handler.ServeHTTP(resp, r)
	}()
	return resp, done
}

// wantReply checks for the encrypted reply of the service.
func (b *bubble) wantReply(what string, resp *httptest.ResponseRecorder) {
	b.t.Helper()
	if resp.Code != 200 || !strings.HasPrefix(resp.Body.String(), "<xml><Encrypt>") {
		b.t.Errorf("%s: got response %d %q, want the encrypted reply", what, resp.Code, resp.Body)
	}
}

// blockedAccounts never finishes before its context ends.
type blockedAccounts struct{}

func (blockedAccounts) block(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

func (a blockedAccounts) PutTicket(ctx context.Context, _ wechat.Secret, _ time.Time) error {
	return a.block(ctx)
}

func (a blockedAccounts) Authorize(ctx context.Context, _ string, _ wechat.Secret, _, _ time.Time) error {
	return a.block(ctx)
}

func (a blockedAccounts) UpdateAuthorization(
	ctx context.Context, _ string, _ wechat.Secret, _, _ time.Time,
) error {
	return a.block(ctx)
}

func (a blockedAccounts) MarkRevoked(ctx context.Context, _ string, _ time.Time) error {
	return a.block(ctx)
}

var _ Accounts = (*tokens.Broker)(nil)

// WeChat waits for 5 s. The store and the service get less.
func TestDefaultTimeouts(t *testing.T) {
	unauthorized := "<xml><AppId>" + internalComponent + "</AppId><InfoType>unauthorized</InfoType>" +
		"<AuthorizerAppid>" + internalAccount + "</AuthorizerAppid></xml>"
	for name, tc := range map[string]struct {
		path, doc string
		want      time.Duration
	}{
		"event":   {"/component/events", unauthorized, 4 * time.Second},
		"message": {"/" + internalAccount + "/events", textMessage, 4500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() })
				begin := time.Now()
				resp, done := b.serve(b.request(t.Context(), tc.path, tc.doc))
				<-done
				if took := time.Since(begin); resp.Code != 500 || took != tc.want {
					t.Errorf("got status %d after %v, want 500 after %v", resp.Code, took, tc.want)
				}
			})
		})
	}
}

// WeChat gives up on a push and repeats it, signed anew or byte for byte, while
// the service is still working. The service is asked once, and the repeat gets
// its reply.
func TestRepeatSharesTheReply(t *testing.T) {
	for _, identical := range []bool{true, false} {
		t.Run(fmt.Sprintf("identical=%v", identical), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				b := newBubble(t, func(context.Context) (string, error) { <-release; return passiveReply, nil })
				connection, disconnect := context.WithCancel(t.Context())
				first := b.request(connection, "/"+internalAccount+"/events", textMessage)
				second := b.request(t.Context(), "/"+internalAccount+"/events", textMessage)
				if identical {
					first, second = repeat(t.Context(), first)
				}

				_, firstDone := b.serve(first)
				synctest.Wait() // until the service is working
				disconnect()
				resp, secondDone := b.serve(second)
				synctest.Wait() // until the repeat waits for the first
				close(release)
				<-firstDone
				<-secondDone
				b.wantReply("repeat", resp)
				if b.asked != 1 {
					t.Errorf("service: got %d requests, want 1", b.asked)
				}
			})
		})
	}
}

// A reply that arrives after WeChat has disconnected is kept for one repeat.
func TestUndeliveredReplyIsKeptForTheRepeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		b := newBubble(t, func(context.Context) (string, error) { <-release; return passiveReply, nil })
		connection, disconnect := context.WithCancel(t.Context())
		path := "/" + internalAccount + "/events"
		_, done := b.serve(b.request(connection, path, textMessage))
		synctest.Wait()
		disconnect()
		close(release)
		<-done
		for n := range 2 {
			resp, done := b.serve(b.request(t.Context(), path, textMessage))
			<-done
			b.wantReply(fmt.Sprint("repeat ", n+1), resp)
			if want := 1 + n; b.asked != want {
				t.Errorf("repeat %d: service got %d requests in all, want %d", n+1, b.asked, want)
			}
		}
	})
}

// A repeat of the same bytes gets the same reply for a minute, and success from
// then on. The service is asked once.
func TestRepeatGetsTheSameReplyForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, func(context.Context) (string, error) { return passiveReply, nil })
		path := "/" + internalAccount + "/events"
		first, next := repeat(t.Context(), b.request(t.Context(), path, textMessage))
		resp, done := b.serve(first)
		<-done
		b.wantReply("first", resp)
		want := resp.Body.String()
		for _, wait := range []time.Duration{0, 59 * time.Second, time.Second, 10 * time.Minute} {
			<-time.After(wait)
			if wait >= time.Second && wait != 59*time.Second {
				want = success
			}
			var r *http.Request
			r, next = repeat(t.Context(), next)
			resp, done := b.serve(r)
			<-done
			if got := resp.Body.String(); resp.Code != 200 || got != want {
				t.Errorf("after %v more: got response %d %q, want 200 %q", wait, resp.Code, got, want)
			}
		}
		if b.asked != 1 {
			t.Errorf("service: got %d requests, want 1", b.asked)
		}
	})
}

// A service that is too slow leads to a repeat, which is answered.
func TestRepeatAfterSlowService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := true
		b := newBubble(t, func(ctx context.Context) (string, error) {
			if slow {
				<-ctx.Done()
				return "", ctx.Err()
			}
			return passiveReply, nil
		})
		first, second := repeat(t.Context(), b.request(t.Context(), "/"+internalAccount+"/events", textMessage))
		resp, done := b.serve(first)
		<-done
		if resp.Code != 500 {
			t.Errorf("slow service: got status %d, want 500", resp.Code)
		}
		slow = false
		resp, done = b.serve(second)
		<-done
		b.wantReply("repeat", resp)
	})
}

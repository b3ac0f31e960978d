package wechat_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"wxproxy/wechat"
)

// spellings are ways to write the underscores of a token.
var spellings = []string{
	"_", "%5F", "%5f", "%255F", `\u005f`, `\\u005f`, `\x5f`, "&#95;", "&amp;#x5F;", "&lowbar;",
}

// TestMaskFindsEscapedSecrets checks a secret in each spelling, between letters
// and in a URL, and a short secret as it is and percent-encoded.
func TestMaskFindsEscapedSecrets(t *testing.T) {
	const value = "75_Real_Token_Of_The_Platform-0123456789"
	s := wechat.NewSecret(value)
	for _, spelling := range spellings {
		written := strings.ReplaceAll(value, "_", spelling)
		for _, text := range []string{
			"a" + written + "b", "https://a.b/?access_token=" + written + "&x=1",
		} {
			if got, want := s.Mask(text), strings.Replace(text, written, "***", 1); got != want {
				t.Errorf("Mask(%s): got %s, want %s", text, got, want)
			}
		}
	}
	if got := wechat.NewSecret("a/b").Mask("x a/b a%2Fb y"); got != "x *** *** y" {
		t.Errorf("short secret: got %s, want it masked", got)
	}
	if got := wechat.NewSecret("").Mask("text"); got != "text" {
		t.Errorf("no secret: got %s, want the text", got)
	}
}

// TestErrorsOfWeChatHideCredentials checks the error of a request that WeChat
// rejects with an errmsg that quotes the request: its URL, the app secret, the
// ticket, and a refresh token of another account, in each spelling. The error
// is logged and shown to operators.
func TestErrorsOfWeChatHideCredentials(t *testing.T) {
	secrets := []string{
		"75_component_access_token_0123456789", "the_app_secret_0123456789abcdef",
		"ticket@@@the_ticket_0123456789abcdef",
	}
	const component, other = "wxcccccccccccccccc", "refreshtoken@@@of_another_account"
	for _, spelling := range spellings {
		up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var in struct {
				Secret string `json:"component_appsecret"`
				Ticket string `json:"component_verify_ticket"`
			}
			json.NewDecoder(r.Body).Decode(&in)
			token := r.URL.Query().Get("access_token")
			text := strings.ReplaceAll(token+" "+in.Secret+" "+in.Ticket+" "+other, "_", spelling)
			answer := map[string]any{"errcode": 40013, "errmsg": "invalid: " + text}
			json.NewEncoder(w).Encode(answer)
		}))
		c, ctx := wechat.NewClient(up.URL, nil), context.Background()
		_, tokenErr := c.ComponentToken(ctx, component,
			wechat.NewSecret(secrets[1]), wechat.NewSecret(secrets[2]))
		_, codeErr := c.QueryAuth(ctx, component,
			wechat.NewSecret(secrets[0]), wechat.NewSecret("code"))
		c.Close()
		for _, err := range []error{tokenErr, codeErr} {
			var said *wechat.Error
			if !errors.As(err, &said) || !strings.HasPrefix(said.Msg, "invalid: ") {
				t.Errorf("%s: got error %v, want WeChat's 40013 with masks", spelling, err)
			}
			text := fmt.Sprint(err)
			for _, secret := range append(secrets, other) {
				written := strings.ReplaceAll(secret, "_", spelling)
				escaped := url.QueryEscape(secret)
				if strings.Contains(text, written) || strings.Contains(text, escaped) {
					t.Errorf("%s: got %s, want no credential in it", spelling, text)
				}
			}
		}
		up.Close()
	}
}

package proxy

import (
	"strings"
	"testing"
)

func TestMaskCredentials(t *testing.T) {
	f := func(in, want string) {
		t.Helper()
		if got, _ := maskCredentials([]byte(in), nil); string(got) != want {
			t.Errorf("maskCredentials(%s)\n got %s\nwant %s", in, got, want)
		}
	}
	f(`{"errcode":0}`, `{"errcode":0}`)
	f(`{"list":[{"authorizer_appid":"wxa","refresh_token":"refreshtoken@@@abc","auth_time":1},{"authorizer_appid":"wxb","refresh_token" : "r2"}],"total_count":1234567890123456789}`,
		`{"list":[{"authorizer_appid":"wxa","refresh_token":"***","auth_time":1},{"authorizer_appid":"wxb","refresh_token" : "***"}],"total_count":1234567890123456789}`)
	f(`{"authorization_info":{"authorizer_refresh_token":"x","authorizer_access_token":"y"}}`, `{"authorization_info":{"authorizer_refresh_token":"***","authorizer_access_token":"***"}}`)
	// The record of a request: a URL, and responses inside strings.
	f(`{"request_url":"access_token=50_Im7xxxx&a=b","response_body":"{\"component_access_token\":\"61_a-b\",\"expires_in\":7200}"}`,
		`{"request_url":"access_token=***&a=b","response_body":"{\"component_access_token\":\"***\",\"expires_in\":7200}"}`)
	f(`"\\\"refresh_token\\\":\\\"r@@@1\\\",\\\"b\\\":1"`, `"\\\"refresh_token\\\":\\\"***\\\",\\\"b\\\":1"`)
	f(`{"refresh_token":"a\/b\u003dc","x":1}`, `{"refresh_token":"***","x":1}`)
	// The name alone is no credential.
	f(`{"errmsg":"access_token expired","a":"access_token missing: none"}`, `{"errmsg":"access_token expired","a":"access_token missing: none"}`)
	f(`{"refresh_token":""}`, `{"refresh_token":""}`)
	f("{\"nick\":\"a\x01b\",\"refresh_token\":\"r\"}", "{\"nick\":\"a\x01b\",\"refresh_token\":\"***\"}")
	f(`access_token`, `access_token`)
	f(`access_token=`, `access_token=`)
	f(`access_token=x`, `access_token=***`)
}

// TestTokensOfNamedOwnersBecomeStandIns checks which tokens are replaced with a
// stand-in: those of the component, and those whose account is next to them.
func TestTokensOfNamedOwnersBecomeStandIns(t *testing.T) {
	standIn := func(component bool, appid []byte) []byte {
		switch {
		case component:
			return []byte("wxp_component")
		case string(appid) == acc:
			return []byte("wxp_account")
		}
		return nil // no permission
	}
	for in, want := range map[string]string{
		`{"component_access_token":"x"}`:                                           `{"component_access_token":"wxp_component"}`,
		`{"authorizer_appid":"` + acc + `","authorizer_access_token":"x"}`:         `{"authorizer_appid":"` + acc + `","authorizer_access_token":"wxp_account"}`,
		`{"authorizer_access_token":"x","authorizer_appid":"` + acc + `"}`:         `{"authorizer_access_token":"wxp_account","authorizer_appid":"` + acc + `"}`,
		`{"authorizer_appid":"wxbbbbbbbbbbbbbbbb","authorizer_access_token":"x"}`:  `{"authorizer_appid":"wxbbbbbbbbbbbbbbbb","authorizer_access_token":"***"}`,
		`{"authorizer_access_token":"x"}`:                                          `{"authorizer_access_token":"***"}`,
		`{"authorizer_appid":"` + acc + `","access_token":"x"}`:                    `{"authorizer_appid":"` + acc + `","access_token":"***"}`,
		`{"authorizer_appid":"` + acc + `","authorizer_refresh_token":"x"}`:        `{"authorizer_appid":"` + acc + `","authorizer_refresh_token":"***"}`,
		`{\"authorizer_appid\":\"` + acc + `\",\"authorizer_access_token\":\"x\"}`: `{\"authorizer_appid\":\"` + acc + `\",\"authorizer_access_token\":\"wxp_account\"}`,
	} {
		if got, _ := maskCredentials([]byte(in), standIn); string(got) != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

// FuzzMaskCredentials checks that a credential is masked whatever is around it.
func FuzzMaskCredentials(f *testing.F) {
	f.Add(`{"refresh_token":"`, `","a":1}`)
	f.Add(`{"request_url":"https:\/\/api.weixin.qq.com\/x?access_token=`, `&y=1"}`)
	f.Fuzz(func(t *testing.T, before, after string) {
		const secret = "75_SecretTokenOfThePlatform-0123456789_x"
		if strings.Contains(before, "_token") || strings.Contains(after, secret) {
			t.Skip()
		}
		for _, field := range []string{`"authorizer_refresh_token":"`, `access_token=`, `\"component_access_token\":\"`} {
			for _, close := range []string{`"`, `&`, `\"`} {
				got, n := maskCredentials([]byte(before+field+secret+close+after), nil)
				if strings.Contains(string(got), secret) || n == 0 {
					t.Fatalf("%q + %s: got %q, want the credential masked", before, field, got)
				}
			}
		}
	})
}

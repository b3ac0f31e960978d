package proxy

import (
	"testing"
)

// TestAppendQuery checks the query that WeChat receives.
func TestAppendQuery(t *testing.T) {
	s := testSettings()
	f := func(uri, want string) {
		t.Helper()
		h := headOf(t, uri)
		d, err := s.decide(&h)
		if err != nil {
			t.Fatalf("%s: got error %v, want none", uri, err)
		}
		if got := string(appendQuery(nil, h.target.query, &d.route, s.component, testToken)); got != want {
			t.Errorf("%s: got %s, want %s", uri, got, want)
		}
	}
	a := "/" + acc
	f(a+"/cgi-bin/a", "?access_token=T%40")
	f(a+"/cgi-bin/a?", "?access_token=T%40")
	f(a+"/cgi-bin/a?b=%20&access_token=x&c", "?access_token=T%40&b=%20&c")
	f(a+"/cgi-bin/a?secret=s&b", "?access_token=T%40&b")
	f("/sns/userinfo?access_token=x&s%65cret=s", "?access_token=x")
	f(a+"/sns/component/jscode2session?appid="+acc+"&component_access_token=x", "?component_appid="+comp+"&component_access_token=T%40&appid="+acc)
	f("/sns/component/jscode2session?secret=s&appid="+acc+"&component_appid="+comp, "?component_access_token=T%40&appid="+acc+"&component_appid="+comp)
	f(a+"/sns/jscode2session?secret=s&js_code=1&access_token=x", "?appid="+acc+"&component_appid="+comp+"&component_access_token=T%40&js_code=1")
	f("/sns/jscode2session?appid="+own+"&secret=mine&js_code=1", "?appid="+own+"&secret=s3cret&js_code=1")
	f("/sns/userinfo?access_token=x", "?access_token=x")
	f("/sns/userinfo", "")
	f("/sns/userinfo?", "?")
}

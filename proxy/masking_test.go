package proxy_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"wxproxy/proxy"
	"wxproxy/wechat"
)

// refresh is a refresh token as WeChat issues them.
const refresh = "refreshtoken@@@dTo-YCXPL4llX-u1W1pPpnp8Hgm4wpJtlR6iV0doKdY"

// spellings are the ways in which a response can hold a refresh token. Most
// have it as X, so that it is found by its name only.
var spellings = map[string]string{
	"object":                `{"errcode":0,"list":[{"refresh_token":"X"}]}`,
	"string in an object":   `{"a":"{\"authorizer_refresh_token\":\"X\"}"}`,
	"three strings deep":    `{"a":"{\"b\":\"{\\\"c\\\":\\\"{\\\\\\\"refresh_token\\\\\\\":\\\\\\\"X\\\\\\\"}\\\"}\"}"}`,
	"escaped separator":     `{"url":"https:\/\/a.b\/?refresh_token\u003dX\u0026b\u003dc"}`,
	"percent-encoded":       `{"url":"a%3Frefresh_token%3DX%26b"}`,
	"percent-encoded twice": `{"url":"a%253Frefresh%255Ftoken%253DX%2526b"}`,
	"escaped quotes":        `{"a":"{\u0022refresh_token\u0022:\u0022X\u0022}"}`,
	"entities":              `{&quot;refresh_token&quot;:&quot;X&quot;}`,
	"numeric entities":      `{&#34;refresh_token&#x22;:&#34;X&#34;}`,
	"escaped name":          `{"authorizer_refresh\u005ftoken":"X"}`,
	"escaped first letter":  `{"\u0072efresh_token":"X"}`,
	"list":                  `{"authorizer_refresh_token":["X"]}`,
	"nested lists":          `{"authorizer_refresh_token":[[{"a":["X"]}]]}`,
	"XML":                   `<xml><refresh_token><![CDATA[X]]></refresh_token></xml>`,
	"XML text":              `<xml><refresh_token>X</refresh_token></xml>`,
	"attribute":             `<xml refresh_token="X"/>`,
	"form":                  `a=b&refresh_token=X`,
	"single quotes":         `{'refresh_token':'X'}`,
	"no quotes":             `{refresh_token:X}`,
	"byte order mark":       "\xef\xbb\xbf{\"refresh_token\":\"X\"}",
	"UTF-16":                "{\x00\"\x00refresh_token\x00\"\x00:\x00\"\x00X\x00\"\x00}\x00",
	"no name":               `{"list":[["` + refresh + `"]]}`,
	"large":                 `{"x":"` + strings.Repeat("x", 200_000) + `","refresh_token":"X"}`,
}

// componentPaths returns a path for each row of the endpoint table that needs
// the component's token, and for a route of the operator's.
func componentPaths() (paths []string) {
	for _, e := range wechat.Endpoints {
		path := strings.ReplaceAll(e.Path, "*", "new")
		if len(e.Actions) > 0 {
			path += "?action=" + e.Actions[0]
		}
		switch e.Need {
		case wechat.NeedComponent:
			paths = append(paths, path)
		case wechat.NeedEither:
			paths = append(paths, "/"+component+path)
		case wechat.NeedSecret: // forwarded to its twin
			paths = append(paths, path+"?appid="+account)
		}
	}
	return append(paths, "/cgi-bin/new/x")
}

// TestResponsesToComponentRequestsAreSearched checks that a refresh token in a
// response to a request that carried the component's token is masked: each row
// of the endpoint table and a route of the operator's × each spelling × plain,
// gzip and chunked. The injected token is masked, too, in the body and in
// headers.
func TestResponsesToComponentRequestsAreSearched(t *testing.T) {
	const secret = "dTo-YCXPL4llX-u1W1pPpnp8Hgm4wp"
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		w.Header().Set("Location", "https://a.b/?x=refresh_token%3D"+secret)
		w.Header().Set("X-Echo", strings.ReplaceAll(longToken, "_", "%5F"))
		w.Header().Set("X-Kept", "1")
		body := strings.ReplaceAll(spellings[q.Get("spelling")], "X", secret) +
			" " + strings.ReplaceAll(longToken, "-", `\u002d`)
		switch q.Get("how") {
		case "gzip":
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(compress(body))
		case "chunks":
			for part := range slices.Chunk([]byte(body), 1+len(body)/3) {
				w.Write(part)
				w.(http.Flusher).Flush()
			}
		default:
			io.WriteString(w, body)
		}
	})
	_, addr := start(t, up, func(c *proxy.Config) {
		withRoutes(c)
		c.Tokens = &fakeTokens{current: longToken}
	})
	for i, path := range componentPaths() {
		separator := "?"
		if strings.Contains(path, "?") {
			separator = "&"
		}
		for spelling := range spellings {
			how := []string{"plain", "gzip", "chunks"}[(i+len(spelling))%3]
			query := "how=" + how + "&spelling=" + strings.ReplaceAll(spelling, " ", "+")
			raw := get(path+separator+query, "Accept-Encoding: gzip", "X-WX-APPID: "+account)
			if strings.HasPrefix(path, "/"+component) {
				raw = strings.Replace(raw, "X-WX-APPID: "+account+"\r\n", "", 1)
			}
			// On logins, a plain refresh_token is an end user's.
			text := spellings[spelling]
			users := strings.Contains(path, "/sns/") &&
				!strings.Contains(text, "authorizer") && !strings.Contains(text, "@@@")
			resp, body := send(t, addr, raw)
			all := fmt.Sprint(resp.Header) + strings.ReplaceAll(body, "\x00", "")
			if resp.StatusCode != http.StatusOK || resp.Header.Get("X-Kept") != "1" {
				t.Fatalf("%s: got %s %.200s, want 200", raw, resp.Status, body)
			}
			if users != strings.Contains(body, secret) {
				t.Errorf("%s %s: got %.300s, want a mask: %t", path, spelling, body, !users)
			}
			if strings.Contains(all, longToken[6:30]) || resp.Header.Get("Location") != "" {
				t.Errorf("%s %s: got %.300s, want the injected token masked", path, spelling, all)
			}
		}
	}
}

// TestCredentialsInHeadersAreRemoved checks each place in the head of a
// response × spellings of the injected token × the component's token and an
// account's, and credentials with a name of their own for the component's.
func TestCredentialsInHeadersAreRemoved(t *testing.T) {
	heads := make(chan string, 1)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			http.ReadRequest(bufio.NewReader(conn))
			io.WriteString(conn, <-heads)
			conn.Close()
		}
	}()
	_, addr := start(t, "http://"+ln.Addr().String(), func(c *proxy.Config) {
		c.Tokens = &fakeTokens{current: longToken}
	})
	places := []string{
		"200 TOKEN\r\n", "200 OK\r\nLocation: https://a.b/?access_token=TOKEN&x=1\r\n",
		"200 OK\r\nSet-Cookie: a=TOKEN; Path=/\r\n", "200 OK\r\nContent-Type: text/TOKEN\r\n",
		"200 OK\r\nX-A: b\r\nX-A: TOKEN\r\n", "200 OK\r\nTOKEN: x\r\n",
	}
	check := func(path, head, secret string) {
		t.Helper()
		heads <- "HTTP/1.1 " + head + "X-Kept: 1\r\nContent-Length: 2\r\n" +
			"Connection: close\r\n\r\n{}"
		resp, body := send(t, addr, get(path))
		all := resp.Status + fmt.Sprint(resp.Header)
		if strings.Contains(all, secret) || resp.Header.Get("X-Kept") != "1" || body != "{}" {
			t.Errorf("%s %q: got %s, want no credential, and the other headers", path, head, all)
		}
	}
	for _, path := range []string{"/wxa/gettemplatelist", "/" + account + "/cgi-bin/user/info"} {
		for _, place := range places {
			for _, spelling := range []string{"_", "%5F", "%255f", "&#95;"} {
				token := strings.ReplaceAll(longToken, "_", spelling)
				if !strings.Contains(place, "TOKEN: x") || spelling == "_" {
					check(path, strings.ReplaceAll(place, "TOKEN", token), token)
				}
			}
		}
	}
	for _, line := range []string{
		"Authorizer-Refresh-Token: r3fresh", "Location: https://a.b/?refresh_token=r3fresh",
		"Set-Cookie: component_access_token=r3fresh", "X-Debug: refresh_token%3Dr3fresh",
	} {
		check("/wxa/gettemplatelist", "200 OK\r\n"+line+"\r\n", "r3fresh")
	}
}

// TestUsersTokensPass checks that what belongs to an end user passes on logins,
// and the platform's credentials do not.
func TestUsersTokensPass(t *testing.T) {
	const users = `{"access_token":"OAUTH","refresh_token":"OAUTH-R","session_key":"s=="`
	up := wechatServer(t, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, users+`,"authorizer_refresh_token":"x","component_access_token":"y"}`)
	})
	_, addr := start(t, up, nil)
	for _, path := range []string{
		"/sns/oauth2/component/access_token", "/sns/oauth2/component/refresh_token",
		"/sns/component/jscode2session", "/sns/oauth2/access_token", "/sns/jscode2session",
	} {
		_, body := send(t, addr, get(path+"?appid="+account))
		want := users + `,"authorizer_refresh_token":"***","component_access_token":"wxp_`
		if !strings.HasPrefix(body, want) {
			t.Errorf("%s: got %s, want only the platform's credentials masked", path, body)
		}
	}
}

// TestUnsearchableResponses checks which responses to a request with the
// component's token are withheld, and which are not. Responses to requests with
// an account's token pass.
func TestUnsearchableResponses(t *testing.T) {
	const encoding, kind = "Content-Encoding", "Content-Type"
	gzip := string(compress("a text"))
	twice := string(compress(gzip))
	tooLong := strings.Repeat("x", 8<<20+1)
	const unknown, charset = "unknown encoding", "unknown character set"
	for name, c := range map[string]struct {
		header, value string
		body          string
		reason        string // "": passes
	}{
		"brotli":             {encoding, "br", "x", unknown},
		"deflate":            {encoding, "deflate", "x", unknown},
		"two encodings":      {encoding, "gzip, gzip", twice, unknown},
		"gzip in gzip":       {encoding, "gzip", twice, unknown},
		"gzip that is none":  {encoding, "gzip", "x", unknown},
		"gzip cut short":     {encoding, "gzip", gzip[:12], "truncated"},
		"gzip and more":      {encoding, "gzip", gzip + "x", "truncated"},
		"zip":                {"X-A", "b", "PK\x03\x04...", unknown},
		"zlib":               {"X-A", "b", "\x78\x9c...", unknown},
		"UTF-7":              {kind, "text/plain; charset=utf-7", "x", charset},
		"EBCDIC":             {kind, `text/plain; a=b; Charset="IBM037"`, "x", charset},
		"a part":             {"Content-Range", "bytes 0-9/100", "x", "partial content"},
		"over 8 MiB":         {"X-A", "b", tooLong, "too large"},
		"gzip of over 8 MiB": {"X-A", "b", string(compress(tooLong)), "too large"},
		"8 MiB":              {"X-A", "b", tooLong[1:], ""},
		"gzip":               {encoding, "gzip", gzip, ""},
		"identity":           {encoding, "identity", "x", ""},
		"GBK":                {kind, "text/plain; charset=GBK", "\xc4\xe3", ""},
		"WeChat's own type":  {kind, "application/json; encoding=utf-8", "{}", ""},
		"picture":            {kind, "image/jpeg", "\xff\xd8\xff\xe0\x00JFIF\x00%\\&\x00", ""},
	} {
		up := wechatServer(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(c.header, c.value)
			io.WriteString(w, c.body)
		})
		_, addr := start(t, up, nil)
		resp, body := send(t, addr, get("/wxa/gettemplatelist", "Accept-Encoding: gzip"))
		switch {
		case c.reason != "":
			checkResponse(t, name, resp, body, http.StatusBadGateway, `{"errcode":-502,`)
			if !strings.Contains(body, "cannot be searched for credentials: "+c.reason) {
				t.Errorf("%s: got %.300s, want the reason %s", name, body, c.reason)
			}
		case resp.StatusCode != http.StatusOK || body != c.body && name != "gzip" || len(body) == 0:
			t.Errorf("%s: got %s %.300q, want it unchanged", name, resp.Status, body)
		}
		resp, body = send(t, addr, get("/"+account+"/cgi-bin/user/info", "Accept-Encoding: gzip"))
		if resp.StatusCode != http.StatusOK || body != c.body {
			t.Errorf("%s, account's token: got %s %.300q, want it unchanged",
				name, resp.Status, body)
		}
	}
}

// TestSearchedResponseMustArriveInTime checks that a response which has to be
// searched ends with the request's deadline, although bytes of it keep
// arriving.
func TestSearchedResponseMustArriveInTime(t *testing.T) {
	stop := make(chan struct{})
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, strings.Repeat("x", 100_000))
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			io.WriteString(w, "x")
			w.(http.Flusher).Flush()
			select {
			case <-tick.C:
			case <-stop:
				return
			case <-r.Context().Done():
				return
			}
		}
	})
	t.Cleanup(func() { close(stop) })
	_, addr := start(t, up, func(c *proxy.Config) { c.Timeout = time.Second })
	resp, body := send(t, addr, get("/wxa/gettemplatelist"))
	checkResponse(t, "endless", resp, body, http.StatusGatewayTimeout, "WeChat took too long")
}

// boundaryServer sends the token of the request behind a number of bytes, in
// the framing and the spelling that the query names.
func boundaryServer(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	before, _ := strconv.Atoi(q.Get("before"))
	token := q.Get("access_token")
	switch q.Get("spelling") {
	case "percent":
		token = strings.ReplaceAll(token, "_", "%5F")
	case "unicode":
		token = strings.ReplaceAll(token, "a", `\u0061`)
	}
	body := strings.Repeat("x", before) + token + strings.Repeat("y", 100_000)
	switch q.Get("how") {
	case "gzip":
		w.Write(compress(body))
	case "chunks":
		w.(http.Flusher).Flush()
		io.WriteString(w, body)
	default:
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		io.WriteString(w, body)
	}
}

// TestTokenBehindTheBufferedPart checks that a token is masked in a streamed
// response: 0 to 200 bytes before and behind the part that is buffered (64 KiB)
// and far behind × known length, chunked and gzip × as it is, percent-encoded
// and with JSON escapes. A stream keeps its length. A gzip stream ends instead.
func TestTokenBehindTheBufferedPart(t *testing.T) {
	up := wechatServer(t, boundaryServer)
	_, addr := start(t, up, func(c *proxy.Config) { c.Tokens = &fakeTokens{current: longToken} })
	var positions []int
	for distance := -200; distance <= 200; distance += 25 {
		positions = append(positions, 64<<10+distance, 96<<10+distance)
	}
	for _, before := range append(positions, 64<<10-1, 64<<10+1, 10, 300_000) {
		for _, how := range []string{"length", "chunks", "gzip"} {
			for _, spelling := range []string{"plain", "percent", "unicode"} {
				checkBoundary(t, addr, before, how, spelling)
			}
		}
	}
}

// checkBoundary checks one response of boundaryServer.
func checkBoundary(t *testing.T, addr string, before int, how, spelling string) {
	t.Helper()
	path := fmt.Sprintf("/%s/cgi-bin/user/info?before=%d&how=%s&spelling=%s",
		account, before, how, spelling)
	resp, body, err := exchangeOnce(addr, get(path, "Accept-Encoding: gzip"))
	switch x := strings.Count(body, "x"); {
	case how == "gzip" && err == nil && strings.HasPrefix(body, "\x1f\x8b"):
		t.Errorf("%s: got the whole response, want it masked or cut", path)
	case how == "gzip":
		if strings.Contains(body, "T") {
			t.Errorf("%s: got the token", path)
		}
	case err != nil || resp.StatusCode != http.StatusOK:
		t.Errorf("%s: got %d bytes, error %v, want 200", path, len(body), err)
	case strings.Trim(body, "x*y") != "" || x != before || strings.Count(body, "y") != 100_000:
		t.Errorf("%s: got %d bytes, want only the token masked", path, len(body))
	}
}

// TestShortResponsesThatBeginLikeGzip checks that a token is not received from a
// short response that begins like gzip and is something else, in whole or in
// part: no gzip at all, a header alone, a member with the token behind it, one
// with a wrong checksum, two members, one that is cut short.
func TestShortResponsesThatBeginLikeGzip(t *testing.T) {
	text, empty := `{"a":"`+longToken+`"}`, string(compress("{}"))
	for name, body := range map[string]string{
		"no gzip":           "\x1f\x8b" + text,
		"header":            "\x1f\x8b\x08\x00" + text,
		"member and text":   empty + text,
		"damaged, and text": empty[:len(empty)-8] + "damaged!" + text,
		"two members":       empty + string(compress(text)),
		"one member":        string(compress(text)),
		"cut short":         string(compress(text + strings.Repeat("abc", 100)))[:110],
	} {
		up, _ := rawServer(t, func(string) string {
			const head = "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
			return fmt.Sprintf(head, len(body)) + body
		})
		_, addr := start(t, up, func(c *proxy.Config) { c.Tokens = &fakeTokens{current: longToken} })
		_, got, _ := exchangeOnce(addr, get("/"+account+"/cgi-bin/user/info", "Accept-Encoding: gzip"))
		if strings.Contains(got, longToken) {
			t.Errorf("%s: got the token in %q", name, got)
		}
		z, err := gzip.NewReader(strings.NewReader(got))
		if err != nil {
			continue
		}
		if plain, _ := io.ReadAll(z); bytes.Contains(plain, []byte(longToken)) {
			t.Errorf("%s: got the token, compressed", name)
		}
	}
}

// exchangeOnce sends raw and returns the response with the error of reading it.
func exchangeOnce(addr, raw string) (*http.Response, string, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(testTimeout))
	io.WriteString(conn, raw)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}

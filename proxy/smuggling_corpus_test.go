package proxy_test

import (
	"strings"
)

// smugglingCorpus holds inputs for FuzzDifferential, each of one or several
// requests. {key} stands for the caller's key, {p} for the prefix of its
// account, {head} for the rest of the request line with Host and key, {ok} for
// a request that is allowed.
var smugglingCorpus = []string{
	// Allowed requests: TestDifferentialForwards needs them.
	"{ok}",
	"{ok}{ok}{ok}",
	"POST {p}/cgi-bin/menu/get?lang=zh_CN{head}Content-Length: 5\r\n\r\nhello{ok}",
	"GET http://api.weixin.qq.com{p}/cgi-bin/user/info?a=1 HTTP/1.1\r\nHost: api.weixin.qq.com\r\nProxy-Authorization: Basic eDpsaW1pdGVkLWtleV8wMTIzNDU2Nzg5\r\n\r\n",

	// Paths that could be read in two ways.
	"GET {p}/cgi-bin/user/../token{head}\r\n",
	"GET {p}/cgi-bin/user/%2e%2e/token{head}\r\n",
	"GET {p}/cgi-bin/user/%252e%252e/token{head}\r\n",
	"GET {p}/cgi-bin/user/..%2ftags/get{head}\r\n",
	"GET {p}/cgi-bin/user/..;/tags/get{head}\r\n",
	"GET {p}/cgi-bin/user/%c0%ae%c0%ae/x{head}\r\n",
	"GET {p}/cgi-bin/user\\..\\tags{head}\r\n",
	"GET {p}//cgi-bin//user/info{head}\r\n",
	"GET {p}/cgi-bin/%75ser/info{head}\r\n",
	"GET {p}/cgi-bin/menu/get%00/../delete{head}\r\n",
	"GET {p}/cgi-bin/menu/get/{head}\r\n",
	"GET {p}/CGI-BIN/MENU/GET{head}\r\n",
	"GET {p}/cgi-bin/user/%0d%0aHost:%20evil{head}\r\n",
	"GET {p}{p}/cgi-bin/user/info{head}\r\n",
	"GET http://api.weixin.qq.com@evil.example/cgi-bin/user/info HTTP/1.1\r\nHost: x\r\nX-WX-APPID: " + account + "\r\nX-Wxproxy-Key: {key}\r\n\r\n",
	"OPTIONS *{head}\r\n",

	// Tokens and appids of the caller.
	"GET {p}/cgi-bin/user/info?access_token=a&%61ccess_token=b;access%5ftoken=c&component_access_token=d{head}\r\n",
	"GET /cgi-bin/user/info?appid=" + other + " HTTP/1.1\r\nHost: x\r\nX-WX-APPID: " + account + "\r\nX-WX-APPID: " + other + "\r\nX-Wxproxy-Key: {key}\r\n\r\n",
	"GET /" + other + "/cgi-bin/user/info HTTP/1.1\r\nHost: x\r\nX-WX-APPID: " + account + "\r\nX-Wxproxy-Key: {key}\r\n\r\n",
	"GET /" + component + "/cgi-bin/user/info{head}\r\n",

	// The end of a request: two lengths, chunks, and both.
	"POST {p}/cgi-bin/user/a{head}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG{ok}",
	"POST {p}/cgi-bin/user/a{head}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\nGPOST / HTTP/1.1\r\n\r\n0\r\n\r\n{ok}",
	"POST {p}/cgi-bin/user/a{head}Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello{ok}",
	"POST {p}/cgi-bin/user/a{head}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello{ok}",
	"POST {p}/cgi-bin/user/a{head}Content-Length: 5, 5\r\n\r\nhello{ok}",
	"POST {p}/cgi-bin/user/a{head}Content-Length: 0x5\r\n\r\nhello{ok}",
	"POST {p}/cgi-bin/user/a{head}Content-Length : 5\r\n\r\nhello{ok}",
	"POST {p}/cgi-bin/user/a{head}Content_Length: 5\r\n\r\nhello{ok}",
	"POST {p}/cgi-bin/user/a{head}Transfer-Encoding: identity\r\n\r\n{ok}",
	"POST {p}/cgi-bin/user/a{head}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n{ok}",
	"POST {p}/cgi-bin/user/a{head}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{ok}",
	"POST {p}/cgi-bin/user/a{head}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{ok}",
	"POST {p}/cgi-bin/user/a{head}X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{ok}",
	"POST {p}/cgi-bin/user/a HTTP/1.0\r\nHost: x\r\nX-Wxproxy-Key: {key}\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{ok}",
	"POST {p}/cgi-bin/user/a{head}Transfer-Encoding: chunked\r\n\r\n2;a=\"\r\n\"\r\nhi\r\n0\r\nAuthorization: Bearer {key}\r\nX-WX-APPID: " + other + "\r\n\r\n{ok}",
	"POST {p}/cgi-bin/user/a{head}Trailer: X-A\r\nTransfer-Encoding: chunked\r\n\r\n2\nhi\n0\nX-A: b\n\n{ok}",
	"POST {p}/cgi-bin/user/a{head}Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nhi\r\n0\r\n\r\n{ok}",
	"POST {p}/cgi-bin/user/a{head}Transfer-Encoding: chunked\r\n\r\n+2\r\nhi\r\n0\r\n\r\n{ok}",
	"POST {p}/cgi-bin/user/a{head}Transfer-Encoding: chunked\r\n\r\n2\r\nhiXX0\r\n\r\n{ok}",
	"GET {p}/cgi-bin/user/a{head}Content-Length: 3\r\n\r\nGET{ok}",
	"HEAD {p}/cgi-bin/user/a{head}\r\n{ok}",
	"POST {p}/cgi-bin/user/a{head}Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello{ok}",
	"POST {p}/cgi-bin/user/a HTTP/1.1\r\nHost: x\r\nContent-Length: 120\r\n\r\n{ok}",
	"GET {p}/cgi-bin/user/a{head}Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AA\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",

	"POST {p}/cgi-bin/user/a{head}Transfer-Encoding: chunked\r\n\r\n2\r\nhi",
	"POST {p}/cgi-bin/user/a{head}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r",
	"POST {p}/cgi-bin/user/a{head}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
	"POST {p}/cgi-bin/user/a{head}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0",
	"POST {p}/cgi-bin/user/a{head}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n",
	"POST {p}/cgi-bin/user/a{head}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-A: b",
	"POST {p}/cgi-bin/user/a{head}Content-Length: 5\r\n\r\nhell",

	// Malformed lines.
	"GET {p}/cgi-bin/user/a HTTP/1.1\nHost: x\nX-Wxproxy-Key: {key}\n\n{ok}",
	"GET {p}/cgi-bin/user/a{head}X-A: b\r\n c\r\n\tContent-Length: 9\r\n\r\n{ok}",
	"GET {p}/cgi-bin/user/a HTTP/1.1\r\n X-Wxproxy-Key: {key}\r\nHost: x\r\n\r\n{ok}",
	"GET {p}/cgi-bin/user/a{head}X-A: b\rAuthorization: Bearer z\r\n\r\n{ok}",
	"GET {p}/cgi-bin/user/a{head}X-A: b\x00c\r\n\r\n",
	"GET {p}/cgi-bin/user/a{head}X-A\r\n\r\n{ok}",
	"\r\n\r\n{ok}\r\n{ok}",
	"GET {p}/cgi-bin/user/a {head}\r\n",
	"GET\t{p}/cgi-bin/user/a\tHTTP/1.1\r\nHost: x\r\nX-Wxproxy-Key: {key}\r\n\r\n",
	"GET {p}/cgi-bin/user/a\r\n\r\n{ok}",
	"GET {p}/cgi-bin/user/a HTTP/2.0\r\nHost: x\r\nX-Wxproxy-Key: {key}\r\n\r\n{ok}",
	"G(T {p}/cgi-bin/user/a{head}\r\n",
	"GET {p}/cgi-bin/user/a?x=\xff\x80{head}X-A: \xff\x80\r\nConnection: close\r\n\r\n{ok}",
	"GET {p}/cgi-bin/user/a HTTP/1.1\r\nHost: x\r\nHost: y\r\nX-Wxproxy-Key: {key}\r\n\r\n{ok}",
	"GET {p}/cgi-bin/user/a HTTP/1.1\r\nX-Wxproxy-Key: {key}\r\n\r\n{ok}",
	"GET {p}/cgi-bin/user/a{head}X-Wxproxy-Key: another-key\r\n\r\n{ok}",
	"GET {p}/cgi-bin/user/a{head}Connection: X-Wxproxy-Key, Content-Length, X-A\r\nX-A: b\r\nCookie: c\r\nVia: d\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Access-Token: e\r\n\r\n{ok}",
	"POST {p}/cgi-bin/user/a{head}Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 5\r\n\r\n--b--{ok}",
	"GET {p}/cgi-bin/user/a{head}X-A: " + strings.Repeat("a", 17<<10) + "\r\n\r\n{ok}",
}

// standInCorpus holds inputs with a stand-in: {standin}.
var standInCorpus = []string{
	"GET /cgi-bin/user/info?access_token={standin} HTTP/1.1\r\nHost: x\r\n\r\n",
	"GET /cgi-bin/tags/get?access_token={standin} HTTP/1.1\r\nHost: x\r\n\r\n",
	"GET /cgi-bin/user/info?a=b&access%5Ftoken={standin}&access_token=&component_access_token={standin} HTTP/1.1\r\nHost: x\r\n\r\n",
	"GET /" + other + "/cgi-bin/user/info?access_token={standin} HTTP/1.1\r\nHost: x\r\n\r\n",
	"GET /" + component + "/cgi-bin/user/info?access_token={standin};access_token=x HTTP/1.1\r\nHost: x\r\n\r\n",
	"POST /cgi-bin/user/../component/api_get_authorizer_list?component_access_token={standin} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
	"GET /sns/userinfo?access_token={standin}{head}\r\n{ok}",
	"POST /cgi-bin/stable_token HTTP/1.1\r\nHost: x\r\nContent-Length: 75\r\n\r\n{\"appid\":\"" + account + "\",\"secret\":\"{key}\",\"a\":\"bcdef\"}{ok}",
}

// expand replaces the placeholders of the corpora.
func expand(s string) []byte {
	head := " HTTP/1.1\r\nHost: x\r\nX-Wxproxy-Key: " + limitedKey + "\r\n"
	ok := "GET /" + account + "/cgi-bin/user/info?openid=o" + head + "\r\n"
	return []byte(strings.NewReplacer("{ok}", ok, "{head}", head, "{key}", limitedKey, "{p}", "/"+account).Replace(s))
}

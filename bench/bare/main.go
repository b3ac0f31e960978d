// Command bare is the baseline of the benchmarks: it does as little as a Go
// proxy can do for the same request. It forwards with fasthttp and injects a
// fixed token.
//
//	bare ADDRESS UPSTREAM [tls]
package main

import (
	"crypto/tls"
	"log"
	"os"

	"github.com/valyala/fasthttp"
)

// token has the length of WeChat's tokens.
const token = "78_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789AbCdEfGhIjKlMnOpQrStUvWxYz0123456789AbCdEfGhIjKlMnOpQrStUvWxYz0123456789AbCdEfGhIjKlMnOpQrStUvWxYzABCDE"

func main() {
	if len(os.Args) < 3 {
		log.Fatal("usage: bare ADDRESS UPSTREAM [tls]")
	}
	secure := len(os.Args) > 3
	hc := &fasthttp.HostClient{
		Addr:                     os.Args[2],
		MaxConns:                 4096,
		IsTLS:                    secure,
		NoDefaultUserAgentHeader: true,
		TLSConfig:                &tls.Config{InsecureSkipVerify: true}, // the upstream is on loopback
	}
	server := &fasthttp.Server{NoDefaultServerHeader: true, Handler: func(c *fasthttp.RequestCtx) {
		c.Request.URI().QueryArgs().Set("access_token", token)
		if secure {
			c.Request.URI().SetScheme("https")
		}
		if err := hc.Do(&c.Request, &c.Response); err != nil {
			c.Error("upstream", fasthttp.StatusBadGateway)
		}
	}}
	log.Fatal(server.ListenAndServe(os.Args[1]))
}

package proxy

import (
	"wxproxy/tokens"
	"wxproxy/wechat"
)

var testToken = tokens.Token{Value: wechat.NewSecret("T@"), Escaped: "T%40"}

package wechat_test

import (
	"testing"

	"wxproxy/wechat"
)

func BenchmarkFindErrCode(b *testing.B) {
	for name, body := range map[string]string{
		"ok":      `{"errcode":0,"errmsg":"ok","msgid":3456789012345678901}`,
		"refusal": `{"errcode":40001,"errmsg":"invalid credential, access_token is invalid or not latest, could get access_token by getStableAccessToken, more details at https://mmbizurl.cn/s/JtxxFh33r rid: 669e174a-303bcbd1-71c3ffbf"}`,
		"none":    `{"subscribe":1,"openid":"o6_bmjrPTlm6_2sgVt7hMZOPfL2M","nickname":"Band","sex":1,"language":"zh_CN","city":"广州","province":"广东","country":"中国"}`,
	} {
		b.Run(name, func(b *testing.B) {
			raw := []byte(body)
			b.ReportAllocs()
			for b.Loop() {
				wechat.FindErrCode(raw)
			}
		})
	}
}

func BenchmarkFind(b *testing.B) {
	table := wechat.NewTable(nil, wechat.Endpoints)
	b.ReportAllocs()
	for b.Loop() {
		table.Find("/cgi-bin/message/custom/send", "")
	}
}

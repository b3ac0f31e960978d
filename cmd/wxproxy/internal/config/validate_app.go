package config

import (
	"fmt"
	"slices"

	"wxproxy/wechat"
)

// apps checks the own accounts. Blocks are counted from 1.
func (v *validator) apps() {
	first := map[string]int{} // number of the first block with this appid
	for i, a := range v.cfg.Apps {
		block := fmt.Sprintf("app[%d]", i+1)
		key := block + ".appid"
		switch {
		case a.AppID == "":
			v.empty(key, "fill in the appid of the account, or remove the block")
		case !wechat.IsAppID(a.AppID):
			v.fault(key, "%s", badAppID)
		// With two secrets for one appid it would be unclear which one is used.
		case a.AppID == v.cfg.Component.AppID:
			v.fault(key, "is the appid of the component; remove the block: [component] has its secret")
		case first[a.AppID] > 0:
			v.fault(key, "is the same as in app[%d]; remove one of the blocks", first[a.AppID])
		default:
			first[a.AppID] = i + 1
		}
		if a.AppSecret.IsEmpty() {
			v.empty(block+".appsecret", "copy the AppSecret of the account from mp.weixin.qq.com, or remove the block")
		} else {
			v.noSpaces(block+".appsecret", a.AppSecret)
		}
		checkMessageKeys(v, block, a)
	}
}

// hasApp reports whether there is an [[app]] block for appid.
func (v *validator) hasApp(appid string) bool {
	return slices.ContainsFunc(v.cfg.Apps, func(a App) bool { return a.AppID == appid })
}

// checkMessageKeys checks the keys with which WeChat signs and encrypts the pushes
// of an own account.
func checkMessageKeys(v *validator, block string, a App) {
	token := block + ".message_token"
	switch {
	case a.MessageToken.IsEmpty() && !a.MessageKey.IsEmpty():
		v.empty(token, "message_key needs it: copy the token (令牌) from the page with the URL "+
			"of the account at mp.weixin.qq.com, or remove message_key")
	case !a.MessageToken.IsEmpty() && !tokenForm.MatchString(a.MessageToken.Reveal()):
		v.fault(token, "is not a token, which has 3 to 32 letters and digits; copy it again")
	}
	v.messageKey(block+".message_key", a.MessageKey)
	if !a.MessageToken.IsEmpty() && a.MessageKey.IsEmpty() {
		v.warn(token, "is there without message_key, so pushes in plain mode (明文模式) are accepted. "+
			"Their body is not signed: choose safe mode (安全模式) at WeChat and fill in message_key")
	}
}

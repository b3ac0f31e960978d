package callback

import (
	"context"
	"errors"
	"slices"
	"strings"

	"wxproxy/wechat"
)

// What WeChat tries before a platform is released to everybody (全网发布,
// doc/oplatform/Third-party_Platforms/2.0/operation/thirdparty/releases_instructions). wxproxy passes it by itself.

// checkers are WeChat's accounts that do it: five official accounts and five mini programs.
var checkers = []string{
	"wx570bc396a51b8ff8", "wx9252c5e0bb1836fc", "wx8e1097c5bc82cde9", "wx14550af28c71a144", "wxa35b9c23cfe664eb",
	"wxd101a85aa106f53e", "wxc39235c15087f6f3", "wx7720d01d4b2a4500", "wx05d483572dcd5d8b", "wx5910277cae6fd970",
}

const (
	checkText = "TESTCOMPONENT_MSG_TYPE_TEXT"
	checkCode = "QUERY_AUTH_CODE:"
)

var errBusy = errors.New("too much is waiting to be done")

// check answers the release checker; is reports whether m is of it. Its two texts mean the same in nobody else's
// rules. Its events do not: there a rule that names the account comes first, one for all accounts does not.
func (h *Handler) check(account string, l letter, m wechat.Message) (text serviceAnswer, is bool, err error) {
	if !slices.Contains(checkers, account) {
		return text, false, nil
	}
	named := func(f Forward) bool {
		return slices.Contains(f.AppIDs, account) && f.match(account, m.MsgType, m.Event)
	}
	text = serviceAnswer{result: resultOK, note: "the release checker"}
	code, asksForCode := strings.CutPrefix(m.Content, checkCode)
	switch {
	case m.MsgType == "text" && m.Content == checkText:
		text.xml = textReply(m, checkText+"_callback")
	case m.MsgType == "text" && asksForCode && wechat.IsAuthCode(code) && h.exchangeCode != nil && l.keys.sendText != nil:
		text.empty = true
		if !h.outbox.add(h.answerChecker(account, l, m.FromUserName, wechat.NewSecret(code))) {
			return text, true, errBusy
		}
	case m.MsgType == "event" && m.Event != "" && !slices.ContainsFunc(l.keys.rules, named):
		text.xml = textReply(m, m.Event+"from_callback")
	default:
		return serviceAnswer{}, false, nil
	}
	return text, true, nil
}

// answerChecker exchanges the code, and sends it back in a message with the token that it gave.
func (h *Handler) answerChecker(account string, l letter, openid string, code wechat.Secret) job {
	return job{
		do: func(ctx context.Context) error {
			done, err := h.exchangeCode(ctx, code)
			if err == nil && done.AppID != account {
				err = final{errors.New("its code is another account's")}
			}
			if err == nil {
				err = l.keys.sendText(ctx, account, openid, code.Reveal()+"_from_api")
			}
			switch {
			case wechat.Code(err) > 0: // such as a code that is used up
				err = final{err}
			case err == nil:
				h.log.Info("the release checker was answered", "account", account)
			}
			return err
		},
		failed: func(err error) {
			h.log.Error("the release checker could not be answered", "account", account, "error", wechat.Sanitize(code.Mask(err.Error()), 2*lineLimit))
		},
	}
}

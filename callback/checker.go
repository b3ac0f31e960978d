package callback

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"

	"wxproxy/tokens"
	"wxproxy/wechat"
)

// checkerAccounts are WeChat's accounts that test a platform before it is
// released (全网发布,
// doc/oplatform/Third-party_Platforms/2.0/operation/thirdparty/releases_instructions),
// with their original ids: five official accounts and five mini programs.
var checkerAccounts = map[string]string{
	"wx570bc396a51b8ff8": "gh_3c884a361561",
	"wx9252c5e0bb1836fc": "gh_c0f28a78b318",
	"wx8e1097c5bc82cde9": "gh_3f222ed8d140",
	"wx14550af28c71a144": "gh_26128078e9ab",
	"wxa35b9c23cfe664eb": "gh_2b3713f184a6",

	"wxd101a85aa106f53e": "gh_8dad206e9538",
	"wxc39235c15087f6f3": "gh_905ae9d01059",
	"wx7720d01d4b2a4500": "gh_393666f1fdf4",
	"wx05d483572dcd5d8b": "gh_39abb5d4e1b7",
	"wx5910277cae6fd970": "gh_7818dcb60240",
}

// isChecker reports whether an account is one of them.
func isChecker(account string) bool { return checkerAccounts[account] != "" }

// The texts that these accounts send: the whole text of one message, and the
// beginning of another, which ends with an authorization code.
const (
	checkerText       = "TESTCOMPONENT_MSG_TYPE_TEXT"
	checkerCodePrefix = "QUERY_AUTH_CODE:"
)

// releaseChecker answers the test that WeChat makes before a platform is
// released, so that wxproxy passes it without any service.
type releaseChecker struct {
	// exchange exchanges an authorization code; nil: codes are not answered.
	exchange func(context.Context, wechat.Secret) (tokens.Authorization, error)
	outbox   *outbox
	log      *slog.Logger
}

// canExchange reports whether codes can be answered.
func (c *releaseChecker) canExchange(s *settings) bool {
	return c.exchange != nil && s.sendText != nil
}

// checkerStep is a step of the test.
type checkerStep int

const (
	noCheck    checkerStep = iota // the message does not belong to the test
	checkText                     // a text is echoed
	checkCode                     // a code is exchanged and sent back
	checkEvent                    // an event is named
)

// checkerStepOf returns the step to which a message belongs. The two texts
// belong to the test even if a rule matches them. Events do unless a rule
// replies to them that names the account: a rule for all accounts was not
// written for the test.
func checkerStepOf(s *settings, account string, m wechat.Message, canExchange bool) checkerStep {
	if !isChecker(account) {
		return noCheck
	}
	replies := func(f Forward) bool {
		return f.Mode != ModeQueue &&
			slices.Contains(f.AppIDs, account) && f.matches(account, m.MsgType, m.Event)
	}
	code, asksForCode := strings.CutPrefix(m.Content, checkerCodePrefix)
	switch {
	case m.MsgType == "text" && m.Content == checkerText:
		return checkText
	case m.MsgType == "text" && asksForCode && wechat.IsAuthCode(code) && canExchange:
		return checkCode
	case m.MsgType == "event" && m.Event != "" && !slices.ContainsFunc(s.forwards, replies):
		return checkEvent
	}
	return noCheck
}

// reply returns the reply to a message that belongs to a step of the test. An
// error means that WeChat must repeat the message.
func (c *releaseChecker) reply(
	step checkerStep, account string, s *settings, m wechat.Message,
) (messageReply, error) {
	r := messageReply{result: resultOK, note: "release checker"}
	switch step {
	case checkText:
		r.xml = textReply(m, checkerText+"_callback")
	case checkCode:
		r.empty = true
		code := wechat.NewSecret(strings.TrimPrefix(m.Content, checkerCodePrefix))
		if !c.outbox.add(c.codeJob(account, s, m.FromUserName, code)) {
			return r, errOutboxFull
		}
	case checkEvent:
		r.xml = textReply(m, m.Event+"from_callback")
	}
	return r, nil
}

// codeJob returns a job that exchanges the code and sends it back in a message,
// with the token that the exchange gave.
func (c *releaseChecker) codeJob(
	account string, s *settings, openid string, code wechat.Secret,
) job {
	return job{
		do: func(ctx context.Context) error {
			authorized, err := c.exchange(ctx, code)
			if err == nil && authorized.AppID != account {
				err = permanentError{errors.New("code of another account")}
			}
			if err == nil {
				err = s.sendText(ctx, account, openid, code.Reveal()+"_from_api")
			}
			switch {
			case wechat.Code(err) > 0:
				// WeChat has decided, for example that the code was used
				// before. -1 means that WeChat is busy: it is tried again.
				err = permanentError{err}
			case err == nil:
				c.log.Info("release checker answered", "account", account)
			}
			return err
		},
		failed: func(err error) {
			c.log.Error("release checker not answered", "account", account,
				"error", wechat.Sanitize(code.Mask(err.Error()), 2*maxLogLine))
		},
	}
}

package callback

import (
	"slices"

	"wxproxy/wechat"
)

// fanOut says what becomes of a push: which service replies to it, and which
// ones get a copy later. The zero value is a push that no rule matches.
type fanOut struct {
	// check is set if the push belongs to WeChat's test of the platform, which
	// wxproxy answers itself.
	check checkerStep
	// answering is the number of the rule whose service replies, counted from 1
	// as in the configuration; 0 if there is none.
	answering int
	// copies are the names of the services that get a copy, each once.
	copies []string
}

// isAnswered reports whether anything but success is the response to the push.
// Others can be handled twice without any harm: a copy is queued once.
func (f fanOut) isAnswered() bool { return f.check != noCheck || f.answering > 0 }

// messageFanOut decides about a message. The first rule that is not ModeQueue
// answers it, and each rule that is gets a copy.
//
// WeChat's test is answered before all rules. Its texts go to no service: one
// of them is an authorization code. Its events go to rules that name the
// account, because a rule for all accounts was not written for the test.
func (s *settings) messageFanOut(account string, m wechat.Message, canExchange bool) fanOut {
	to := fanOut{check: checkerStepOf(s, account, m, canExchange)}
	if to.check == checkText || to.check == checkCode {
		return to
	}
	for i, f := range s.forwards {
		switch {
		case !f.matches(account, m.MsgType, eventName(m)):
		case to.check == checkEvent && !slices.Contains(f.AppIDs, account):
		case f.Mode == ModeQueue:
			to.addCopy(f.Name)
		case to.answering == 0:
			to.answering = i + 1
		}
	}
	return to
}

// queuesFor reports whether copies of an account's messages are queued for any
// service.
func (s *settings) queuesFor(account string) bool {
	return slices.ContainsFunc(s.forwards, func(f Forward) bool {
		return f.Mode == ModeQueue &&
			(slices.Contains(f.AppIDs, matchAll) || slices.Contains(f.AppIDs, account))
	})
}

// eventFanOut returns the services that get an authorization event: those of
// all rules that match. A service of ModeRaw expects encrypted pushes, and gets
// none.
//
// Tickets are never forwarded, whatever the rules say: a ticket and the app
// secret give full control of the platform.
func (s *settings) eventFanOut(account, infoType string) []string {
	var to fanOut
	for _, f := range s.forwards {
		if infoType != infoTicket && f.Mode != ModeRaw && f.matches(account, infoType) {
			to.addCopy(f.Name)
		}
	}
	return to.copies
}

// addCopy adds a service. Rules of the same name are one service.
func (f *fanOut) addCopy(service string) {
	if !slices.Contains(f.copies, service) {
		f.copies = append(f.copies, service)
	}
}

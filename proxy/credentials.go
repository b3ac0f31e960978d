package proxy

import (
	"bytes"
	"errors"

	"wxproxy/proxy/standin"
)

// shown is what a query shows in the place of tokens.
type shown struct {
	who     *identity // whose stand-in it is; nil: everybody's, or there is none
	foreign bool      // something that is no stand-in: a token of the caller's own, or an end user's
	problem *problem  // a stand-in that is not good
}

// readTokens looks at the tokens of the query, by their values: component stand-ins come as access_token as well. It
// fills c.shown and c.caller.standIn.
func (c *call) readTokens() {
	for q := c.target.query; len(q) > 0; {
		name, value, n := nextParam(q)
		q = q[n:]
		if name&paramTokens == 0 || len(value) == 0 {
			continue
		}
		if hasEscape(value) {
			start := len(c.scratch)
			c.scratch = unescape(c.scratch, value)
			value = c.scratch[start:]
		}
		if !standin.HasPrefix(value) {
			c.shown.foreign = true
			continue
		}
		c.addStandIn(value)
	}
}

// addStandIn takes one stand-in in. SDKs send two where a call is for an account and made with the component's
// token: then the account's says for whom it is.
func (c *call) addStandIn(token []byte) {
	var (
		st  standin.Token
		err error
	)
	st, c.scratch, err = c.s.signer.Verify(token, c.scratch, c.began)
	who, known := c.s.holder(st)
	first := &c.caller.standIn
	switch {
	case c.shown.problem != nil:
	case errors.Is(err, standin.ErrExpired) && known:
		c.shown.problem = errStandInExpired
	case err != nil || !known, first.AppID != nil && c.shown.who != who:
		c.shown.problem = errStandInUnknown
	case first.AppID == nil, first.Kind == standin.Component:
		*first, c.shown.who = st, who
	case st.Kind != standin.Component && !bytes.Equal(first.AppID, st.AppID):
		c.shown.problem = contradiction("one stand-in", "another")
	}
}

// holder gives the caller that a stand-in was made for. known is false where it is gone, or where the
// configuration has changed so that the stand-in names nothing any more.
func (s *settings) holder(st standin.Token) (who *identity, known bool) {
	if st.AppID == nil || (st.Kind == standin.Component) != sameBytes(st.AppID, s.component) {
		return nil, false
	}
	if s.roster.open() {
		return nil, len(st.Caller) == 0
	}
	who = s.roster.byName[text(st.Caller)]
	return who, who != nil
}

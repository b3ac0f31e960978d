package pages

import "net/http"

// Labels of the pages.
const (
	pageAuthorize  = "authorize"
	pageAuthorized = "authorized"
)

// Labels of what a page said.
const (
	resultOK = "ok"
	// A program asked whether the page exists. No call to WeChat was made.
	resultRobot = "robot"
	// The link is wrong, or no code came back.
	resultInvalid = "invalid"
	// The client, its network or all clients have made too many requests.
	resultLimited = "limited"
	// WeChat rejected the code, or it was used with another state.
	resultRejected = "rejected"
	// WeChat or the store cannot be reached, or the page is not set up.
	resultFailed = "failed"
)

var (
	// Pages lists the values of the page label. It must not be changed.
	Pages = []string{pageAuthorize, pageAuthorized}
	// Results lists the values of the result label. It must not be changed.
	Results = []string{
		resultOK, resultRobot, resultInvalid, resultLimited, resultRejected, resultFailed,
	}
)

// result returns the label of what the page says.
func (p page) result() string {
	switch {
	case p.robot:
		return resultRobot
	case p.status < http.StatusBadRequest:
		return resultOK
	case p.status == http.StatusTooManyRequests:
		return resultLimited
	case p.status == http.StatusGone, p.status == http.StatusConflict:
		return resultRejected
	case p.status < http.StatusInternalServerError:
		return resultInvalid
	}
	return resultFailed
}

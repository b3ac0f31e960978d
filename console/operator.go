package console

import (
	"context"
	"time"

	"wxproxy/tokens"
	"wxproxy/wechat"
)

// Accounts are the operations on accounts; [tokens.Broker] implements it. Its
// errors are those of package tokens and contain no secret. Its methods must be
// safe for concurrent use.
type Accounts interface {
	// Account returns one account.
	Account(ctx context.Context, appid string) (tokens.Account, error)

	// List returns at most limit accounts from offset on, sorted by appid, and
	// how many there are, of those that filter selects.
	List(
		ctx context.Context, offset, limit int, filter tokens.AccountFilter,
	) (list []tokens.Account, total int, err error)

	// Refresh fetches a new token, whatever the state of the old one.
	Refresh(ctx context.Context, appid string) (tokens.Account, error)

	// Forget makes an account stay away, whether it is known or not. WeChat
	// does not learn of it.
	Forget(ctx context.Context, appid string) error

	// Sync compares the stored accounts with WeChat's list of authorizers.
	Sync(ctx context.Context, o tokens.SyncOptions) (tokens.SyncResult, error)

	// Import adds a refresh token from elsewhere. It keeps one that is already
	// stored, and returns false then.
	Import(ctx context.Context, appid string, refresh wechat.Secret) (added bool, err error)
}

// Stats are facts about the whole; [tokens.Stats] implements it.
type Stats interface {
	// Component returns the component's appid, "" if none is configured.
	Component() string

	// TicketAge returns the time since the last ticket, false without one.
	TicketAge() (time.Duration, bool)

	// ComponentExpiry returns the time until the component's token expires,
	// negative if it has expired, and false without a token.
	ComponentExpiry() (time.Duration, bool)

	// AccountCounts returns the number of authorizers by state. known is false
	// if the store does not answer.
	AccountCounts() (counts tokens.AccountCounts, known bool)

	// Comparison returns what is known about the comparison with WeChat's list,
	// false if none was complete yet.
	Comparison() (tokens.Comparison, bool)
}

// About is what does not change while wxproxy runs.
type About struct {
	Version   string
	GoVersion string
	Store     string    // kind of store: file, memory, redis
	Started   time.Time // default: when the handler was made
}

// Explanation describes what would happen to a request. It is a dry run: it
// does not contact WeChat.
type Explanation struct {
	// AppID is the account that the request is for, "" if it names none.
	AppID  string `json:"appid"`
	Method string `json:"method"`

	// Path is the request's, without prefix and query, "" if it is invalid.
	Path string `json:"path"`

	// Forwarded is the path that WeChat would receive, "" if it is not
	// forwarded.
	Forwarded string `json:"forwarded_path,omitempty"`

	// Credential is component, authorizer, app, none or refused.
	Credential string `json:"credential"`

	// Parameter is the query parameter for the credential, "" without one.
	Parameter string `json:"parameter,omitempty"`

	// Holder is the account whose token is injected, "" without one.
	Holder string `json:"holder,omitempty"`

	// Rule is the one that decided.
	Rule Rule `json:"rule"`

	// Adds and Removes are names of query parameters: those that are injected
	// besides Parameter, and those of the caller that are not forwarded.
	Adds    []string `json:"adds,omitempty"`
	Removes []string `json:"removes,omitempty"`

	// Masked says that credentials in the response are masked.
	Masked bool `json:"masked,omitempty"`

	// Refusal is the response if the request is not forwarded, else nil.
	Refusal *Refusal `json:"refusal,omitempty"`

	// Caller says whether the caller may make the request, nil without one.
	Caller *Verdict `json:"caller,omitempty"`

	// Account is the state of Holder. This package adds it.
	Account *account `json:"account,omitempty"`

	// Note is a remark for the operator, "" for none.
	Note string `json:"note,omitempty"`
}

// Rule is the row that decided: of the configuration, of the built-in table, or
// the default.
type Rule struct {
	// Path is exact, or a prefix that ends in "*". It is "" if the request was
	// rejected before the rules.
	Path string `json:"path"`

	// Source is route (the configuration), table, default, or "" like Path.
	Source string `json:"source"`

	// Guess says that no source confirms the rule.
	Guess bool `json:"guess,omitempty"`
}

// Refusal is an error response of wxproxy.
type Refusal struct {
	Status int    `json:"status"`
	Error  string `json:"error"`
	Hint   string `json:"hint,omitempty"`
}

// Verdict says whether a caller is allowed to make the request.
type Verdict struct {
	Name    string `json:"name"`
	Allowed bool   `json:"allowed"`
	Reason  string `json:"reason"`
}

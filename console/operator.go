package console

import (
	"context"
	"time"

	"wxproxy/tokens"
	"wxproxy/wechat"
)

// Accounts is what an operator can do with accounts; [tokens.Broker] does it. Errors are those of package
// tokens, and hold no secret.
type Accounts interface {
	Account(ctx context.Context, appid string) (tokens.Account, error)
	// List gives limit accounts from offset on, in order of their appids, and how many there are in all. q, if
	// not empty, is a part of appid or name, in any case.
	List(ctx context.Context, offset, limit int, q string) (list []tokens.Account, total int, err error)
	// Refresh fetches a new token now.
	Refresh(ctx context.Context, appid string) (tokens.Account, error)
	Forget(ctx context.Context, appid string) error
	// Sync compares what is known here with WeChat's list of authorizers.
	Sync(ctx context.Context) (tokens.SyncResult, error)
	// Import takes a refresh token over from elsewhere; one that is at hand already is kept.
	Import(ctx context.Context, appid string, refresh wechat.Secret) (added bool, err error)
}

// Gauges are what can be said of the whole; [tokens.Broker] says it.
type Gauges interface {
	Component() string                                    // appid; "": none is configured
	TicketAge() (time.Duration, bool)                     // false: no ticket has come
	ComponentExpiry() (time.Duration, bool)               // below 0: it is over; false: there is no token
	Accounts() (active, revoked, failing int, known bool) // authorizers
}

// About is what does not change while wxproxy runs.
type About struct {
	Version   string
	GoVersion string
	Store     string    // kind of store: file, memory, redis
	Started   time.Time // zero: when the handler was made
}

// Explanation says what would become of a call, without making it.
type Explanation struct {
	AppID      string   `json:"appid"` // for whom the call is; "": for nobody in particular
	Method     string   `json:"method"`
	Path       string   `json:"path"`                     // the caller's, without prefix and query; "": it cannot be read
	Forwarded  string   `json:"forwarded_path,omitempty"` // as it would go to WeChat; "": it would not
	Credential string   `json:"credential"`               // component, authorizer, app, none, refused
	Parameter  string   `json:"parameter,omitempty"`      // under which name it goes in; "": none does
	Holder     string   `json:"holder,omitempty"`         // the account whose token goes in; "": no token does
	Rule       Rule     `json:"rule"`                     // what decided it
	Adds       []string `json:"adds,omitempty"`           // names of further parameters that are put in
	Removes    []string `json:"removes,omitempty"`        // names of the caller's that are never forwarded
	Masked     bool     `json:"masked,omitempty"`         // credentials in the answer are masked
	Refusal    *Refusal `json:"refusal,omitempty"`        // what is answered instead; nil: the call is forwarded
	Caller     *Verdict `json:"caller,omitempty"`         // nil: no caller was asked about
	Account    *account `json:"account,omitempty"`        // of the holder; filled in by this package
	Note       string   `json:"note,omitempty"`           // a sentence more, where one is needed
}

// Rule is the row that decided: of the configuration, of the table, or the default.
type Rule struct {
	Path   string `json:"path"`            // exact, or a prefix ending in "*"; "": the call was refused before any rule
	Source string `json:"source"`          // route (the configuration), table, default, or "" as above
	Guess  bool   `json:"guess,omitempty"` // no source confirms it
}

// Refusal is the answer of wxproxy's own.
type Refusal struct {
	Status int    `json:"status"`
	Error  string `json:"error"`
	Hint   string `json:"hint,omitempty"`
}

// Verdict says whether a caller might make the call.
type Verdict struct {
	Name    string `json:"name"`
	Allowed bool   `json:"allowed"`
	Reason  string `json:"reason"`
}

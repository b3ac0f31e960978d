package tokens

import "time"

// Account is what an operator may see of an account: no secret.
type Account struct {
	AppID string
	Kind  Kind
	State State  // Active, Revoked or Failing
	Name  string // nickname; "" where it is not known (yet)
	Type  string // "official account", "mini program", "component", "own account"; "" where it is not known

	Token        string // fingerprint, see [wechat.Secret.Fingerprint]; "" where there is none
	RefreshToken string // likewise

	Issued, Expires     time.Time // of the token; zero: there is none
	Authorized, Revoked time.Time // newest authorisation, newest withdrawal; zero: never, or not known

	Failures int       // renewals that failed since the last good one
	Failure  string    // the last of them, in words; "" for none
	RetryAt  time.Time // not tried again before; zero: at once
}

// SyncResult says what a comparison with WeChat's list of authorisers found.
type SyncResult struct {
	Listed    int // on WeChat's list
	Added     int // not known here before
	Recovered int // known, with a refresh token that was no longer the right one
	Revoked   int // known, and no longer on the list
	Unchanged int
	Took      time.Duration
}

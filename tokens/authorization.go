package tokens

// Authorization is what an authorisation code stands for.
type Authorization struct {
	AppID string // of the account
	Name  string // its nickname; "" where it is not known
}

package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"wxproxy/cmd/wxproxy/internal/suggest"
)

// accountsCommand is `wxproxy accounts` with the command behind it.
type accountsCommand struct {
	env  *env
	then command
}

// accountsCommands is what can be done with accounts.
var accountsCommands = []entry{
	{"list", "all accounts, or those whose appid or name has a part", newAccountsList},
	{"show", "all that is known of an account", newAccountsShow},
	{"refresh", "fetch a new token now", newAccountsRefresh},
	{"forget", "forget an account and its refresh token", newAccountsForget},
	{"sync", "compare with WeChat's list of the accounts that authorized", newAccountsSync},
	{"import", "take over refresh tokens from elsewhere", newAccountsImport},
}

func newAccounts(e *env) command { return &accountsCommand{env: e} }

// ParseFlags finds the command behind, and has it read its own flags.
func (c *accountsCommand) ParseFlags(args []string) error {
	if len(args) == 0 {
		io.WriteString(c.env.stderr, accountsPage())
		return &usageError{sentence: "accounts needs a command", command: "accounts"}
	}
	name, args := args[0], args[1:]
	if isHelp(name) && len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, args = args[0], []string{"--help"} // wxproxy help accounts list
	}
	if isHelp(name) {
		fs := newFlags("accounts", "")
		fs.page = accountsPage()
		return parseFlags(c.env, fs, []string{"--help"})
	}
	var names []string
	for _, sub := range accountsCommands {
		if sub.name == name {
			c.then = sub.new(c.env)
			if err := c.then.ParseFlags(args); err != nil {
				return asUsage(err, "accounts "+name)
			}
			return nil
		}
		names = append(names, sub.name)
	}
	kind := "command"
	if strings.HasPrefix(name, "-") {
		kind = "flag"
	}
	sentence := fmt.Sprintf("accounts has no %s %s", kind, quoted(name))
	if near := suggest.Nearest(strings.TrimLeft(name, "-"), names); near != "" {
		sentence += fmt.Sprintf(" (did you mean wxproxy accounts %s?)", near)
	}
	return &usageError{sentence: sentence, command: "accounts"}
}

func (c *accountsCommand) Run(ctx context.Context) error { return c.then.Run(ctx) }

func accountsPage() string {
	var b strings.Builder
	b.WriteString("Usage: wxproxy accounts COMMAND [FLAGS]\n\nSpeaks of accounts with the admin listener of a running wxproxy.\n\n")
	for _, sub := range accountsCommands {
		fmt.Fprintf(&b, "  %-9s %s\n", sub.name, sub.synopsis)
	}
	b.WriteString("\nwxproxy accounts COMMAND --help tells more about one of them.\n")
	return b.String()
}

// accountView is what the admin listener tells of an account; times and numbers are absent where
// there is nothing to tell.
type accountView struct {
	AppID      string    `json:"appid"`
	Kind       string    `json:"kind"`
	State      string    `json:"state"`
	Name       string    `json:"name"`
	Type       string    `json:"type"`
	Token      string    `json:"token_fingerprint"`
	Refresh    string    `json:"refresh_token_fingerprint"`
	Issued     time.Time `json:"issued"`
	Age        *int64    `json:"age"`
	ExpiresIn  *int64    `json:"expires_in"`
	Authorized time.Time `json:"authorized"`
	Revoked    time.Time `json:"revoked"`
	Failures   int       `json:"failures"`
	Failure    string    `json:"failure"`
	RetryAt    time.Time `json:"retry_at"`
}

// what is the type of the account, or at least whose token it has.
func (a accountView) what() string { return printable(or(a.Type, a.Kind)) }

// token says in a line what there is.
func (a accountView) token() string {
	if a.Token == "" {
		return "none at the moment"
	}
	s := a.Token
	if a.Age != nil {
		s += ", issued " + span(time.Duration(*a.Age)*time.Second) + " ago"
	}
	switch {
	case a.ExpiresIn == nil:
	case *a.ExpiresIn > 0:
		s += ", expires " + until(a.ExpiresIn)
	default:
		s += ", " + until(a.ExpiresIn)
	}
	return printable(s)
}

// lines print the account as a page: names in one column, values in the other.
func (a accountView) lines() [][]string {
	rows := [][]string{
		{"appid", printable(a.AppID)}, {"name", printable(or(a.Name, "not known"))}, {"type", a.what()}, {"state", printable(a.State)}, {"token", a.token()},
	}
	if a.Kind == "authorizer" {
		rows = append(rows, []string{"refresh token", printable(or(a.Refresh, "none"))})
	}
	if !a.Authorized.IsZero() {
		rows = append(rows, []string{"authorized", a.Authorized.Format(time.RFC3339) + ", " + ago(a.Authorized)})
	}
	if !a.Revoked.IsZero() {
		rows = append(rows, []string{"withdrawn", a.Revoked.Format(time.RFC3339) + ", " + ago(a.Revoked)})
	}
	if a.Failures > 0 {
		rows = append(rows, []string{"failures", fmt.Sprintf("%d since the last good renewal", a.Failures)}, []string{"the last one", printable(a.Failure)})
		if left := time.Until(a.RetryAt); left > 0 {
			rows = append(rows, []string{"next try", "in " + span(left)})
		}
	}
	return rows
}

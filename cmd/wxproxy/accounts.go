package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"wxproxy/cmd/wxproxy/internal/table"
	"wxproxy/tokens"
)

// newAccounts returns `wxproxy accounts` with its subcommands.
func newAccounts(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "accounts",
		Short: "List and manage the accounts of a running wxproxy",
		Long: `List and manage the accounts of a running wxproxy through its admin listener.
If [admin] has a key, set it in ` + adminKeyVariable + `.`,
	}
	cmd.AddCommand(
		newAccountsList(e),
		newAccountsShow(e),
		newAccountsRefresh(e),
		newAccountsForget(e),
		newAccountsSync(e),
		newAccountsImport(e),
	)
	asGroup(cmd)
	return cmd
}

// newAccountsList returns `wxproxy accounts list`.
func newAccountsList(e *env) *cobra.Command {
	var admin adminClient
	var query, state string
	list := &listing{env: e, admin: &admin, path: "/api/accounts", member: "accounts"}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List accounts, or those with a state or a text in their name",
		Long: `List the accounts in the order of their appids. The column EXPIRES says when
the token expires. wxproxy then fetches a new one with the next request.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if state != "" && !slices.Contains(tokens.States(), tokens.State(state)) {
				return usagef(cmd, "--state is not active, failing, revoked or forgotten")
			}
			list.filter(map[string]string{"q": query, "state": state})
			return list.prepareAndRun(cmd)
		},
	}
	list.header = []string{"APPID", "NAME", "TYPE", "STATE", "EXPIRES", "AUTHORIZED", ""}
	list.row = accountRow
	cmd.Flags().StringVar(&query, "q", "", "list only accounts whose appid or name contains `TEXT`")
	cmd.Flags().StringVar(&state, "state", "",
		"list only accounts in `STATE`: active, failing, revoked or forgotten")
	list.addFlags(cmd, 0)
	return cmd
}

// maxNameColumns is the width of the longest name that is printed whole. WeChat
// allows 30 Chinese characters, which take 60 columns, but most names have
// fewer than 12.
const maxNameColumns = 24

// accountRow returns the line of an account in a table.
func accountRow(raw json.RawMessage) ([]string, error) {
	var a accountView
	if err := json.Unmarshal(raw, &a); err != nil {
		return nil, err
	}
	note := ""
	if a.Failures > 0 {
		note = table.Printable(a.Failure)
	}
	expires := table.Until(a.ExpiresIn)
	if a.Token == "" {
		expires = "-"
	}
	return []string{
		table.Printable(a.AppID),
		orElse(table.Truncate(table.Printable(a.Name), maxNameColumns), "-"),
		a.typeOrKind(),
		table.Printable(a.State),
		expires,
		table.Ago(a.Authorized),
		note,
	}, nil
}

// accountView is an account in a response of the admin listener. Times and
// numbers that do not apply are absent.
type accountView struct {
	AppID string `json:"appid"`
	// Kind is "component", "authorizer" or "app".
	Kind string `json:"kind"`
	// State is one of [tokens.States].
	State string `json:"state"`
	// Name and Type are what WeChat says about the account. They are "" until
	// wxproxy has asked.
	Name string `json:"name"`
	Type string `json:"type"`

	// Token and Refresh are fingerprints, or "" if there is no such token.
	Token   string `json:"token_fingerprint"`
	Refresh string `json:"refresh_token_fingerprint"`
	// Issued, Age and ExpiresIn are about the token. Age and ExpiresIn are in
	// seconds, counted by the clock of wxproxy.
	Issued    time.Time `json:"issued"`
	Age       *int64    `json:"age"`
	ExpiresIn *int64    `json:"expires_in"`

	Authorized time.Time `json:"authorized"`
	Revoked    time.Time `json:"revoked"`
	Forgotten  time.Time `json:"forgotten"`

	// Failures is how many renewals have failed since the last success, and
	// Failure why the last one did.
	Failures int       `json:"failures"`
	Failure  string    `json:"failure"`
	RetryAt  time.Time `json:"retry_at"`
}

// typeOrKind returns the type of the account, such as "mini program", or its
// kind, such as "authorizer", if the type is not known yet.
func (a accountView) typeOrKind() string { return table.Printable(orElse(a.Type, a.Kind)) }

// tokenLine describes the token of the account.
func (a accountView) tokenLine() string {
	if a.Token == "" {
		return "none at the moment"
	}
	s := a.Token
	if a.Age != nil {
		s += ", issued " + table.Span(time.Duration(*a.Age)*time.Second) + " ago"
	}
	switch {
	case a.ExpiresIn == nil:
	case *a.ExpiresIn > 0:
		s += ", expires " + table.Until(a.ExpiresIn)
	default:
		s += ", " + table.Until(a.ExpiresIn)
	}
	return table.Printable(s)
}

// rows returns the account as a table with a name and a value in each row.
func (a accountView) rows() [][]string {
	rows := [][]string{
		{"appid", table.Printable(a.AppID)},
		{"name", table.Printable(orElse(a.Name, "not known"))},
		{"type", a.typeOrKind()},
		{"state", table.Printable(a.State)},
		{"token", a.tokenLine()},
	}
	if a.Kind == "authorizer" {
		rows = append(rows, []string{"refresh token", table.Printable(orElse(a.Refresh, "none"))})
	}
	if !a.Authorized.IsZero() {
		rows = append(rows, []string{"authorized", timeLine(a.Authorized)})
	}
	if !a.Revoked.IsZero() {
		rows = append(rows, []string{"withdrawn", timeLine(a.Revoked)})
	}
	if !a.Forgotten.IsZero() {
		rows = append(rows, []string{"forgotten", timeLine(a.Forgotten)})
	}
	if a.Failures > 0 {
		rows = append(rows,
			[]string{"failures", fmt.Sprintf("%d since the last good renewal", a.Failures)},
			[]string{"the last one", table.Printable(a.Failure)})
		if left := time.Until(a.RetryAt); left > 0 {
			rows = append(rows, []string{"next try", "in " + table.Span(left)})
		}
	}
	return rows
}

// timeLine returns t and how long ago it was.
func timeLine(t time.Time) string { return t.Format(time.RFC3339) + ", " + table.Ago(t) }

// orElse returns s, or fallback if s is empty.
func orElse(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"wxproxy/cmd/wxproxy/internal/table"
	"wxproxy/wechat"
)

// accountCommand is one run of a command for a single account.
type accountCommand struct {
	env   *env
	admin adminClient
	appid string
}

// newAccountCommand returns the command `wxproxy accounts name`, which takes an
// appid and then calls run.
func newAccountCommand(
	e *env, name, short, long string, run func(context.Context, *accountCommand) error,
) *cobra.Command {
	c := &accountCommand{env: e}
	cmd := &cobra.Command{
		Use:   name + " APPID",
		Short: short,
		Long:  long,
		Args:  exactArgs("APPID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !wechat.IsAppID(args[0]) {
				return usagef(cmd, "APPID is not an appid: %s", appIDForm)
			}
			c.appid = args[0]
			if err := c.admin.prepare(cmd, e); err != nil {
				return err
			}
			return run(cmd.Context(), c)
		},
	}
	c.admin.addFlags(cmd)
	return cmd
}

// appIDForm describes what an appid looks like.
const appIDForm = "an appid is wx and 16 lower-case letters or digits"

// print requests an account with method at path and prints it.
func (c *accountCommand) print(ctx context.Context, method, path string) error {
	var a accountView
	raw, err := c.admin.do(ctx, method, "/api/accounts/"+c.appid+path, nil, nil, &a)
	if err != nil {
		return err
	}
	// Another server may respond with JSON in which all fields are missing.
	if a.AppID != c.appid {
		return c.admin.without("this account")
	}
	if c.admin.json {
		return printJSON(c.env, raw)
	}
	return (&table.Table{Out: c.env.stdout}).Print(a.rows())
}

// newAccountsShow returns `wxproxy accounts show`.
func newAccountsShow(e *env) *cobra.Command {
	return newAccountCommand(e, "show", "Show an account",
		`Show everything that is known about an account. Tokens are shown as
fingerprints, which are the first 8 hexadecimal digits of their SHA-256.`,
		func(ctx context.Context, c *accountCommand) error {
			return c.print(ctx, http.MethodGet, "")
		})
}

// newAccountsRefresh returns `wxproxy accounts refresh`.
func newAccountsRefresh(e *env) *cobra.Command {
	return newAccountCommand(e, "refresh", "Fetch a new token for an account now",
		`Fetch a new token for an account now. wxproxy does this automatically before a
token expires and when WeChat rejects one. An account that has revoked its
authorization, or was forgotten, comes back if WeChat says that it authorizes the
component.`,
		func(ctx context.Context, c *accountCommand) error {
			return c.print(ctx, http.MethodPost, "/refresh")
		})
}

// newAccountsForget returns `wxproxy accounts forget`.
func newAccountsForget(e *env) *cobra.Command {
	var yes bool
	cmd := newAccountCommand(e, "forget", "Make an account stay away",
		`Make an account stay away, whether it is known or not: delete its tokens, and
answer its requests with 410. Nothing changes at WeChat. The account returns when
it authorizes again, or with "wxproxy accounts refresh" or "wxproxy accounts sync
--restore".`,
		func(ctx context.Context, c *accountCommand) error { return c.forget(ctx, yes) })
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask for confirmation")
	// Checked before anything else: the question could not be answered.
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !yes && !e.terminal {
			return usagef(cmd, "there is no terminal to ask for confirmation: use --yes")
		}
		return run(cmd, args)
	}
	return cmd
}

// forget removes the account, after asking for confirmation unless confirmed.
func (c *accountCommand) forget(ctx context.Context, confirmed bool) error {
	if !confirmed {
		// The question names the account as the operator knows it.
		var a accountView
		_, err := c.admin.do(ctx, http.MethodGet, "/api/accounts/"+c.appid, nil, nil, &a)
		var e *adminError
		if errors.As(err, &e) && e.status == http.StatusNotFound {
			a.State = "not known here"
		} else if err != nil {
			return err
		}
		name := ""
		if a.Name != "" {
			name = " (" + table.Printable(a.Name) + ")"
		}
		fmt.Fprintf(c.env.stderr, "Forget %s%s, %s, with its refresh token? [y/N] ",
			c.appid, name, table.Printable(a.State))
		if !c.env.confirm(ctx) {
			return errors.New("canceled: no account was forgotten")
		}
	}
	raw, err := c.admin.do(ctx, http.MethodDelete, "/api/accounts/"+c.appid, nil, nil, nil)
	if err != nil {
		return err
	}
	if c.admin.json {
		return printJSON(c.env, raw)
	}
	_, err = fmt.Fprintln(c.env.stdout, c.appid+" is forgotten")
	return err
}

// newAccountsSync returns `wxproxy accounts sync`.
func newAccountsSync(e *env) *cobra.Command {
	var admin adminClient
	query := url.Values{}
	var restore, confirm bool
	cmd := &cobra.Command{
		Use:   "sync",
		Short: "Compare the accounts with WeChat's list",
		Long: `Request the list of all accounts that have authorized the component from
WeChat, and add the ones that are missing here. Run it after an outage in which
WeChat's pushes were lost. Accounts that were forgotten stay away without
--restore.

Accounts that are known here, and that WeChat does not know any more, are marked
as revoked. If they are more than 20, and more than 5 % of all, none is without
--confirm: perhaps WeChat's list is incomplete, or that of another platform.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := admin.prepare(cmd, e); err != nil {
				return err
			}
			if restore {
				query.Set("restore", "true")
			}
			if confirm {
				query.Set("confirm", "true")
			}
			return syncAccounts(cmd.Context(), e, &admin, query)
		},
	}
	cmd.Flags().BoolVar(&restore, "restore", false, "bring back listed accounts that were forgotten")
	cmd.Flags().BoolVar(&confirm, "confirm", false, "revoke accounts, however many are gone")
	admin.addFlags(cmd)
	return cmd
}

// syncAccounts starts a comparison with WeChat's list, waits for it without a
// time limit, and prints its result. query has the options of the API.
func syncAccounts(ctx context.Context, e *env, admin *adminClient, query url.Values) error {
	var result struct {
		Listed, Added, Recovered, Revoked, Unchanged, Held int
		Took                                               float64 // seconds
	}
	raw, err := admin.do(ctx, http.MethodPost, "/api/sync", query, nil, &result)
	if err != nil {
		return err
	}
	if admin.json {
		return printJSON(e, raw)
	}
	took := time.Duration(result.Took * float64(time.Second)).Round(time.Millisecond)
	rows := [][]string{
		{"on WeChat's list", fmt.Sprint(result.Listed), ""},
		{"added", fmt.Sprint(result.Added), "not known here before"},
		{"recovered", fmt.Sprint(result.Recovered), "the stored refresh token was outdated"},
		{"withdrawn", fmt.Sprint(result.Revoked), "known here, and no longer on the list"},
		{"unchanged", fmt.Sprint(result.Unchanged), ""},
	}
	if result.Held > 0 {
		rows = append(rows, []string{"held", fmt.Sprint(result.Held), "unknown to WeChat, " +
			"but too many to mark as withdrawn without --confirm"})
	}
	rows = append(rows, []string{"took", took.String(), ""})
	return (&table.Table{Out: e.stdout}).Print(rows)
}

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"wxproxy/wechat"
)

// oneAccount is what the commands for one account share.
type oneAccount struct {
	env   *env
	admin adminClient
	appid string
}

// parse reads flags and the appid.
func (c *oneAccount) parse(fs *flags, args []string) error {
	fs.words = []string{"APPID"}
	c.admin.flags(fs)
	words, err := parseWords(c.env, fs, args)
	if err != nil {
		return err
	}
	if c.appid = words[0]; !wechat.IsAppID(c.appid) {
		return fmt.Errorf("%s is no appid: an appid %s", quoted(c.appid), "is wx and 16 lower-case letters or digits")
	}
	return c.admin.ready(c.env)
}

// ask makes a request whose answer is an account, and prints it.
func (c *oneAccount) ask(ctx context.Context, method, path string) error {
	var a accountView
	raw, err := c.admin.do(ctx, method, "/api/accounts/"+c.appid+path, nil, nil, &a)
	if err != nil {
		return err
	}
	if a.AppID != c.appid {
		return fmt.Errorf("%s answered with another account: is this wxproxy's admin listener? --admin takes another address", c.admin.base)
	}
	if c.admin.json {
		_, err = fmt.Fprintln(c.env.stdout, plainJSON(raw))
		return err
	}
	return (&table{out: c.env.stdout}).print(a.lines())
}

// accountsShowCommand is `wxproxy accounts show`.
type accountsShowCommand struct{ oneAccount }

func newAccountsShow(e *env) command { return &accountsShowCommand{oneAccount{env: e}} }

func (c *accountsShowCommand) ParseFlags(args []string) error {
	return c.parse(newFlags("accounts show", "Shows what is known of an account. Tokens are named by a fingerprint, the first 8 hex digits of their SHA-256."), args)
}

func (c *accountsShowCommand) Run(ctx context.Context) error {
	return c.ask(ctx, http.MethodGet, "")
}

// accountsRefreshCommand is `wxproxy accounts refresh`.
type accountsRefreshCommand struct{ oneAccount }

func newAccountsRefresh(e *env) command { return &accountsRefreshCommand{oneAccount{env: e}} }

func (c *accountsRefreshCommand) ParseFlags(args []string) error {
	return c.parse(newFlags("accounts refresh", "Fetches a new token for an account now. wxproxy does that by itself when a token is due or refused."), args)
}

func (c *accountsRefreshCommand) Run(ctx context.Context) error {
	return c.ask(ctx, http.MethodPost, "/refresh")
}

// accountsForgetCommand is `wxproxy accounts forget`.
type accountsForgetCommand struct {
	oneAccount
	yes bool
}

func newAccountsForget(e *env) command { return &accountsForgetCommand{oneAccount: oneAccount{env: e}} }

func (c *accountsForgetCommand) ParseFlags(args []string) error {
	fs := newFlags("accounts forget", "Forgets an account with its refresh token. At WeChat nothing changes: sync finds the account again while its authorization stands.")
	fs.BoolVar(&c.yes, "yes", false, "do not ask whether it is meant")
	if err := c.parse(fs, args); err != nil {
		return err
	}
	if !c.yes && !c.env.terminal {
		return errors.New("nobody can be asked whether this is meant: give --yes")
	}
	return nil
}

func (c *accountsForgetCommand) Run(ctx context.Context) error {
	if !c.yes {
		var a accountView
		if _, err := c.admin.do(ctx, http.MethodGet, "/api/accounts/"+c.appid, nil, nil, &a); err != nil {
			return err
		}
		name := ""
		if a.Name != "" {
			name = " (" + printable(a.Name) + ")"
		}
		fmt.Fprintf(c.env.stderr, "Forget %s%s, %s, with its refresh token? [y/N] ", c.appid, name, printable(a.State))
		if !c.agreed(ctx) {
			return errors.New("nothing was forgotten")
		}
	}
	raw, err := c.admin.do(ctx, http.MethodDelete, "/api/accounts/"+c.appid, nil, nil, nil)
	if err != nil {
		return err
	}
	text := c.appid + " is forgotten"
	if c.admin.json {
		text = plainJSON(raw)
	}
	_, err = fmt.Fprintln(c.env.stdout, text)
	return err
}

// agreed waits for a line, or for ctx: Ctrl-C does not end the reading of a terminal.
func (c *accountsForgetCommand) agreed(ctx context.Context) bool {
	line := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(c.env.stdin).ReadString('\n')
		line <- text
	}()
	select {
	case text := <-line:
		text = strings.ToLower(strings.TrimSpace(text))
		return text == "y" || text == "yes"
	case <-ctx.Done():
		fmt.Fprintln(c.env.stderr)
		return false
	}
}

// accountsSyncCommand is `wxproxy accounts sync`.
type accountsSyncCommand struct {
	env   *env
	admin adminClient
}

func newAccountsSync(e *env) command { return &accountsSyncCommand{env: e} }

func (c *accountsSyncCommand) ParseFlags(args []string) error {
	fs := newFlags("accounts sync", "Asks WeChat for all accounts that have authorized the component, and takes over what is not known here. Run it after an outage.")
	c.admin.flags(fs)
	if err := parseFlags(c.env, fs, args); err != nil {
		return err
	}
	return c.admin.ready(c.env)
}

func (c *accountsSyncCommand) Run(ctx context.Context) error {
	var got struct {
		Listed, Added, Recovered, Revoked, Unchanged int
		Took                                         float64
	}
	raw, err := c.admin.do(ctx, http.MethodPost, "/api/sync", nil, nil, &got)
	if err != nil {
		return err
	}
	if c.admin.json {
		_, err = fmt.Fprintln(c.env.stdout, plainJSON(raw))
		return err
	}
	return (&table{out: c.env.stdout}).print([][]string{
		{"on WeChat's list", fmt.Sprint(got.Listed), ""},
		{"added", fmt.Sprint(got.Added), "not known here before"},
		{"recovered", fmt.Sprint(got.Recovered), "their refresh token was not the right one any more"},
		{"withdrawn", fmt.Sprint(got.Revoked), "known here, and no longer on the list"},
		{"unchanged", fmt.Sprint(got.Unchanged), ""},
		{"took", time.Duration(got.Took * float64(time.Second)).Round(time.Millisecond).String(), ""},
	})
}

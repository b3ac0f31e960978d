package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"wxproxy/cmd/wxproxy/internal/table"
	"wxproxy/wechat"
)

// explainQuery is the request that `wxproxy explain` asks about.
type explainQuery struct {
	appid  string // "": the request names no account
	method string
	path   string
	caller string // "": do not check a caller
}

// newExplain returns `wxproxy explain`.
func newExplain(e *env) *cobra.Command {
	var (
		admin adminClient
		q     explainQuery
	)
	cmd := &cobra.Command{
		Use:   "explain APPID METHOD PATH",
		Short: "Show what wxproxy would do with a request",
		Long: `Show what a running wxproxy would do with a request, without sending it: which
credential it would add, under which name, how old that credential is, and
which rule decided.

APPID is "-" for a request that names no account. PATH can have a query and can
be a whole URL.`,
		Args: exactArgs("APPID", "METHOD", "PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			q.appid, q.method, q.path = args[0], strings.ToUpper(args[1]), args[2]
			if q.appid == "-" {
				q.appid = ""
			} else if !wechat.IsAppID(q.appid) {
				return usagef(cmd, `APPID is not an appid: %s, or "-" for none`, appIDForm)
			}
			if !strings.HasPrefix(q.path, "/") &&
				!strings.HasPrefix(q.path, "http://") && !strings.HasPrefix(q.path, "https://") {
				return usagef(cmd, "PATH does not start with a slash")
			}
			if err := admin.prepare(cmd, e); err != nil {
				return err
			}
			return explain(cmd.Context(), e, &admin, q)
		},
	}
	cmd.Flags().StringVar(&q.caller, "caller", "", "also show whether the caller `NAME` is allowed to send it")
	admin.addFlags(cmd)
	return cmd
}

// explanation is the response of the admin listener.
type explanation struct {
	// AppID is the account, or "" if the request names none.
	AppID  string `json:"appid"`
	Method string `json:"method"`
	Path   string `json:"path"`

	// Forwarded is the path that WeChat would receive. It differs from Path for
	// logins of an authorizer.
	Forwarded string `json:"forwarded_path"`

	// Credential is "component", "authorizer", "app", "none" or "refused".
	Credential string `json:"credential"`
	// Parameter is the query parameter of the credential.
	Parameter string `json:"parameter"`
	// Holder is the appid that the credential belongs to.
	Holder string `json:"holder"`

	// Adds and Removes are the other parameters that change.
	Adds    []string `json:"adds"`
	Removes []string `json:"removes"`
	// Masked is set if credentials in the response are masked.
	Masked bool   `json:"masked"`
	Note   string `json:"note"`

	// Rule is what decided. A guess is a row of the table that no source
	// confirms.
	Rule struct {
		Path, Source string
		Guess        bool
	} `json:"rule"`

	// Refusal is the error response of wxproxy, or nil if the request would be
	// forwarded.
	Refusal *struct {
		Status      int
		Error, Hint string
	} `json:"refusal"`

	// Caller says whether the caller of the question is allowed to send the
	// request. It is nil if the question named none.
	Caller *struct {
		Name    string
		Allowed bool
		Reason  string
	} `json:"caller"`

	// Account is the account whose credential is used, if wxproxy knows it.
	Account *accountView `json:"account"`
}

// explain asks the admin listener about q and prints the explanation.
func explain(ctx context.Context, e *env, admin *adminClient, q explainQuery) error {
	// An empty parameter would be a wrong appid or the caller "", so empty ones
	// are left out.
	query := url.Values{"method": {q.method}, "path": {q.path}}
	for name, value := range map[string]string{"appid": q.appid, "caller": q.caller} {
		if value != "" {
			query.Set(name, value)
		}
	}
	var x explanation
	raw, err := admin.do(ctx, http.MethodGet, "/api/explain", query, nil, &x)
	if err != nil {
		return err
	}
	if admin.json {
		return printJSON(e, raw)
	}
	if x.Credential == "" { // never empty in a response of this version
		return errors.New("the response explains nothing: the running wxproxy may have another version")
	}
	return (&table.Table{Out: e.stdout}).Print(x.rows())
}

// rows returns the explanation as a table with a name and a value in each row.
func (x explanation) rows() (rows [][]string) {
	add := func(name, format string, args ...any) {
		rows = append(rows, []string{name, table.Printable(fmt.Sprintf(format, args...))})
	}
	add("request", "%s %s, for %s", x.Method, orElse(x.Path, "(a path that cannot be parsed)"),
		orElse(x.AppID, "no account in particular"))
	if x.Refusal != nil {
		add("response", "%d from wxproxy, nothing is sent to WeChat", x.Refusal.Status)
		add("", "%s", x.Refusal.Error)
		if x.Refusal.Hint != "" {
			add("", "%s", x.Refusal.Hint)
		}
	}
	add("credential", "%s", x.credentialLine())
	if x.Parameter != "" {
		add("parameter", "%s", x.Parameter)
	}
	if len(x.Adds) > 0 {
		add("also added", "%s", strings.Join(x.Adds, ", "))
	}
	if len(x.Removes) > 0 {
		add("removed", "%s, if the caller sends them", strings.Join(x.Removes, ", "))
	}
	if x.Forwarded != "" && x.Forwarded != x.Path {
		add("forwarded", "to %s, the twin of this login that takes the component's token", x.Forwarded)
	}
	add("rule", "%s", x.ruleLine())
	if x.Account != nil {
		add("account", "%s (%s), %s", x.Account.AppID,
			orElse(x.Account.Name, x.Account.typeOrKind()), x.Account.State)
		add("token", "%s", x.Account.tokenLine())
		if x.Account.Failures > 0 {
			add("last failure", "%s", x.Account.Failure)
		}
	}
	if x.Masked {
		add("response", "credentials in it are masked")
	}
	if x.Caller != nil {
		verdict := "is not allowed to send this request"
		if x.Caller.Allowed {
			verdict = "is allowed to send this request"
		}
		add("caller", "%s %s: %s", x.Caller.Name, verdict, x.Caller.Reason)
	}
	if x.Note != "" {
		add("note", "%s", x.Note)
	}
	return rows
}

// credentialLine describes the credential that wxproxy adds.
func (x explanation) credentialLine() string {
	switch x.Credential {
	case "refused":
		return "none: the request is not forwarded"
	case "none":
		return "none"
	case "component":
		return "the component's token, of " + x.Holder
	case "app":
		if x.Holder == "" {
			return "the app secret of the own account " + x.AppID
		}
		return "the token of the own account " + x.Holder
	case "authorizer":
		return "the token of the authorizer " + x.Holder
	}
	return x.Credential
}

// ruleLine names the rule that decided, and where it is written.
func (x explanation) ruleLine() string {
	guess := ""
	if x.Rule.Guess {
		guess = ", a guess that no source confirms"
	}
	switch x.Rule.Source {
	case "route":
		return "[[route]] " + x.Rule.Path + " of the configuration"
	case "table":
		return x.Rule.Path + " in the table of WeChat's paths" + guess
	case "default":
		return "the default: no row names this path, so it takes the account's token"
	}
	return "none was reached"
}

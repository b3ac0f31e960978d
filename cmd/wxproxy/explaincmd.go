package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"wxproxy/wechat"
)

// explainCommand is `wxproxy explain`.
type explainCommand struct {
	env                         *env
	admin                       adminClient
	appid, method, path, caller string
}

func newExplain(e *env) command { return &explainCommand{env: e} }

func (c *explainCommand) ParseFlags(args []string) error {
	fs := newFlags("explain", "Says what a running wxproxy would do with a call, without making it: which credential goes in, under which name, from where, how old it is, and which rule\n"+
		"decided. APPID is - where the call names no account; PATH may have a query and may be a whole URL.")
	fs.words = []string{"APPID", "METHOD", "PATH"}
	fs.StringVar(&c.caller, "caller", "", "say also whether the caller `NAME` may make the call")
	c.admin.flags(fs)
	words, err := parseWords(c.env, fs, args)
	if err != nil {
		return err
	}
	c.appid, c.method, c.path = words[0], strings.ToUpper(words[1]), words[2]
	if c.appid == "-" {
		c.appid = ""
	} else if !wechat.IsAppID(c.appid) {
		return notAppID(c.appid)
	}
	if !strings.HasPrefix(c.path, "/") && !strings.HasPrefix(c.path, "http://") && !strings.HasPrefix(c.path, "https://") {
		return fmt.Errorf("%s is no path: it begins with a slash", quoted(c.path))
	}
	return c.admin.ready(c.env)
}

func notAppID(s string) error {
	return fmt.Errorf("%s is no appid: an appid is wx and 16 lower-case letters or digits, or - for none", quoted(s))
}

// explanation is what the admin listener tells.
type explanation struct {
	AppID      string   `json:"appid"`
	Method     string   `json:"method"`
	Path       string   `json:"path"`
	Forwarded  string   `json:"forwarded_path"`
	Credential string   `json:"credential"`
	Parameter  string   `json:"parameter"`
	Holder     string   `json:"holder"`
	Adds       []string `json:"adds"`
	Removes    []string `json:"removes"`
	Masked     bool     `json:"masked"`
	Note       string   `json:"note"`
	Rule       struct {
		Path, Source string
		Guess        bool
	} `json:"rule"`
	Refusal *struct {
		Status      int
		Error, Hint string
	} `json:"refusal"`
	Caller *struct {
		Name    string
		Allowed bool
		Reason  string
	} `json:"caller"`
	Account *accountView `json:"account"`
}

func (c *explainCommand) Run(ctx context.Context) error {
	query := url.Values{"method": {c.method}, "path": {c.path}}
	for name, value := range map[string]string{"appid": c.appid, "caller": c.caller} {
		if value != "" {
			query.Set(name, value)
		}
	}
	var e explanation
	raw, err := c.admin.do(ctx, http.MethodGet, "/api/explain", query, nil, &e)
	if err != nil {
		return err
	}
	if c.admin.json {
		_, err = fmt.Fprintln(c.env.stdout, plainJSON(raw))
		return err
	}
	if e.Credential == "" {
		return errors.New("the admin listener explained nothing: is it wxproxy's, and of the same version?")
	}
	return (&table{out: c.env.stdout}).print(e.lines())
}

func (e explanation) lines() (rows [][]string) {
	add := func(name, format string, args ...any) {
		rows = append(rows, []string{name, printable(fmt.Sprintf(format, args...))})
	}
	add("call", "%s %s, for %s", e.Method, or(e.Path, "(a path that cannot be read)"), or(e.AppID, "no account in particular"))
	if e.Refusal != nil {
		add("answer", "%d by wxproxy itself, WeChat is not called", e.Refusal.Status)
		add("", "%s", e.Refusal.Error)
		if e.Refusal.Hint != "" {
			add("", "%s", e.Refusal.Hint)
		}
	}
	add("credential", "%s", e.credential())
	if e.Parameter != "" {
		add("parameter", "%s", e.Parameter)
	}
	if len(e.Adds) > 0 {
		add("put in too", "%s", strings.Join(e.Adds, ", "))
	}
	if len(e.Removes) > 0 {
		add("taken out", "%s, if the caller sends them", strings.Join(e.Removes, ", "))
	}
	if e.Forwarded != "" && e.Forwarded != e.Path {
		add("forwarded", "to %s, the twin of this login that takes the component's token", e.Forwarded)
	}
	add("rule", "%s", e.rule())
	if e.Account != nil {
		add("account", "%s (%s), %s", e.Account.AppID, or(e.Account.Name, e.Account.what()), e.Account.State)
		add("token", "%s", e.Account.token())
		if e.Account.Failures > 0 {
			add("last failure", "%s", e.Account.Failure)
		}
	}
	if e.Masked {
		add("answer", "credentials in it are masked")
	}
	if e.Caller != nil {
		verdict := "may not make this call"
		if e.Caller.Allowed {
			verdict = "may make this call"
		}
		add("caller", "%s %s: %s", e.Caller.Name, verdict, e.Caller.Reason)
	}
	if e.Note != "" {
		add("note", "%s", e.Note)
	}
	return rows
}

// credential says in words what goes in.
func (e explanation) credential() string {
	switch e.Credential {
	case "refused":
		return "none: the call is not forwarded"
	case "none":
		return "none"
	case "component":
		return "the component's token, of " + e.Holder
	case "app":
		if e.Holder == "" {
			return "the app secret of the own account " + e.AppID
		}
		return "the token of the own account " + e.Holder
	case "authorizer":
		return "the token of the authorizer " + e.Holder
	}
	return e.Credential
}

// rule says where the row stands that decided.
func (e explanation) rule() string {
	guess := ""
	if e.Rule.Guess {
		guess = ", a guess that no source confirms"
	}
	switch e.Rule.Source {
	case "route":
		return "[[route]] " + e.Rule.Path + " of the configuration"
	case "table":
		return e.Rule.Path + " in the table of WeChat's paths" + guess
	case "default":
		return "the default: no row names this path, so it takes the account's token"
	}
	return "none was reached"
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"wxproxy/cmd/wxproxy/internal/table"
	"wxproxy/wechat"
)

// newEvents returns `wxproxy events` with its subcommands.
func newEvents(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "events",
		Short: "List, retry and drop the events that wait for services",
		Long: `List, retry and drop the events in the queue of a running wxproxy through its
admin listener. If [admin] has a key, set it in ` + adminKeyVariable + `.

The queue keeps each event for each service until the service has accepted it.
An event that was tried for as long as [[forward]] keep says is dead: it is kept,
and tried again only if you retry it.`,
	}
	cmd.AddCommand(newEventsList(e), newEventsShow(e), newEventsRetry(e), newEventsDrop(e))
	asGroup(cmd)
	return cmd
}

// eventView is an entry of the queue in a response of the admin listener: one
// event for one service.
type eventView struct {
	ID       string     `json:"id"`
	Service  string     `json:"service"`
	AppID    string     `json:"appid"`
	State    string     `json:"state"`
	Attempts int        `json:"attempts"`
	Created  time.Time  `json:"created"`
	Next     *time.Time `json:"next"`
	Error    string     `json:"error"`
}

// next returns when the event is tried next.
func (v eventView) next() string {
	if v.Next == nil {
		return "-"
	}
	if left := time.Until(*v.Next); left >= time.Second {
		return "in " + table.Span(left)
	}
	return "now"
}

// cells returns the cells of a table about one service.
func (v eventView) cells() []string {
	return []string{
		table.Printable(v.State), fmt.Sprint(v.Attempts), table.Ago(v.Created), v.next(),
		table.Printable(v.Error),
	}
}

// eventState checks the value of --state.
func eventState(cmd *cobra.Command, state string) error {
	if state != "" && state != "waiting" && state != "dead" {
		return usagef(cmd, "--state is not waiting or dead")
	}
	return nil
}

// eventSelection is what selects events by their service and account.
type eventSelection struct{ service, appid string }

// serviceName matches the names of services.
var serviceName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// addFlags adds --service and --appid to cmd.
func (s *eventSelection) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.service, "service", "",
		"only the service `NAME` of a [[forward]] block")
	cmd.Flags().StringVar(&s.appid, "appid", "", "only events of the account `APPID`")
}

// check checks the values of the flags.
func (s *eventSelection) check(cmd *cobra.Command) error {
	switch {
	case s.service != "" && !serviceName.MatchString(s.service):
		return usagef(cmd, "--service is not the name of a service")
	case s.appid != "" && !wechat.IsAppID(s.appid):
		return usagef(cmd, "--appid is not an appid: %s", appIDForm)
	}
	return nil
}

// newEventsList returns `wxproxy events list`.
func newEventsList(e *env) *cobra.Command {
	var admin adminClient
	var state string
	var selected eventSelection
	list := &listing{env: e, admin: &admin, path: "/api/events", member: "events"}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the events that wait for services, and dead ones",
		Long: `List the events in the queue, a line for each event and service: waiting ones
first, and the oldest first. The column NEXT says when an event is tried next. It
is "-" for dead events, and for those that come after others of their account.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(eventState(cmd, state), selected.check(cmd)); err != nil {
				return err
			}
			list.filter(map[string]string{
				"state": state, "service": selected.service, "appid": selected.appid,
			})
			return list.prepareAndRun(cmd)
		},
	}
	list.header = []string{"ID", "SERVICE", "APPID", "STATE", "TRIES", "PUSHED", "NEXT", ""}
	list.row = func(raw json.RawMessage) ([]string, error) {
		var v eventView
		if err := json.Unmarshal(raw, &v); err != nil {
			return nil, err
		}
		id := []string{table.Printable(v.ID), table.Printable(v.Service), table.Printable(v.AppID)}
		return append(id, v.cells()...), nil
	}
	cmd.Flags().StringVar(&state, "state", "", "list only events in `STATE`: waiting or dead")
	selected.addFlags(cmd)
	// Later pages of a long queue cost a database more than the first.
	list.addFlags(cmd, listPage)
	return cmd
}

// eventCommand is one run of a command for one event.
type eventCommand struct {
	env      *env
	admin    adminClient
	id       string
	selected eventSelection
}

// eventID matches the ids of events. Keys, which belong elsewhere, contain
// other characters.
var eventID = regexp.MustCompile(`^[0-9a-z-]{1,128}$`)

// query returns --service as a query.
func (c *eventCommand) query() url.Values {
	q := url.Values{}
	if c.selected.service != "" {
		q.Set("service", c.selected.service)
	}
	return q
}

// prepare checks the flags and the id of an event.
func (c *eventCommand) prepare(cmd *cobra.Command, id string) error {
	if !eventID.MatchString(id) {
		return usagef(cmd, "ID is not the id of an event: an id has lower-case letters and digits")
	}
	c.id = id
	if err := c.selected.check(cmd); err != nil {
		return err
	}
	return c.admin.prepare(cmd, c.env)
}

// addFlags adds --service and those of the client to cmd.
func (c *eventCommand) addFlags(cmd *cobra.Command, service string) {
	cmd.Flags().StringVar(&c.selected.service, "service", "", service)
	c.admin.addFlags(cmd)
}

// newEventsShow returns `wxproxy events show`.
func newEventsShow(e *env) *cobra.Command {
	c := &eventCommand{env: e}
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show an event, its document, and what became of its deliveries",
		Long: `Show an event, the document that its services get, and what became of its
deliveries. The document can contain what users wrote: treat it as confidential.
Characters that a terminal would interpret are replaced; --json prints all of it.`,
		Args: exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.prepare(cmd, args[0]); err != nil {
				return err
			}
			return c.show(cmd.Context())
		},
	}
	c.addFlags(cmd, "fail if the event is not in the queue of the service `NAME`")
	return cmd
}

// show requests the event and prints it.
func (c *eventCommand) show(ctx context.Context) error {
	var v struct {
		eventView
		Kind        string      `json:"kind"`
		OpenID      string      `json:"openid"`
		ContentType string      `json:"content_type"`
		Document    *string     `json:"document"`
		Deliveries  []eventView `json:"deliveries"`
	}
	raw, err := c.admin.do(ctx, http.MethodGet, "/api/events/"+c.id, c.query(), nil, &v)
	if err != nil {
		return err
	}
	// Another server may respond with JSON in which all fields are missing.
	if v.ID != c.id {
		return c.admin.without("this event")
	}
	if c.admin.json {
		return printJSON(c.env, raw)
	}
	rows := [][]string{{"id", v.ID}, {"account", table.Printable(v.AppID)}}
	for _, row := range [][]string{
		{"kind", v.Kind}, {"user", v.OpenID}, {"type", v.ContentType},
	} {
		if row[1] != "" {
			rows = append(rows, []string{row[0], table.Printable(row[1])})
		}
	}
	rows = append(rows, []string{"pushed", timeLine(v.Created)})
	if err := (&table.Table{Out: c.env.stdout}).Print(rows); err != nil {
		return err
	}
	deliveries := [][]string{{"SERVICE", "STATE", "TRIES", "PUSHED", "NEXT", ""}}
	for _, d := range v.Deliveries {
		deliveries = append(deliveries, append([]string{table.Printable(d.Service)}, d.cells()...))
	}
	fmt.Fprintln(c.env.stdout)
	if err := (&table.Table{Out: c.env.stdout}).Print(deliveries); err != nil {
		return err
	}
	text := "the stored event cannot be read\n"
	if v.Document != nil {
		text = printableDocument(*v.Document)
	}
	_, err = fmt.Fprint(c.env.stdout, "\n"+text)
	return err
}

// maxPrintedDocument is how many bytes of a document are printed.
const maxPrintedDocument = 32 << 10

// printableDocument returns a document as indented lines that are safe to print
// to a terminal. The indentation distinguishes lines of the document, which a
// user may have written, from those of wxproxy.
func printableDocument(document string) string {
	shown := document[:min(len(document), maxPrintedDocument)]
	var b strings.Builder
	for line := range strings.SplitSeq(strings.TrimRight(shown, "\n"), "\n") {
		b.WriteString("    " + wechat.Sanitize(line, maxPrintedDocument) + "\n")
	}
	if rest := len(document) - len(shown); rest > 0 {
		fmt.Fprintf(&b, "%d more bytes: --json prints all of them\n", rest)
	}
	return b.String()
}

// newEventsRetry returns `wxproxy events retry`.
func newEventsRetry(e *env) *cobra.Command {
	c := &eventCommand{env: e}
	var all bool
	var state string
	cmd := &cobra.Command{
		Use:   "retry [ID]",
		Short: "Try an event again now, or all that are dead or waiting",
		Long: `Try to deliver an event again now, to all services that have not accepted it or
to one of them. With --all, do so with every event that is dead, or that matches
--state, --service and --appid. A dead event gets its old place among the events
of its account, and is tried for as long as [[forward]] keep says.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if all && len(args) > 0 {
				return usagef(cmd, "retry takes ID or --all, not both")
			}
			if all {
				return nil
			}
			if cmd.Flags().Changed("state") || cmd.Flags().Changed("appid") {
				return usagef(cmd, "--state and --appid need --all")
			}
			return exactArgs("ID")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if !all {
				if err := c.prepare(cmd, args[0]); err != nil {
					return err
				}
				return c.count(cmd.Context(), http.MethodPost, "/"+c.id+"/retry", c.query(),
					"retried", "deliveries are tried again now")
			}
			if err := errors.Join(eventState(cmd, state), c.selected.check(cmd)); err != nil {
				return err
			}
			q := c.query()
			if state != "" {
				q.Set("state", state)
			}
			if c.selected.appid != "" {
				q.Set("appid", c.selected.appid)
			}
			if err := c.admin.prepare(cmd, e); err != nil {
				return err
			}
			return c.count(cmd.Context(), http.MethodPost, "/retry", q,
				"retried", "deliveries are tried again now")
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "retry all events that match the other flags")
	cmd.Flags().StringVar(&state, "state", "dead", "with --all: events in `STATE`, dead or waiting")
	c.selected.addFlags(cmd)
	c.admin.addFlags(cmd)
	return cmd
}

// newEventsDrop returns `wxproxy events drop`.
func newEventsDrop(e *env) *cobra.Command {
	c := &eventCommand{env: e}
	var yes bool
	cmd := &cobra.Command{
		Use:   "drop ID",
		Short: "Remove an event from the queue, so that its services never get it",
		Long: `Remove an event from the queue: the services that have not accepted it never get
it. Use it for an event that a service cannot handle, and that holds up the later
events of its account. On a terminal it asks for confirmation.`,
		Args: exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.prepare(cmd, args[0]); err != nil {
				return err
			}
			if e.terminal && !yes {
				fmt.Fprintf(e.stderr, "Drop the event %s? [y/N] ", c.id)
				if !e.confirm(cmd.Context()) {
					return errors.New("canceled: no event was dropped")
				}
			}
			return c.count(cmd.Context(), http.MethodDelete, "/"+c.id, c.query(),
				"dropped", "deliveries were dropped")
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask for confirmation")
	c.addFlags(cmd, "drop it for the service `NAME` only")
	return cmd
}

// count sends a request to the API of events, whose response has a number as
// member, and prints that number with what it counts.
func (c *eventCommand) count(
	ctx context.Context, method, path string, query url.Values, member, what string,
) error {
	var result map[string]any
	raw, err := c.admin.do(ctx, method, "/api/events"+path, query, nil, &result)
	if err != nil {
		return err
	}
	n, ok := result[member].(float64)
	if !ok {
		return c.admin.without("a number")
	}
	if c.admin.json {
		return printJSON(c.env, raw)
	}
	if n == 1 {
		what = strings.NewReplacer("deliveries are", "delivery is",
			"deliveries were", "delivery was").Replace(what)
	}
	_, err = fmt.Fprintf(c.env.stdout, "%.0f %s\n", n, what)
	return err
}

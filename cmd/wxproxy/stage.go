package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"wxproxy/proxy"
	"wxproxy/sandbox"
)

// stage shows what happens in the demo, a line for each thing, as a person would want to watch it. It
// is the log of the instance, too.
type stage struct {
	mu    sync.Mutex
	out   io.Writer
	color bool
	quiet bool // until the lines to paste are printed, preparations are not shown call by call
}

func newStage(out io.Writer) *stage {
	return &stage{out: out, color: isTerminal(out) && os.Getenv("NO_COLOR") == "", quiet: true}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
)

func (s *stage) paint(color, text string) string {
	if !s.color {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

func (s *stage) line(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, format+"\n", args...)
}

func (s *stage) title(c *demoCommand) {
	s.line("%s\n", s.paint(bold, "wxproxy demo: a sandbox WeChat and wxproxy in one process"))
	s.line("  %-18s http://%s", "proxy", c.proxy+"   your services call here, without credentials")
	s.line("  %-18s http://%s", "callback", c.callback+"   WeChat pushes here; /authorize is for merchants")
	s.line("  %-18s http://%s", "admin", c.admin+"   the console, /metrics, /healthz, /readyz")
	s.line("  %-18s http://%s\n", "sandbox WeChat", c.sandbox+"   stands in for api.weixin.qq.com")
}

func (s *stage) say(format string, args ...any) { s.line("  "+format, args...) }

func (s *stage) paste(what, command string) {
	s.line("\n%s\n%s", s.paint(cyan, "# "+what), command)
}

func (s *stage) blank() {
	s.line("")
	s.mu.Lock()
	s.quiet = false
	s.mu.Unlock()
}

func (s *stage) shows() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.quiet
}

func now() string { return time.Now().Format("15:04:05") }

// call shows a call that wxproxy has answered.
func (s *stage) call(c proxy.Call) {
	if !s.shows() {
		return
	}
	status := s.paint(green, fmt.Sprint(c.Status))
	if c.Status >= 400 {
		status = s.paint(red, fmt.Sprint(c.Status))
	}
	token := c.Token
	if token == "retried" {
		token = s.paint(yellow, token)
	}
	detail := ""
	switch {
	case c.Error != "":
		detail = "  " + s.paint(red, c.Error)
	case c.ErrCode != 0:
		detail = "  " + s.paint(red, fmt.Sprintf("errcode %d", c.ErrCode))
	}
	whose := c.AppID
	if whose == "" {
		whose = "(component)"
	}
	s.line("%s %s %s %s  %s  token %s  %s, %s of it WeChat's%s", s.paint(dim, now()), s.paint(bold, "caller  <-"), c.Method, c.Path, status, token,
		c.Took.Round(10*time.Microsecond), c.Upstream.Round(10*time.Microsecond), detail+s.paint(dim, "  for "+whose))
}

// wechat shows what arrived at the sandbox.
func (s *stage) wechat(c sandbox.Call) {
	if !s.shows() || strings.HasPrefix(c.Path, "/sandbox/") {
		return
	}
	result := "ok"
	if c.ErrCode != 0 {
		result = s.paint(red, fmt.Sprintf("errcode %d", c.ErrCode))
	}
	s.line("%s %s %s %s  %s", s.paint(dim, now()), s.paint(dim, "WeChat  <-"), c.Method, c.Path, result)
}

// Enabled, Handle, WithAttrs and WithGroup make it the log: of it only what an onlooker wants to know.
func (s *stage) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

func (s *stage) Handle(_ context.Context, r slog.Record) error {
	// Calls are shown by themselves; the addresses and the beginning were printed.
	if r.Message == "call" || r.Message == "serving" || !s.shows() && r.Level < slog.LevelWarn {
		return nil
	}
	var b strings.Builder
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(&b, " %s=%v", a.Key, a.Value)
		return true
	})
	color := dim
	if r.Level >= slog.LevelWarn {
		color = yellow
	}
	s.line("%s %s %s%s", s.paint(dim, now()), s.paint(color, "wxproxy   "), r.Message, s.paint(dim, b.String()))
	return nil
}

func (s *stage) WithAttrs([]slog.Attr) slog.Handler { return s }
func (s *stage) WithGroup(string) slog.Handler      { return s }

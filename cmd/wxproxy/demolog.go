package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"time"

	"wxproxy/proxy"
	"wxproxy/sandbox"
)

// demoLog prints one line for each event of the demo. It is also the
// [slog.Handler] of the demo's server. Until start is called it prints only
// text from printf and warnings, so that the setup stays readable. It is safe
// for concurrent use.
type demoLog struct {
	hasColor bool

	mu      sync.Mutex
	out     io.Writer
	started bool
}

// newDemoLog returns a demoLog that prints to e.stdout. It uses colors if that
// is a terminal, the environment variable NO_COLOR is not set
// (https://no-color.org), and the terminal interprets escape sequences: on
// Windows only Windows Terminal, which sets WT_SESSION, does so without being
// asked.
func newDemoLog(e *env) *demoLog {
	noColor, _ := e.getenv("NO_COLOR")
	_, isWindowsTerminal := e.getenv("WT_SESSION")
	understands := runtime.GOOS != "windows" || isWindowsTerminal
	return &demoLog{out: e.stdout, hasColor: e.color && noColor == "" && understands}
}

// Colors are ANSI codes for the SGR escape sequence.
const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
)

// color returns text in a color, or text itself if the output has no colors.
func (l *demoLog) color(code, text string) string {
	if !l.hasColor {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// printf prints a line.
func (l *demoLog) printf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.out, format+"\n", args...)
}

// command prints a command line to paste, after a comment.
func (l *demoLog) command(comment, line string) {
	l.printf("\n%s\n%s", l.color(cyan, "# "+comment), line)
}

// start makes the log show all traffic.
func (l *demoLog) start() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.started = true
}

// isStarted reports whether start was called.
func (l *demoLog) isStarted() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.started
}

// event prints an event with the time of day and its source.
func (l *demoLog) event(color, source, format string, args ...any) {
	l.printf("%s %s %s", l.color(dim, time.Now().Format(time.TimeOnly)),
		l.color(color, fmt.Sprintf("%-8s", source)), fmt.Sprintf(format, args...))
}

// proxyCall prints a request that wxproxy has answered.
func (l *demoLog) proxyCall(c proxy.Call) {
	if !l.isStarted() {
		return
	}
	status := l.color(green, fmt.Sprint(c.Status))
	if c.Status >= 400 {
		status = l.color(red, fmt.Sprint(c.Status))
	}
	token := c.Token
	if token == "retried" {
		token = l.color(yellow, token)
	}
	detail := ""
	switch {
	case c.Error != "":
		detail = "  " + l.color(red, c.Error)
	case c.ErrCode != 0:
		detail = "  " + l.color(red, fmt.Sprintf("errcode %d", c.ErrCode))
	}
	account := ""
	switch {
	case c.AppID != "":
		account = l.color(dim, "  for "+c.AppID)
	case c.Token != "none":
		account = l.color(dim, "  for the platform")
	}
	l.event(bold, "request", "%s %s  %s  token %s  %s (WeChat: %s)%s%s", c.Method, c.Path, status, token,
		c.Took.Round(10*time.Microsecond), c.Upstream.Round(10*time.Microsecond), detail,
		account)
}

// sandboxCall prints a request that the sandbox has received.
func (l *demoLog) sandboxCall(c sandbox.Call) {
	if !l.isStarted() || strings.HasPrefix(c.Path, "/sandbox/") {
		return
	}
	result := "ok"
	if c.ErrCode != 0 {
		result = l.color(red, fmt.Sprintf("errcode %d", c.ErrCode))
	}
	l.event(dim, "WeChat", "%s %s  %s", c.Method, c.Path, result)
}

// Enabled implements [slog.Handler]. Debug messages are not shown.
func (l *demoLog) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

// Handle implements [slog.Handler].
func (l *demoLog) Handle(_ context.Context, r slog.Record) error {
	// Requests have lines of their own, and the addresses were printed.
	if r.Message == "call" || r.Message == "serving" || !l.isStarted() && r.Level < slog.LevelWarn {
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
	l.event(color, "wxproxy", "%s%s", r.Message, l.color(dim, b.String()))
	return nil
}

// WithAttrs implements [slog.Handler]. No part of wxproxy relies on it.
func (l *demoLog) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup implements [slog.Handler]. No part of wxproxy relies on it.
func (l *demoLog) WithGroup(string) slog.Handler { return l }

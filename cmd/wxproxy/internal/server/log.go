package server

import (
	"io"
	"log/slog"

	"wxproxy/cmd/wxproxy/internal/config"
)

// NewLog returns a log that writes to w in the format of c. SetLevel changes
// its level through level, even while the log is in use.
func NewLog(w io.Writer, c config.Log, level *slog.LevelVar) *slog.Logger {
	SetLevel(c, level)
	opts := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// SetLevel sets level to the one of c. It does nothing if that is not a level.
func SetLevel(c config.Log, level *slog.LevelVar) {
	var l slog.Level
	if l.UnmarshalText([]byte(c.Level)) == nil {
		level.Set(l)
	}
}

package tokens

import "errors"

// ErrStale: what was told is older than what is known, and changed nothing.
var ErrStale = errors.New("older than what is known, ignored")

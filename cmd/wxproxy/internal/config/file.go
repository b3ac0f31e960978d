package config

import (
	"errors"
	"fmt"
	"io"
	"os"
)

const (
	// fileLimit is the maximum size in bytes of each file that a configuration
	// consists of: the file itself, files named by ${file:…}, and certificates.
	// The TOML library needs time proportional to the square of the number of
	// tables, and a file of 60,000 tables would keep it busy for seconds.
	fileLimit = 1 << 20

	// expansionLimit is the maximum size in bytes of all values of ${…} in one
	// configuration. Without it, one large file named a thousand times would
	// fill the memory.
	expansionLimit = 16 << 20
)

// sources is where the values of ${…} and certificates come from.
type sources struct {
	getenv func(string) (string, bool)
	// readFile returns a file of at most fileLimit bytes. Its errors do not
	// contain the path.
	readFile func(path string) ([]byte, error)
}

var (
	errFileTooLarge = fmt.Errorf("it has more than %v", Size(fileLimit))
	errNoFile       = errors.New("it is not a regular file")
)

// ReadFile returns the content of a file that a configuration refers to. It
// accepts only regular files of at most 1 MiB, and links to them: opening a
// pipe would block until something writes to it. The errors do not contain the
// path.
func ReadFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, withoutPath(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errNoFile
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, withoutPath(err)
	}
	defer f.Close()
	return readLimited(f)
}

// readLimited reads all of r. It fails, without reading on, if that is more
// than fileLimit.
func readLimited(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, fileLimit+1))
	switch {
	case err != nil:
		return nil, withoutPath(err)
	case len(b) > fileLimit:
		return nil, errFileTooLarge
	}
	return b, nil
}

// withoutPath removes the path from an error of package os. The reports name
// the path as it is written in the configuration, where it may be a variable.
func withoutPath(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

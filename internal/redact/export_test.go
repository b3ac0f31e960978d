package redact

// Steps returns how many bytes [Mask] looks at, counted once for each look.
func Steps(b []byte, o *Options) int {
	s := scanners.Get().(*scanner)
	defer s.release()
	s.search(b, o)
	return s.text.steps
}

// Plain returns the plain form of b.
func Plain(b []byte) []byte {
	var t text
	t.reset(b)
	return t.plain
}

//go:build !unix

package wire

// readiness is not known here: a connection holds its buffer while it waits.
type readiness struct{}

func (r *Reader) watch() {}

func (r *Reader) await() error { return r.fill() }

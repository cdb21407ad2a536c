package proxy

import (
	"context"
	"errors"
	"io"

	"github.com/sallyport/sallyport/proxy/wire"
)

// policyBody lets the engine read the body before it is forwarded. What it
// buffers is a copy of its own: the record of the request may keep it.
type policyBody struct {
	src       *wire.Body // nil once the request is over
	limit     int64
	data      []byte
	full      bool // data is as long as it will be
	truncated bool
	err       error
}

var errDetached = errors.New("body was not read while the request lasted")

// Buffer implements authz.Body.
func (b *policyBody) Buffer(context.Context) ([]byte, bool, error) {
	if !b.full && b.src == nil {
		return nil, false, errDetached
	}
	if !b.full {
		b.full = true
		// One byte beyond the limit shows that there is more; it is forwarded too.
		b.data, b.err = io.ReadAll(io.LimitReader(b.src, b.limit+1))
		b.truncated = int64(len(b.data)) > b.limit
	}
	return b.data[:min(int64(len(b.data)), b.limit)], b.truncated, b.err
}

// detach lets go of the connection.
func (b *policyBody) detach() {
	if b != nil {
		b.src = nil
	}
}

// forwarding reads what was buffered and then the rest.
type forwarding struct {
	buffered []byte
	rest     *wire.Body
}

func (f *forwarding) Read(p []byte) (int, error) {
	if len(f.buffered) > 0 {
		n := copy(p, f.buffered)
		f.buffered = f.buffered[n:]
		return n, nil
	}
	return f.rest.Read(p)
}

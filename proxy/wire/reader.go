// Package wire owns the framing of HTTP/1.1 messages on client connections
// (RFC 9112): where a request head ends, where a body ends, and how a body is
// written. It is strict: a message that two readers could frame differently is
// refused, because everything after it would be read as another request.
//
// It exists beside fasthttp because fasthttp's server parses more leniently
// (bare LF, folded lines, Transfer-Encoding beside Content-Length), allocates
// by announced lengths, sends 100 Continue before a handler can judge, and
// shares one timeout between head and body. It does not know what a request
// means.
package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"

	"github.com/sallyport/sallyport/proxy/problem"
)

// startBuffer is what a connection reads into. Longer heads get a buffer that goes
// with the request.
const startBuffer = 4 << 10

// buffers are those of connections that have something to read: most connections
// are idle, and an idle one holds none if the system can tell when bytes are there.
var buffers = sync.Pool{New: func() any { return new([startBuffer]byte) }}

// Reader reads messages from one connection. It never reads ahead of its
// buffer, and hands every byte out exactly once.
type Reader struct {
	conn  net.Conn
	small *[startBuffer]byte // nil while there is nothing to read
	buf   []byte             // small, or a longer one; nil with small
	r, w  int

	readiness // of conn
}

// NewReader returns a reader of conn.
func NewReader(conn net.Conn) *Reader {
	r := &Reader{conn: conn}
	r.watch()
	return r
}

// hold takes a buffer if there is none.
func (r *Reader) hold() {
	if r.small == nil {
		r.small = buffers.Get().(*[startBuffer]byte) //nolint:forcetypeassert // the pool has one type
		r.buf = r.small[:]
	}
}

// letGo gives the buffer back, in which nothing must be left.
func (r *Reader) letGo() {
	if r.small != nil {
		buffers.Put(r.small)
		r.small, r.buf, r.r, r.w = nil, nil, 0, 0
	}
}

// Buffered is the number of bytes that have arrived and are not yet read.
func (r *Reader) Buffered() int { return r.w - r.r }

// Await blocks until a byte is there.
func (r *Reader) Await() error {
	for r.Buffered() == 0 {
		if err := r.await(); err != nil {
			return err
		}
	}
	return nil
}

// fill reads once; the buffer must have been drained or grown.
func (r *Reader) fill() error {
	r.hold()
	if r.r == r.w {
		r.r, r.w, r.buf = 0, 0, r.small[:]
	}
	n, err := r.conn.Read(r.buf[r.w:])
	return r.filled(n, err)
}

// filled takes what one read gave.
func (r *Reader) filled(n int, err error) error {
	r.w += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// Read reads what is buffered, else from the connection.
func (r *Reader) Read(p []byte) (int, error) {
	if r.Buffered() > 0 {
		n := copy(p, r.buf[r.r:r.w])
		r.r += n
		return n, nil
	}
	if len(p) >= startBuffer {
		return r.conn.Read(p)
	}
	if err := r.fill(); err != nil {
		return 0, err
	}
	n := copy(p, r.buf[r.r:r.w])
	r.r += n
	return n, nil
}

func (r *Reader) readByte() (byte, error) {
	if err := r.Await(); err != nil {
		return 0, err
	}
	r.r++
	return r.buf[r.r-1], nil
}

// errBareLF marks a line that ends without CR: some readers end the line there.
var errBareLF = errors.New("line ends in LF without CR")

// ReadHead returns the next request head, up to and including the empty line.
// The bytes are valid, and may be changed, until the next call of a method.
// One empty line before the head is skipped (RFC 9112 section 2.2). Before it
// waits for what has not arrived yet, it calls wait once, which limits how long
// that may take altogether.
func (r *Reader) ReadHead(limit int, wait func() error) ([]byte, error) {
	r.hold()
	if r.Buffered() == 0 {
		r.r, r.w, r.buf = 0, 0, r.small[:]
	}
	line, next := 0, 0 // offsets from r.r: start of the line, start of the search
	skipped, waits := false, false
	for {
		rest := r.buf[r.r+next : r.w]
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			next += len(rest)
			if next > limit {
				return nil, problem.ErrHeadTooLarge
			}
			if !waits {
				if err := wait(); err != nil {
					return nil, err
				}
				waits = true
			}
			if err := r.more(limit); err != nil {
				return nil, err
			}
			continue
		}
		end := next + i
		if end == line || r.buf[r.r+end-1] != '\r' {
			return nil, errors.Join(problem.ErrMalformed, errBareLF)
		}
		next = end + 1
		if next > limit {
			return nil, problem.ErrHeadTooLarge
		}
		if end-1 == line { // empty line
			if line == 0 {
				if skipped {
					return nil, problem.ErrMalformed
				}
				skipped = true
				r.r += 2
				next = 0
				continue
			}
			head := r.buf[r.r : r.r+next]
			r.r += next
			return head, nil
		}
		line = next
	}
}

// more makes room for and reads more of a head.
func (r *Reader) more(limit int) error {
	if r.w == len(r.buf) {
		if r.r > 0 {
			r.w = copy(r.buf, r.buf[r.r:r.w])
			r.r = 0
		} else {
			// A byte beyond the limit is enough to see that it is passed.
			grown := make([]byte, min(2*len(r.buf), max(limit+1, len(r.buf)+1)))
			r.w = copy(grown, r.buf)
			r.buf = grown
		}
	}
	n, err := r.conn.Read(r.buf[r.w:])
	r.w += n
	switch {
	case n > 0:
		return nil
	case err == nil:
		return io.ErrNoProgress
	case errors.Is(err, os.ErrDeadlineExceeded):
		return problem.ErrRequestTimeout
	}
	return err
}

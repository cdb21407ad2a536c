package wire

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/problem"
)

// Body reads the body of the request whose head was read last, and nothing
// behind it. Chunked bodies are decoded; their extensions and trailers are
// checked and dropped.
type Body struct {
	r       *Reader
	left    int64 // of the body, or of the chunk
	max     int64
	read    int64
	chunked bool
	opened  bool // a chunk has been read, so that a CRLF stands before the next
	err     error
	// before runs once before the first byte is awaited: the 100 Continue.
	before func() error
}

// Reset makes b the body of a request. Length is as in Head; max bounds a
// chunked body, in bytes. Continue, if not nil, runs before the body is awaited.
func (b *Body) Reset(r *Reader, length, maxBytes int64, before func() error) {
	*b = Body{r: r, left: length, max: maxBytes, before: before}
	switch {
	case length < 0:
		b.chunked, b.left = true, 0
	case length == 0:
		b.err = io.EOF
	}
}

// Done reports whether the whole body has been read.
func (b *Body) Done() bool { return errors.Is(b.err, io.EOF) }

// Awaited reports whether nobody has asked the client for the body yet.
func (b *Body) Awaited() bool { return b.before != nil }

// Read reads the body. Its errors wrap authz.ErrBodyTooLarge, authz.ErrBodyRead
// or problem.ErrRequestTimeout, and stay.
func (b *Body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.next(p)
	b.read += int64(n)
	b.left -= int64(n)
	switch {
	case err != nil:
		b.err = bodyError(err)
	case b.read > b.max:
		b.err = authz.ErrBodyTooLarge
		return 0, b.err
	case !b.chunked && b.left == 0:
		b.err = io.EOF
	}
	return n, b.err
}

func bodyError(err error) error {
	switch {
	case err == io.EOF || errors.Is(err, authz.ErrBodyTooLarge): //nolint:errorlint // the bare EOF is the end of the body
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("read request body: %w", problem.ErrRequestTimeout)
	}
	return fmt.Errorf("read request body: %w: %w", err, authz.ErrBodyRead)
}

func (b *Body) next(p []byte) (int, error) {
	if b.before != nil {
		before := b.before
		b.before = nil
		if b.r.Buffered() == 0 { // a client that has begun does not wait
			if err := before(); err != nil {
				return 0, err
			}
		}
	}
	if b.chunked && b.left == 0 {
		if err := b.nextChunk(); err != nil {
			return 0, err
		}
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.r.Read(p)
	if n > 0 {
		return n, nil
	}
	if err == io.EOF { //nolint:errorlint // net.Conn returns it bare
		err = io.ErrUnexpectedEOF
	}
	return 0, err
}

// Longest chunk-size line, and longest trailer section, in bytes.
const (
	maxChunkLine = 128
	maxTrailers  = 8 << 10
)

// nextChunk reads up to the data of the next chunk (RFC 9112 section 7.1). It
// returns io.EOF behind the last.
func (b *Body) nextChunk() error {
	if b.opened {
		if err := b.expect("\r\n"); err != nil {
			return err
		}
	}
	b.opened = true
	size, err := b.chunkSize()
	if err != nil {
		return noEOF(err)
	}
	if size > 0 {
		if size > b.max-b.read {
			return authz.ErrBodyTooLarge
		}
		b.left = size
		return nil
	}
	if err := b.trailers(); err != nil {
		return noEOF(err)
	}
	return io.EOF
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

var errChunk = errors.New("chunked framing is broken")

func (b *Body) expect(s string) error {
	for i := range len(s) {
		c, err := b.r.readByte()
		if err != nil {
			return noEOF(err)
		}
		if c != s[i] {
			return errChunk
		}
	}
	return nil
}

// chunkSize reads hexadecimal digits, an extension of visible characters, and
// CRLF. Nothing stands between digits and extension: readers disagree there.
func (b *Body) chunkSize() (int64, error) {
	var size int64
	for digits := 0; ; digits++ {
		c, err := b.r.readByte()
		if err != nil {
			return 0, err
		}
		v, ok := hexValue(c)
		if !ok {
			if digits == 0 {
				return 0, errChunk
			}
			return size, b.endSizeLine(c)
		}
		if digits == 15 {
			return 0, errChunk
		}
		size = size<<4 | v
	}
}

func (b *Body) endSizeLine(c byte) error {
	if c == ';' {
		for n := 0; ; n++ {
			var err error
			if c, err = b.r.readByte(); err != nil {
				return err
			}
			if c == '\r' {
				break
			}
			if c < ' ' && c != '\t' || c >= 0x7f || n == maxChunkLine {
				return errChunk
			}
		}
	}
	if c != '\r' {
		return errChunk
	}
	return b.expect("\n")
}

func hexValue(c byte) (int64, bool) {
	switch {
	case c >= '0' && c <= '9':
		return int64(c - '0'), true
	case c >= 'a' && c <= 'f':
		return int64(c-'a') + 10, true
	case c >= 'A' && c <= 'F':
		return int64(c-'A') + 10, true
	}
	return 0, false
}

// trailers reads the trailer section and drops it: a trailer must never become
// a header behind the check of headers. What is no field line is refused, as a
// request that somebody hid there would be.
func (b *Body) trailers() error {
	var line trailerLine
	for range maxTrailers {
		c, err := b.r.readByte()
		if err != nil {
			return err
		}
		switch end, ok := line.take(c); {
		case !ok:
			return errChunk
		case end:
			return nil
		}
	}
	return errChunk
}

// trailerLine checks one line after the other.
type trailerLine struct {
	length int
	named  bool // the colon has come
	cr     bool // the last byte was CR
}

// take takes the next byte. End reports the empty line.
func (l *trailerLine) take(c byte) (end, ok bool) {
	switch {
	case l.cr:
		end, ok = l.length == 0, c == '\n' && (l.named || l.length == 0)
		*l = trailerLine{}
		return end, ok
	case c == '\r':
		l.cr = true
		return false, true
	case c == ':' && !l.named && l.length > 0:
		l.named = true
	case !l.named && !isToken[c], c < ' ' && c != '\t', c == 0x7f:
		return false, false
	}
	l.length++
	return false, true
}

// Discard reads up to limit bytes of what is left, and reports whether the end
// of the body was reached, so that another request can follow.
func (b *Body) Discard(limit int64) bool {
	if b.err != nil || b.before != nil || !b.chunked && b.left > limit {
		return b.Done()
	}
	_, err := io.CopyN(io.Discard, b, limit+1)
	return err != nil && b.Done()
}

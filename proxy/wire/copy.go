package wire

import (
	"bufio"
	"io"
	"strconv"
	"sync"
)

// Unknown is the length of a body that is sent in chunks.
const Unknown = -1

// CopyError says on which side a body broke.
type CopyError struct {
	Err     error
	Reading bool // the source failed; else the destination
}

func (e *CopyError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *CopyError) Unwrap() error { return e.Err }

var copyBuffers = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// CopyBody writes a body: length bytes of src, or chunks until src ends, or,
// when raw, what src has without framing. Every piece that src gives is flushed
// unless it is known to be the last, so that events arrive as they happen. A
// src that ends early is an error and the end is not written: the reader of dst
// must not take the rest for complete.
func CopyBody(dst *bufio.Writer, src io.Reader, length int64, raw bool) error {
	buf := copyBuffers.Get().(*[16 << 10]byte) //nolint:forcetypeassert // the pool has one type
	defer copyBuffers.Put(buf)
	chunked := length < 0 && !raw
	for done := int64(0); ; {
		if length >= 0 && done == length {
			return nil
		}
		part := buf[:]
		if length >= 0 && int64(len(part)) > length-done {
			part = part[:length-done]
		}
		n, err := src.Read(part)
		done += int64(n)
		if n > 0 {
			if werr := writePart(dst, part[:n], chunked, done != length); werr != nil {
				return &CopyError{Err: werr}
			}
		}
		switch {
		case err == nil || err == io.EOF && done == length:
		case err == io.EOF && length < 0:
			return endBody(dst, chunked)
		case err == io.EOF:
			return &CopyError{Err: io.ErrUnexpectedEOF, Reading: true}
		default:
			return &CopyError{Err: err, Reading: true}
		}
	}
}

func writePart(dst *bufio.Writer, p []byte, chunked, flush bool) error {
	if chunked {
		var line [18]byte
		head := append(strconv.AppendUint(line[:0], uint64(len(p)), 16), "\r\n"...)
		if _, err := dst.Write(head); err != nil {
			return err
		}
	}
	if _, err := dst.Write(p); err != nil {
		return err
	}
	if chunked {
		if _, err := dst.WriteString("\r\n"); err != nil {
			return err
		}
	}
	if !flush {
		return nil
	}
	return dst.Flush()
}

func endBody(dst *bufio.Writer, chunked bool) error {
	if !chunked {
		return nil
	}
	if _, err := dst.WriteString("0\r\n\r\n"); err != nil {
		return &CopyError{Err: err}
	}
	return nil
}

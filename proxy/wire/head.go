package wire

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/problem"
)

// Head is a request head. Its strings are slices of one copy of it.
type Head struct {
	Method, Target, Protocol string
	Headers                  []authz.Header // lower-case names, in order

	Length   int64 // of the body; -1: chunked
	Close    bool  // the client wants the connection closed after the response
	Continue bool  // the client waits for 100 Continue before it sends the body
}

// maxHeaders bounds the work that one head makes.
const maxHeaders = 200

// ParseHead parses what ReadHead returned; it changes the bytes. When it fails
// behind the request line, the head it returns has that line, for the record.
func ParseHead(head []byte) (Head, error) {
	fields, err := lowerNames(head)
	if err != nil {
		return Head{}, err
	}
	text := string(head) // the one copy; nothing below aliases the connection
	line, rest, _ := strings.Cut(text, "\r\n")
	var h Head
	if err := h.requestLine(line); err != nil {
		return h, err
	}
	h.Headers = make([]authz.Header, 0, fields)
	for {
		line, rest, _ = strings.Cut(rest, "\r\n")
		if line == "" {
			break
		}
		name, value, _ := strings.Cut(line, ":")
		h.Headers = append(h.Headers, authz.Header{Name: name, Value: strings.Trim(value, " \t")})
	}
	return h, h.framing()
}

// isToken marks the bytes of a field name (RFC 9110 section 5.6.2).
var isToken = func() (t [256]bool) {
	for c := range 256 {
		b := byte(c)
		t[c] = b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b != 0 && strings.IndexByte("!#$%&'*+-.^_`|~", b) >= 0
	}
	return t
}()

// lowerNames checks the field lines and lowers their names in place. Folded
// lines, lines without colon and spaces around names are refused (RFC 9112
// section 5).
func lowerNames(head []byte) (int, error) {
	fields := 0
	_, rest, _ := bytes.Cut(head, crlf)
	for {
		end := bytes.IndexByte(rest, '\n') - 1
		if end <= 0 {
			return fields, nil
		}
		colon := bytes.IndexByte(rest[:end], ':')
		if colon <= 0 {
			return 0, fmt.Errorf("header line without a name: %w", problem.ErrMalformed)
		}
		for i := range colon {
			c := rest[i]
			if !isToken[c] {
				return 0, fmt.Errorf("byte %#02x in a header name: %w", c, problem.ErrMalformed)
			}
			if c >= 'A' && c <= 'Z' {
				rest[i] = c + 'a' - 'A'
			}
		}
		if bytes.IndexByte(rest[colon:end], '\r') >= 0 {
			return 0, fmt.Errorf("CR in a header value: %w", problem.ErrMalformed)
		}
		if fields++; fields > maxHeaders {
			return 0, problem.ErrHeadTooLarge
		}
		rest = rest[end+2:]
	}
}

var crlf = []byte("\r\n")

func (h *Head) requestLine(line string) error {
	var ok1, ok2 bool
	h.Method, line, ok1 = strings.Cut(line, " ")
	h.Target, h.Protocol, ok2 = strings.Cut(line, " ")
	if !ok1 || !ok2 || h.Method == "" || h.Target == "" {
		return fmt.Errorf("request line: %w", problem.ErrMalformed)
	}
	for i := range len(h.Method) {
		if c := h.Method[i]; (c < 'A' || c > 'Z') && c != '-' {
			return fmt.Errorf("method: %w", problem.ErrMalformed)
		}
	}
	switch {
	case h.Protocol == "HTTP/1.1", h.Protocol == "HTTP/1.0":
		return nil
	case strings.HasPrefix(h.Protocol, "HTTP/") && len(h.Protocol) == 8 && !strings.Contains(h.Protocol, " "):
		return fmt.Errorf("%q: %w", h.Protocol, problem.ErrVersion)
	}
	return fmt.Errorf("protocol version: %w", problem.ErrMalformed)
}

// framing reads the fields that say where the message ends (RFC 9112 section
// 6.3), and refuses every combination that is not plain.
func (h *Head) framing() error {
	f := fields{http10: h.Protocol == "HTTP/1.0", length: -1}
	for i := range h.Headers {
		if err := f.take(h.Headers[i].Name, h.Headers[i].Value); err != nil {
			return err
		}
	}
	if f.chunked && f.lengths > 0 {
		return fmt.Errorf("content-length beside transfer-encoding: %w", problem.ErrAmbiguous)
	}
	switch {
	case f.chunked:
		h.Length = -1
	case f.lengths == 1:
		h.Length = f.length
	}
	h.Continue = f.wait && h.Length != 0
	h.Close = f.close || f.http10 // a 1.0 client's keep-alive is not worth its ambiguities
	return nil
}

// fields gathers the framing fields.
type fields struct {
	http10, chunked, close, wait bool
	lengths                      int
	length                       int64
}

func (f *fields) take(name, value string) error {
	switch name {
	case "content-length":
		if f.lengths++; f.lengths > 1 {
			return fmt.Errorf("content-length is repeated: %w", problem.ErrAmbiguous)
		}
		var err error
		f.length, err = parseLength(value)
		return err
	case "transfer-encoding":
		if f.chunked || f.http10 || !strings.EqualFold(value, "chunked") {
			return fmt.Errorf("transfer-encoding %q: %w", value, problem.ErrAmbiguous)
		}
		f.chunked = true
	case "connection":
		for t := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.Trim(t, " \t"), "close") {
				f.close = true
			}
		}
	case "expect":
		if f.http10 {
			return nil // a 1.0 client cannot wait
		}
		if !strings.EqualFold(value, "100-continue") {
			return problem.ErrExpectation
		}
		f.wait = true
	}
	return nil
}

var errLength = errors.New("content-length is not a plain number")

// parseLength takes digits only: no sign, no list, no more than a reader with
// 63 bits can hold.
func parseLength(s string) (int64, error) {
	if s == "" || len(s) > 18 {
		return 0, errors.Join(problem.ErrAmbiguous, errLength)
	}
	var n int64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, errors.Join(problem.ErrAmbiguous, errLength)
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, nil
}

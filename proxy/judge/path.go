package judge

import (
	"fmt"
	"strings"

	"github.com/sallyport/sallyport/proxy/problem"
)

// Bytes of a request target. RFC 3986 wants everything else escaped; the few
// extra ones are sent raw by browsers and mean the same everywhere.
const pathBytes = "-._~!$&'()*+,=:@[]{}|^"

var isPathByte = func() (t [256]bool) {
	for c := range 256 {
		b := byte(c)
		t[c] = b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || strings.IndexByte(pathBytes, b) >= 0
	}
	return t
}()

// checkPath accepts a path that has one reading, and returns its segments,
// percent-decoded. The very string is judged and forwarded, so everything that
// some server cleans, decodes twice or cuts is refused: empty and dot segments,
// backslashes, escaped separators, dots, letters and digits, escapes of
// escapes, control characters, and ";" unless params is set. The segments are in
// room if they fit.
func checkPath(path string, params bool, room []string) ([]string, error) {
	if path == "" || path[0] != '/' {
		return nil, fmt.Errorf("path does not begin with /: %w", problem.ErrAmbiguous)
	}
	segments := room[:0]
	for rest := path[1:]; ; {
		raw, after, more := strings.Cut(rest, "/")
		s, err := checkSegment(raw, params)
		if err != nil {
			return nil, fmt.Errorf("path segment %q: %w: %w", clip(raw), err, problem.ErrAmbiguous)
		}
		if s == "" && more || s == "." || s == ".." {
			return nil, fmt.Errorf("path has an empty or dot segment: %w", problem.ErrAmbiguous)
		}
		segments = append(segments, s)
		if !more {
			return segments, nil
		}
		rest = after
	}
}

// checkSegment returns the decoded segment.
func checkSegment(raw string, params bool) (string, error) {
	escaped := false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case isPathByte[c] || c == ';' && params:
		case c == '%':
			b, ok := unescape(raw[i:])
			if !ok {
				return "", fmt.Errorf("bad escape")
			}
			if err := checkEscaped(b, raw[i+3:]); err != nil {
				return "", err
			}
			escaped = true
			i += 2
		default:
			return "", fmt.Errorf("byte %#02x is not allowed", c)
		}
	}
	if params && dotsBeforeParameter(raw) {
		return "", fmt.Errorf("dots before a parameter")
	}
	if !escaped {
		return raw, nil
	}
	return decode(raw)
}

// checkEscaped refuses an escape that changes what the path is, or that hides a
// character nobody has a reason to escape. A tilde is let through: encoders
// older than RFC 3986 escape it.
func checkEscaped(b byte, after string) error {
	switch {
	case b < 0x20 || b == 0x7f:
		return fmt.Errorf("escaped control character")
	case b == '/' || b == '\\' || b == '.':
		return fmt.Errorf("escaped separator or dot")
	case b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b == '-' || b == '_':
		return fmt.Errorf("needless escape of %q", b)
	case b == '%' && len(after) >= 2 && isHex(after[0]) && isHex(after[1]):
		return fmt.Errorf("escape of an escape")
	}
	return nil
}

// dotsBeforeParameter finds "..;x": servers that cut parameters see "..".
func dotsBeforeParameter(raw string) bool {
	name, _, ok := strings.Cut(raw, ";")
	return ok && (name == "" || name == "." || name == "..")
}

func decode(raw string) (string, error) {
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		if raw[i] != '%' {
			out = append(out, raw[i])
			continue
		}
		b, _ := unescape(raw[i:])
		out = append(out, b)
		i += 2
	}
	s := string(out)
	if err := checkUTF8(s); err != nil {
		return "", err
	}
	return s, nil
}

func unescape(s string) (byte, bool) {
	if len(s) < 3 || !isHex(s[1]) || !isHex(s[2]) {
		return 0, false
	}
	return fromHex(s[1])<<4 | fromHex(s[2]), true
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func fromHex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	}
	return c - 'a' + 10
}

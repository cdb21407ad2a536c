package wire

import "bufio"

// upper is the byte with which a word of a field name begins.
var upper = func() (t [256]byte) {
	for c := range 256 {
		t[c] = byte(c)
		if c >= 'a' && c <= 'z' {
			t[c] -= 'a' - 'A'
		}
	}
	return t
}()

// WriteField writes a field line. The name, in lower case, is written as readers
// are used to see it: X-Request-Id. W keeps the first error for Flush.
func WriteField(w *bufio.Writer, name, value string) {
	b := AppendName(w.AvailableBuffer(), name)
	b = append(b, ": "...)
	b = append(b, value...)
	_, _ = w.Write(append(b, "\r\n"...)) // where it stands already, unless it did not fit
}

// AppendName appends a field name as WriteField writes it.
func AppendName(b []byte, name string) []byte {
	if name == "www-authenticate" {
		return append(b, "WWW-Authenticate"...) // the one name that is not written like the others
	}
	start := true
	for i := range len(name) {
		c := name[i]
		if start {
			c = upper[c]
		}
		start = c == '-'
		b = append(b, c)
	}
	return b
}

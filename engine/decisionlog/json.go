package decisionlog

import (
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// buffer appends JSON. It writes commas by looking at what stands
// before, and never produces invalid JSON, whatever the strings hold.
type buffer struct{ b []byte }

func (w *buffer) open(c byte) { w.b = append(w.b, c) }

func (w *buffer) close(c byte) { w.b = append(w.b, c) }

// comma separates from a member or element before.
func (w *buffer) comma() {
	switch n := len(w.b); {
	case n == 0:
	case w.b[n-1] != '{' && w.b[n-1] != '[' && w.b[n-1] != ':':
		w.b = append(w.b, ',')
	}
}

func (w *buffer) key(name string) {
	w.comma()
	w.quote(name)
	w.b = append(w.b, ':')
}

// member writes a string member, unless the string is empty.
func (w *buffer) member(name, value string) {
	if value != "" {
		w.key(name)
		w.quote(value)
	}
}

// number writes a number member, unless the number is below least.
func (w *buffer) number(name string, n, least int64) {
	if n >= least {
		w.key(name)
		w.b = strconv.AppendInt(w.b, n, 10)
	}
}

func (w *buffer) boolean(name string, v bool) {
	w.key(name)
	w.b = strconv.AppendBool(w.b, v)
}

func (w *buffer) raw(name string, value []byte) {
	if value != nil {
		w.key(name)
		w.b = append(w.b, value...)
	}
}

func (w *buffer) time(name string, t time.Time) {
	if !t.IsZero() {
		w.member(name, t.UTC().Format("2006-01-02T15:04:05.000Z07:00"))
	}
}

func (w *buffer) list(name string, values []string) {
	w.key(name)
	w.open('[')
	for _, v := range values {
		w.comma()
		w.quote(v)
	}
	w.close(']')
}

// stringMap writes an object with sorted names, each value as mask returns it.
func (w *buffer) stringMap(name string, m map[string]string, mask func(name, value string) string) {
	w.key(name)
	w.open('{')
	var scratch [16]string
	for _, k := range sortedNames(scratch[:0], m) {
		w.key(k)
		w.quote(mask(k, m[k]))
	}
	w.close('}')
}

// sortedNames appends the keys of m to names, which may be on the caller's stack,
// and returns them sorted.
func sortedNames[V any](names []string, m map[string]V) []string {
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// clearText is the mask of values that come from the configuration.
func clearText(_, value string) string { return value }

const hexDigits = "0123456789abcdef"

// quote writes a string. Invalid UTF-8 becomes U+FFFD. Control characters are
// escaped, those of Latin-1 too, which terminals obey when somebody reads a log.
func (w *buffer) quote(s string) {
	w.b = append(w.b, '"')
	for i := 0; i < len(s); {
		if n := plain(s[i:]); n > 0 {
			w.b = append(w.b, s[i:i+n]...)
			i += n
			continue
		}
		if c := s[i]; c < utf8.RuneSelf {
			w.ascii(c)
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			w.b = append(w.b, `\ufffd`...)
		case r < 0xa0 || r == 0x2028 || r == 0x2029:
			w.b = append(w.b, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
		default:
			w.b = append(w.b, s[i:i+size]...)
		}
		i += size
	}
	w.b = append(w.b, '"')
}

// plain is how many bytes at the beginning of s are written as they are: nearly
// always all of it, which is then copied at once.
func plain(s string) int {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			return i
		}
	}
	return len(s)
}

// ascii writes a character that is not plain.
func (w *buffer) ascii(c byte) {
	if c == '"' || c == '\\' {
		w.b = append(w.b, '\\', c)
		return
	}
	w.b = append(w.b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}

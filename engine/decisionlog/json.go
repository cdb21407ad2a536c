package decisionlog

import (
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// buffer appends JSON. It writes commas by looking at what stands
// before, and never produces invalid JSON, whatever the strings hold.
type buffer struct {
	b      []byte
	second int64  // Unix time that prefix stands for
	prefix []byte // of the last time, up to the second: nearly always that of the next
}

// literal is a text of this package that needs no escaping. A string that comes
// from elsewhere cannot become one by mistake.
type literal string

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

func (w *buffer) key(name literal) {
	w.comma()
	w.b = append(w.b, '"')
	w.b = append(w.b, name...)
	w.b = append(w.b, '"', ':')
}

// anyKey is key for a name that may hold anything.
func (w *buffer) anyKey(name string) {
	w.comma()
	w.quote(name)
	w.b = append(w.b, ':')
}

// member writes a string member, unless the string is empty.
func (w *buffer) member(name literal, value string) {
	if value != "" {
		w.key(name)
		w.quote(value)
	}
}

// number writes a number member, unless the number is below least.
func (w *buffer) number(name literal, n, least int64) {
	if n >= least {
		w.key(name)
		w.b = strconv.AppendInt(w.b, n, 10)
	}
}

func (w *buffer) boolean(name literal, v bool) {
	w.key(name)
	w.b = strconv.AppendBool(w.b, v)
}

func (w *buffer) time(name literal, t time.Time) {
	if t.IsZero() {
		return
	}
	w.key(name)
	if second := t.Unix(); second != w.second || w.prefix == nil {
		w.second = second
		w.prefix = t.UTC().AppendFormat(w.prefix[:0], "2006-01-02T15:04:05")
	}
	ms := t.Nanosecond() / int(time.Millisecond)
	w.b = append(w.b, '"')
	w.b = append(w.b, w.prefix...)
	w.b = append(w.b, '.', hexDigits[ms/100], hexDigits[ms/10%10], hexDigits[ms%10], 'Z', '"')
}

func (w *buffer) list(name literal, values []string) {
	w.key(name)
	w.open('[')
	for _, v := range values {
		w.comma()
		w.quote(v)
	}
	w.close(']')
}

// stringMap writes an object with sorted names, each value as mask returns it.
func (w *buffer) stringMap(name literal, m map[string]string, mask func(name, value string) string) {
	var scratch [8]pair // most objects fit, and need no allocation
	w.pairs(name, sortedPairs(scratch[:0], m), mask)
}

func (w *buffer) pairs(name literal, pairs []pair, mask func(name, value string) string) {
	w.key(name)
	w.open('{')
	for _, p := range pairs {
		w.anyKey(p.name)
		w.quote(mask(p.name, p.value))
	}
	w.close('}')
}

// pair is a member of an object of strings.
type pair struct{ name, value string }

// sortedPairs appends the members of m to pairs and returns them sorted by name.
// Passing over a map costs more than the rest, so it is done once.
func sortedPairs(pairs []pair, m map[string]string) []pair {
	if len(m) == 0 {
		return pairs
	}
	for name, value := range m {
		pairs = append(pairs, pair{name, value})
	}
	slices.SortFunc(pairs, func(a, b pair) int { return strings.Compare(a.name, b.name) })
	return pairs
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
	i := 0
	for ; i+8 <= len(s); i += 8 {
		if special(uint64(s[i]) | uint64(s[i+1])<<8 | uint64(s[i+2])<<16 | uint64(s[i+3])<<24 |
			uint64(s[i+4])<<32 | uint64(s[i+5])<<40 | uint64(s[i+6])<<48 | uint64(s[i+7])<<56) {
			break
		}
	}
	for ; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			return i
		}
	}
	return len(s)
}

// special reports whether one of the eight bytes of x is not plain: it is below a
// space, above a tilde, a quote or a backslash. A byte is zero if taking one from
// it borrows from its high bit, which was not set.
func special(x uint64) bool {
	const each, high = 0x0101010101010101, 0x8080808080808080
	quote, backslash, del := x^each*'"', x^each*'\\', x^each*0x7f
	return (x|(x-each*0x20)&^x|(quote-each)&^quote|(backslash-each)&^backslash|(del-each)&^del)&high != 0
}

// ascii writes a character that is not plain.
func (w *buffer) ascii(c byte) {
	if c == '"' || c == '\\' {
		w.b = append(w.b, '\\', c)
		return
	}
	w.b = append(w.b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}

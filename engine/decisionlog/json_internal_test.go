package decisionlog

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

// quoteLikeJSON compares what a reader gets with what encoding/json would give.
func quoteLikeJSON(t *testing.T, s string) {
	t.Helper()
	w := &buffer{}
	w.quote(s)
	standard, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var got, want string
	if err := json.Unmarshal(w.b, &got); err != nil {
		t.Fatalf("%q became %s: %v", s, w.b, err)
	}
	if err := json.Unmarshal(standard, &want); err != nil || got != want {
		t.Errorf("%q is read back as %q, want %q: %v", s, got, want, err)
	}
	for _, c := range string(w.b) {
		if c < 0x20 || c >= 0x7f && c < 0xa0 || c == 0x2028 || c == 0x2029 || !utf8.ValidRune(c) {
			t.Errorf("%q is written as %q", s, w.b)
		}
	}
}

func TestQuoteLikeJSON(t *testing.T) {
	for _, s := range odd() {
		quoteLikeJSON(t, s)
	}
	// Each byte at each place of the eight that are looked at together.
	for c := range 256 {
		for i := range 20 {
			quoteLikeJSON(t, strings.Repeat("x", i)+string([]byte{byte(c)})+strings.Repeat("~ !#[]", 3)[i%3:])
		}
	}
}

func FuzzQuote(f *testing.F) {
	for _, s := range odd() {
		f.Add(s)
	}
	f.Fuzz(quoteLikeJSON)
}

func TestPlainLooksAtEveryByte(t *testing.T) {
	for c := range 256 {
		for d := range 256 { // borrows of one byte must not hide or make another
			s := string([]byte{'a', byte(c), byte(d), 'a', 'a', 'a', 'a', byte(c)})
			want := 0
			for want < len(s) && s[want] >= 0x20 && s[want] < 0x7f && s[want] != '"' && s[want] != '\\' {
				want++
			}
			if got := plain(s); got != want {
				t.Fatalf("%q: %d bytes are plain, want %d", s, got, want)
			}
		}
	}
}

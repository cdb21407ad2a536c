package dpop

import (
	"errors"
	"fmt"
	"testing"

	"github.com/sallyport/sallyport/proxy/authn"
)

func TestNormalURI(t *testing.T) {
	for _, tt := range []struct{ uri, want string }{
		{"https://api.example.com", "https://api.example.com/"},
		{"https://api.example.com?x", "https://api.example.com/"},
		{"https://api.example.com:443/a", "https://api.example.com/a"},
		{"https://api.example.com:/a", "https://api.example.com/a"},
		{"http://api.example.com:80/a", "http://api.example.com/a"},
		{"http://api.example.com:443/a", "http://api.example.com:443/a"},
		{"http://[::1]:8080/a", "http://[::1]:8080/a"},
		{"HTTP://API/%7ea/%2f%c3%a4", "http://api/~a/%2F%C3%A4"},
		{"http://a/b/./c/../d", "http://a/b/d"},
		{"http://a/b/%2e%2e/c/.", "http://a/c/"},
		{"http://a/../..", "http://a/"},
		{"http://a//b", "http://a//b"},
		{"http://a/%", ""},
		{"http://a/%2", ""},
		{"http://a/%zz", ""},
		{"ftp://a/b", ""},
		{"https:///b", ""},
		{"//a/b", ""},
		{"", ""},
	} {
		got, err := normalURI(tt.uri)
		if err == nil && got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%s: got %q, %v, want %q", tt.uri, got, err, tt.want)
		}
	}
}

// TestReplayWindows: a window that becomes longer does not make good again what a
// shorter one has forgotten.
func TestReplayWindows(t *testing.T) {
	m := newReplay()
	add := func(made, floor int64) error { return m.add("key", "jti", made, floor, 10) }
	if err := add(100, 50); err != nil {
		t.Fatal(err)
	}
	if err := add(100, 100); !errors.Is(err, errSeen) {
		t.Errorf("at its end: %v, want errSeen", err)
	}
	if err := m.add("other", "jti", 100, 100, 10); err != nil {
		t.Errorf("the same jti of another key: %v", err)
	}
	if err := add(200, 101); err != nil {
		t.Errorf("the jti in a later window: %v", err)
	}
	if err := add(100, 40); !errors.Is(err, ErrProof) {
		t.Errorf("after the window became longer: %v, want ErrProof", err)
	}
	if len(m.seen) != 1 || len(m.bySecond) != 1 {
		t.Errorf("%d proofs of %d seconds are kept, want 1 of 1", len(m.seen), len(m.bySecond))
	}
}

func TestReplayIsBounded(t *testing.T) {
	m := newReplay()
	for i := range 5 {
		err := m.add("key", fmt.Sprint(i), 100, 50, 3)
		if full := i >= 3; errors.Is(err, authn.ErrUnavailable) != full || (err == nil) == full {
			t.Errorf("proof %d: %v", i, err)
		}
	}
	if err := m.add("key", "0", 100, 50, 3); !errors.Is(err, errSeen) {
		t.Errorf("a proof that was seen: %v, want errSeen", err)
	}
}

func TestValidate(t *testing.T) {
	if err := (Config{}).Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	for name, c := range map[string]Config{
		"symmetric":       {Algorithms: []string{"ES256", "HS256"}},
		"none":            {Algorithms: []string{"none"}},
		"no algorithm":    {Algorithms: []string{}},
		"window too long": {Window: maxWindow + 1},
		"window negative": {Window: -1},
		"no memory":       {ReplayEntries: -1},
	} {
		if err := c.Validate(); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

package dpop

import (
	"errors"
	"fmt"
	"testing"
	"time"

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
	add := func(made, floor int64) error { return m.add("key", "jti", made, floor, room{10, 10}) }
	if err := add(100, 50); err != nil {
		t.Fatal(err)
	}
	if err := add(100, 100); !errors.Is(err, errSeen) {
		t.Errorf("at its end: %v, want errSeen", err)
	}
	if err := m.add("other", "jti", 100, 100, room{10, 10}); err != nil {
		t.Errorf("the same jti of another key: %v", err)
	}
	if err := add(200, 101); err != nil {
		t.Errorf("the jti in a later window: %v", err)
	}
	if err := add(100, 40); !errors.Is(err, ErrProof) {
		t.Errorf("after the window became longer: %v, want ErrProof", err)
	}
	if len(m.seen) != 1 || len(m.bySecond) != 1 || len(m.holders) != 1 {
		t.Errorf("%d proofs of %d seconds and %d keys are kept, want 1 of each", len(m.seen), len(m.bySecond), len(m.holders))
	}
}

func TestReplayIsBounded(t *testing.T) {
	m := newReplay()
	for i := range 5 {
		err := m.add("key", fmt.Sprint(i), 100, 50, room{3, 10})
		if full := i >= 3; errors.Is(err, authn.ErrUnavailable) != full || (err == nil) == full {
			t.Errorf("proof %d: %v", i, err)
		}
	}
	if err := m.add("key", "0", 100, 50, room{3, 10}); !errors.Is(err, errSeen) {
		t.Errorf("a proof that was seen: %v, want errSeen", err)
	}
}

// TestReplayShares: a key that has used up its share is refused until its own oldest
// proof is forgotten. It pushes nobody's proofs out, and its own count once all the same.
func TestReplayShares(t *testing.T) {
	m := newReplay()
	limit := room{all: 100, perKey: 3}
	for i := range 3 {
		if err := m.add("greedy", fmt.Sprint(i), int64(100+10*i), 50, limit); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.add("modest", "mine", 100, 50, limit); err != nil {
		t.Errorf("another key: %v", err)
	}
	for range 1000 {
		err := m.add("greedy", "more", 130, 60, limit)
		tooMany := (*authn.TooManyError)(nil)
		if !errors.As(err, &tooMany) || errors.Is(err, authn.ErrInvalid) || errors.Is(err, authn.ErrUnavailable) {
			t.Fatalf("beyond the share: %v, want ErrTooMany", err)
		}
		if tooMany.Of != authn.Proofs || tooMany.RetryAfter != 41*time.Second || tooMany.Quota != 3 || tooMany.Window != 61*time.Second {
			t.Fatalf("told %+v", tooMany)
		}
	}
	for _, p := range []struct{ key, jti string }{{"greedy", "0"}, {"greedy", "2"}, {"modest", "mine"}} {
		if err := m.add(p.key, p.jti, 100, 60, limit); !errors.Is(err, errSeen) {
			t.Errorf("the proof %s of %s again: %v, want errSeen", p.jti, p.key, err)
		}
	}
	if err := m.add("greedy", "more", 130, 101, limit); err != nil {
		t.Errorf("once its oldest was forgotten: %v", err)
	}
	if err := m.add("greedy", "still more", 130, 101, limit); !errors.Is(err, authn.ErrTooMany) {
		t.Errorf("beyond the share again: %v, want ErrTooMany", err)
	}
	if _, kept := m.holders["modest"]; kept {
		t.Error("a key without proofs is remembered")
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
		"no share":        {ReplayEntriesPerKey: -1},
	} {
		if err := c.Validate(); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

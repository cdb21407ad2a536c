package replay

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
)

// adding returns what adds to m by the names of a key and what it uses.
func adding(m *memory) func(key, id string, made, oldest int64, room Room) error {
	return func(key, id string, made, oldest int64, room Room) error {
		u := Use{Key: key, ID: id, Made: made, Oldest: oldest}
		return m.add((&Config{}).identify(u), u, room)
	}
}

// TestWindows: a window that becomes longer does not make good again what a shorter one
// has forgotten.
func TestWindows(t *testing.T) {
	m := newMemory()
	all := adding(m)
	add := func(made, oldest int64) error { return all("key", "jti", made, oldest, Room{10, 10}) }
	if err := add(100, 50); err != nil {
		t.Fatal(err)
	}
	if err := add(100, 100); !errors.Is(err, ErrUsed) {
		t.Errorf("at its end: %v, want ErrUsed", err)
	}
	if err := all("other", "jti", 100, 100, Room{10, 10}); err != nil {
		t.Errorf("the same jti of another key: %v", err)
	}
	if err := add(200, 101); err != nil {
		t.Errorf("the jti in a later window: %v", err)
	}
	if err := add(100, 40); !errors.Is(err, ErrForgotten) {
		t.Errorf("after the window became longer: %v, want ErrForgotten", err)
	}
	if len(m.seen) != 1 || len(m.bySecond) != 1 || len(m.holders) != 1 {
		t.Errorf("%d uses of %d seconds and %d keys are kept, want 1 of each", len(m.seen), len(m.bySecond), len(m.holders))
	}
}

func TestBounded(t *testing.T) {
	add := adding(newMemory())
	for i := range 5 {
		err := add("key", fmt.Sprint(i), 100, 50, Room{All: 3})
		if full := i >= 3; errors.Is(err, ErrFull) != full || errors.Is(err, authn.ErrUnavailable) != full || (err == nil) == full {
			t.Errorf("use %d: %v", i, err)
		}
	}
	if err := add("key", "0", 100, 50, Room{All: 3}); !errors.Is(err, ErrUsed) {
		t.Errorf("what was used: %v, want ErrUsed", err)
	}
}

// TestShares: a key that has used up its share is refused until its own oldest use is
// forgotten. It pushes nobody's uses out, and its own count once all the same.
func TestShares(t *testing.T) {
	m := newMemory()
	add := adding(m)
	room := Room{All: 100, PerKey: 3}
	for i := range 3 {
		if err := add("greedy", fmt.Sprint(i), int64(100+10*i), 50, room); err != nil {
			t.Fatal(err)
		}
	}
	if err := add("modest", "mine", 100, 50, room); err != nil {
		t.Errorf("another key: %v", err)
	}
	for range 1000 {
		err := add("greedy", "more", 130, 60, room)
		tooMany := (*authn.TooManyError)(nil)
		if !errors.As(err, &tooMany) || errors.Is(err, authn.ErrInvalid) || errors.Is(err, authn.ErrUnavailable) {
			t.Fatalf("beyond the share: %v, want ErrTooMany", err)
		}
		if tooMany.Of != authn.Proofs || tooMany.RetryAfter != 41*time.Second || tooMany.Quota != 3 || tooMany.Window != 61*time.Second {
			t.Fatalf("told %+v", tooMany)
		}
	}
	for _, p := range []struct{ key, id string }{{"greedy", "0"}, {"greedy", "2"}, {"modest", "mine"}} {
		if err := add(p.key, p.id, 100, 60, room); !errors.Is(err, ErrUsed) {
			t.Errorf("use %s of %s again: %v, want ErrUsed", p.id, p.key, err)
		}
	}
	if err := add("greedy", "more", 130, 101, room); err != nil {
		t.Errorf("once its oldest was forgotten: %v", err)
	}
	if err := add("greedy", "still more", 130, 101, room); !errors.Is(err, authn.ErrTooMany) {
		t.Errorf("beyond the share again: %v, want ErrTooMany", err)
	}
	if _, kept := m.holders["modest"]; kept {
		t.Error("a key without uses is remembered")
	}
}

// TestIdentify: no two uses are one, wherever name, key and ID end.
func TestIdentify(t *testing.T) {
	seen := map[digest][3]string{}
	for _, parts := range [][3]string{{"a", "b", "c"}, {"ab", "", "c"}, {"", "ab", "c"}, {"a", "bc", ""}, {"", "", "abc"}, {"a", "b\x00c", ""}, {"a", "b", "\x00c"}} {
		id := (&Config{Name: parts[0]}).identify(Use{Key: parts[1], ID: parts[2]})
		if other, taken := seen[id]; taken {
			t.Errorf("%q is %q", parts, other)
		}
		seen[id] = parts
	}
}

package decisionlog

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func TestKeptRemembersWhatIsSeenTwice(t *testing.T) {
	var k kept[*int]
	key, text := new(int), []byte("text")
	for i, want := range []string{"", "", "text", "text"} {
		got := k.get(key)
		if string(got) != want {
			t.Errorf("look %d: %q, want %q", i, got, want)
		}
		if got == nil {
			k.put(key, text)
		}
	}
	text[0] = 'X'
	if got := k.get(key); string(got) != "text" {
		t.Errorf("it is not a copy: %q", got)
	}
	if got := k.get(new(int)); got != nil {
		t.Errorf("another pointer has %q", got)
	}
}

func TestKeptIsBounded(t *testing.T) {
	for _, size := range []int{1, 1000, keptBytes/16 - 1, keptBytes} {
		var k kept[*int]
		hot, text := new(int), bytes.Repeat([]byte("x"), size)
		for range 3 * keptEntries {
			for _, key := range []*int{hot, new(int)} {
				if k.get(key) == nil {
					k.put(key, text)
				}
			}
			if len(k.young) > keptEntries || len(k.old) > keptEntries || k.bytes > keptBytes {
				t.Fatalf("of size %d: %d and %d entries, %d bytes", size, len(k.young), len(k.old), k.bytes)
			}
		}
		if got, want := k.get(hot) != nil, size <= keptBytes/16; got != want {
			t.Errorf("what is used is kept at size %d: %v", size, got)
		}
	}
}

func TestNamesAreBoundedAndRight(t *testing.T) {
	m := newMasker(MaskConfig{})
	for i := range 3 * maxNames {
		name := fmt.Sprint("x-", i)
		if m.headers.class(name) != ordinary || m.headers.class(name+"-Token") != secret || m.headers.class(name) != ordinary {
			t.Fatalf("class of %s", name)
		}
		if m.headers.class("Location") != link || len(m.headers.known) > maxNames {
			t.Fatalf("%d names", len(m.headers.known))
		}
	}
	n := len(m.headers.known)
	if long := strings.Repeat("x", maxNameLen) + "token"; m.headers.class(long) != secret || len(m.headers.known) != n {
		t.Error("a long name is kept")
	}
}

// The tail reuses the memory of lines, but not of those that somebody has.
func TestTailCopies(t *testing.T) {
	tl := newTail(2)
	follower := tl.follow(t.Context())
	line := []byte("one")
	tl.add(line)
	recent := tl.recent(1)
	for range 3 {
		copy(line, "two")
		tl.add(line)
	}
	if got := <-follower; string(recent[0]) != "one" || string(got) != "one" {
		t.Errorf("recent %q, follower %q", recent[0], got)
	}
	tl.add(make([]byte, 1<<20))
	tl.add(line)
	tl.add(line)
	for _, slot := range tl.ring {
		if cap(slot) > 1<<19 {
			t.Errorf("a short line has the memory of a long one: %d", cap(slot))
		}
	}
}

package tokencache

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"
)

var now = time.Unix(1767322985, 0)

func TestLifetime(t *testing.T) {
	c := New[string](100, 1<<20)
	c.Put("token", "value", 10, now.Add(time.Minute))
	for _, tt := range []struct {
		token string
		at    time.Duration
		want  bool
	}{
		{"token", 0, true},
		{"token", time.Minute - 1, true},
		{"token", time.Minute, false},
		{"Token", 0, false},
		{"toke", 0, false},
		{"", 0, false},
	} {
		if v, ok := c.Get(tt.token, now.Add(tt.at)); ok != tt.want || (v == "value") != tt.want {
			t.Errorf("%q after %s: %q, %v", tt.token, tt.at, v, ok)
		}
	}
	c.Put("token", "next", 10, now.Add(time.Minute))
	if v, _ := c.Get("token", now); v != "next" {
		t.Errorf("the later value does not count: %q", v)
	}
	if n, _ := c.Len(); n != 1 {
		t.Errorf("%d entries, want 1", n)
	}
}

// TestTheWholeTokenCounts: a hash that two tokens share opens nothing.
func TestTheWholeTokenCounts(t *testing.T) {
	c := New[string](1, 1<<20)
	c.Put("mine", "value", 0, now.Add(time.Minute))
	s, h := c.find("theirs")
	s.entries[h] = s.ring[0] // as if the hashes were the same
	if v, ok := c.Get("theirs", now); ok {
		t.Errorf("another token got %q", v)
	}
}

func TestBounds(t *testing.T) {
	for _, tt := range []struct{ entries, bytes, size int }{
		{1, 1 << 20, 0}, {10, 1 << 20, 0}, {1000, 1 << 20, 100}, {1 << 20, 256 << 10, 1000}, {1 << 20, 256 << 10, 3000},
	} {
		c := New[int](tt.entries, tt.bytes)
		for i := range 5000 {
			c.Put(fmt.Sprint(i), i, tt.size, now.Add(time.Minute))
			c.Get(fmt.Sprint(i/2), now)
		}
		if n, b := c.Len(); n > tt.entries || n == 0 || b > tt.bytes || b < n*tt.size {
			t.Errorf("%+v: holds %d entries and %d bytes", tt, n, b)
		}
	}
	c := New[int](100, 64<<10)
	c.Put(strings.Repeat("x", 2000), 1, 0, now.Add(time.Minute))
	if n, b := c.Len(); n != 0 || b != 0 {
		t.Errorf("an entry larger than a shard is kept: %d entries, %d bytes", n, b)
	}
}

// TestUsedEntriesStay: what is looked up outlives what is not.
func TestUsedEntriesStay(t *testing.T) {
	c := New[int](640, 1<<20)
	c.Put("used", 1, 0, now.Add(time.Minute))
	for i := range 5000 {
		if _, ok := c.Get("used", now); !ok {
			t.Fatalf("the entry in use left after %d others", i)
		}
		c.Put(fmt.Sprint(i), i, 0, now.Add(time.Minute))
	}
}

// TestCopies: the token may be a part of a buffer that is used again.
func TestCopies(t *testing.T) {
	c := New[int](10, 1<<20)
	buffer := []byte("token")
	c.Put(unsafe.String(&buffer[0], len(buffer)), 1, 0, now.Add(time.Minute))
	buffer[0] = 'b'
	if _, ok := c.Get("token", now); !ok {
		t.Error("the key changed with the buffer")
	}
}

func TestConcurrent(t *testing.T) {
	c := New[int](50, 20<<10)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 2000 {
				key := fmt.Sprint((i * (g + 1)) % 150)
				if v, ok := c.Get(key, now); ok && fmt.Sprint(v) != key {
					t.Errorf("%s has the value %d", key, v)
				}
				c.Put(key, atoi(key), i%100, now.Add(time.Minute))
			}
		})
	}
	wg.Wait()
}

func atoi(s string) (n int) {
	_, _ = fmt.Sscan(s, &n)
	return n
}

func TestGetAllocatesNothing(t *testing.T) {
	c := New[*int](10, 1<<20)
	c.Put("token", new(int), 0, now.Add(time.Minute))
	if n := testing.AllocsPerRun(100, func() { c.Get("token", now) }); n != 0 {
		t.Errorf("a look-up allocates %v times", n)
	}
}

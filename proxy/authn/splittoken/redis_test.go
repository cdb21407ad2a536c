package splittoken

import (
	"errors"
	"testing"

	"github.com/sallyport/sallyport/proxy/redis/redistest"
)

// TestTLS: only the Redis that is meant says what stands under a hash, or that nothing
// does.
func TestTLS(t *testing.T) {
	ways, write := redistest.Ways(t)
	write("split:"+Hash("signature"), "header.payload")
	for _, w := range ways {
		c := Default()
		c.Redis, c.Timeout = &RedisConfig{Server: w.Server, Prefix: "split:"}, w.Timeout
		f, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		got, err := f.Join(t.Context(), "signature")
		_, unknown := f.Join(t.Context(), "another")
		switch {
		case w.Refused != nil && (err == nil || !w.Refused.MatchString(err.Error()) || errors.Is(unknown, ErrUnknown)):
			t.Errorf("%s: %q, %v; what is not there: %v; want %v", w.Name, got, err, unknown, w.Refused)
		case w.Refused == nil && (got != "header.payload.signature" || !errors.Is(unknown, ErrUnknown)):
			t.Errorf("%s: %q, %v; what is not there: %v", w.Name, got, err, unknown)
		}
		if f.Close(); w.Refused == nil {
			if _, err := f.Join(t.Context(), "signature"); err != nil {
				t.Errorf("a request that began before a reload: %v", err)
			}
		}
		if err := f.source.(*cache).client.Close(); err != nil {
			t.Error(err)
		}
	}
}

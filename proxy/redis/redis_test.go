package redis_test

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/redis"
	"github.com/sallyport/sallyport/proxy/redis/redistest"
)

func TestValidate(t *testing.T) {
	at := func(change func(*redis.Config)) *redis.Config {
		c := &redis.Config{Server: redis.Server{Address: "redis:6379"}}
		change(c)
		return c
	}
	for want, c := range map[string]*redis.Config{
		"":                              at(func(*redis.Config) {}),
		"address: \"redis\" is not":     at(func(c *redis.Config) { c.Address = "redis" }),
		"ca_file: is not used":          at(func(c *redis.Config) { c.CAFile = "f" }),
		"database: is negative":         at(func(c *redis.Config) { c.Database = -1 }),
		"timeout: 20ms is not between":  at(func(c *redis.Config) { c.Timeout = 20 * time.Millisecond }),
		"timeout: 11s is not between 5": at(func(c *redis.Config) { c.Timeout = 11 * time.Second }),
	} {
		if err := c.Validate(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	if err := (*redis.Config)(nil).Validate(); err != nil {
		t.Errorf("none: %v", err)
	}
	if c := (redis.Config{Prefix: "own:"}).Filled(); c.Prefix != "own:" || c.Timeout != time.Second {
		t.Errorf("filled: %+v", c)
	}
}

func open(t *testing.T, s redis.Server, timeout time.Duration) *redis.Client {
	t.Helper()
	c, err := redis.New(s, timeout)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestFilesThatCannotBeRead(t *testing.T) {
	for name, s := range map[string]redis.Server{
		"CA":       {Address: "redis:6379", TLS: true, CAFile: "/nonexistent"},
		"no CA":    {Address: "redis:6379", TLS: true, CAFile: "redis_test.go"},
		"password": {Address: "redis:6379", PasswordFile: "/nonexistent"},
	} {
		if _, err := redis.New(s, time.Second); err == nil {
			t.Errorf("%s: was taken", name)
		}
	}
}

// TestTLS: nothing is asked of a server that is not the one that is meant.
func TestTLS(t *testing.T) {
	ways, _ := redistest.Ways(t)
	for _, w := range ways {
		err := open(t, w.Server, w.Timeout).Ping(t.Context()).Err()
		if (err == nil) != (w.Refused == nil) || err != nil && !w.Refused.MatchString(err.Error()) {
			t.Errorf("%s: %v, want %v", w.Name, err, w.Refused)
		}
	}
}

// TestClaim: one claimant gets a key, and gets it again; after its time another may.
func TestClaim(t *testing.T) {
	s := redistest.Start(t, t.TempDir(), redistest.Open)
	a, b := open(t, redis.Server{Address: s.Address}, 5*time.Second), open(t, redis.Server{Address: s.Address}, 5*time.Second)
	for i, step := range []struct {
		c        *redis.Client
		claimant string
		want     bool
	}{{a, "a", true}, {b, "b", false}, {b, "a", true}, {a, "b", false}} {
		if got, err := step.c.Claim(t.Context(), "k", step.claimant, time.Minute); got != step.want || err != nil {
			t.Errorf("step %d: %v, %v", i, got, err)
		}
	}
	if left := a.PTTL(t.Context(), "k").Val(); left <= 0 || left > time.Minute {
		t.Errorf("the key ends in %s", left)
	}
	if ok, err := a.Claim(t.Context(), "short", "a", time.Millisecond); !ok || err != nil {
		t.Fatalf("short: %v, %v", ok, err)
	}
	for deadline := time.Now().Add(20 * time.Second); a.Exists(t.Context(), "short").Val() != 0; {
		if time.Now().After(deadline) {
			t.Fatal("the key does not end")
		}
	}
	if ok, err := b.Claim(t.Context(), "short", "b", time.Minute); !ok || err != nil {
		t.Errorf("after its time: %v, %v", ok, err)
	}
}

// TestClaimIsHeardOnce: who did not hear that a key is its own now hears it when it asks
// again by itself.
func TestClaimIsHeardOnce(t *testing.T) {
	s := redistest.Start(t, t.TempDir(), redistest.Open)
	way := s.Losing()
	c := open(t, redis.Server{Address: way.Address}, 5*time.Second)
	if err := c.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	way.Lose()
	if ok, err := c.Claim(t.Context(), "k", "a", time.Minute); !ok || err != nil {
		t.Errorf("its own: %v, %v", ok, err)
	}
	if n := s.Client().Exists(t.Context(), "k").Val(); n != 1 {
		t.Errorf("%d keys are there", n)
	}
	if ok, err := c.Claim(t.Context(), "k", "b", time.Minute); ok || err != nil {
		t.Errorf("another's: %v, %v", ok, err)
	}
}

// TestBounds: no question outlasts its context, whatever the server does.
func TestBounds(t *testing.T) {
	s := redistest.Start(t, t.TempDir(), redistest.Open)
	c := open(t, redis.Server{Address: s.Address}, time.Minute)
	if err := c.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	s.Signal(syscall.SIGSTOP)
	defer s.Signal(syscall.SIGCONT)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if ok, err := c.Claim(ctx, "k", "a", time.Minute); ok || err == nil {
		t.Errorf("while it hangs: %v, %v", ok, err)
	}
}

// TestReload: a new password is for new connections.
func TestReload(t *testing.T) {
	s := redistest.Start(t, t.TempDir(), redistest.ByPassword)
	password := s.File("password", "wrong\n")
	c := open(t, redis.Server{Address: s.Address, PasswordFile: password}, 5*time.Second)
	if files := c.Files(); len(files) != 1 || files[0] != password {
		t.Errorf("files %q", files)
	}
	if err := c.Ping(t.Context()).Err(); err == nil {
		t.Fatal("a wrong password is taken")
	}
	s.File("password", redistest.Password+"\n")
	if err := c.Reload(); err != nil {
		t.Fatal(err)
	}
	if err := c.Ping(t.Context()).Err(); err != nil {
		t.Errorf("after a reload: %v", err)
	}
	c.Retire()
	if err := c.Ping(t.Context()).Err(); err != nil {
		t.Errorf("a request that began before: %v", err)
	}
}

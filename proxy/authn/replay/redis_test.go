package replay

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/redis"
	"github.com/sallyport/sallyport/proxy/redis/redistest"
)

const now = 1_800_000_000 // Unix time

// patience is for a machine that is busy with other things.
const patience = 20 * time.Second

// replica is the memory of one process.
func replica(t *testing.T, s redis.Server, change func(*Config)) *Memory {
	t.Helper()
	c := Config{Kind: "dpop", Name: "corp", Room: Room{All: 100}, Redis: &redis.Config{Server: s, Timeout: 5 * time.Second}}
	if change != nil {
		change(&c)
	}
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.redis.Close() })
	return m
}

func use(key, id string) Use { return Use{Key: key, ID: id, Made: now, Oldest: now - 90} }

func TestReplicasTellEachOther(t *testing.T) {
	server := redistest.Start(t, t.TempDir(), redistest.Open)
	at := redis.Server{Address: server.Address}
	a, b := replica(t, at, nil), replica(t, at, nil)
	for i, step := range []struct {
		m    *Memory
		use  Use
		want error
	}{
		{a, use("key", "one"), nil},
		{b, use("key", "one"), ErrUsed},
		{a, use("key", "one"), ErrUsed},
		{b, use("key", "one"), ErrUsed},
		{b, use("key", "two"), nil},
		{a, use("key", "two"), ErrUsed},
		{a, use("other", "two"), nil},
		{replica(t, at, func(c *Config) { c.Name = "opaque" }), use("key", "one"), nil},
		{replica(t, at, func(c *Config) { c.Kind = "nonce" }), use("key", "one"), nil},
		{replica(t, at, func(c *Config) { c.Redis.Prefix = "own:" }), use("key", "one"), nil},
		{replica(t, at, nil), use("key", "one"), ErrUsed}, // also after a restart
	} {
		if err := step.m.Use(t.Context(), step.use); !errors.Is(err, step.want) || step.want != nil && errors.Is(err, authn.ErrUnavailable) {
			t.Errorf("step %d: %v, want %v", i, err, step.want)
		}
	}
	// Whoever reads Redis finds nothing that stands in a request.
	c := server.Client()
	keys, err := c.Keys(t.Context(), "*").Result()
	if err != nil || len(keys) != 6 {
		t.Fatalf("keys %q, %v", keys, err)
	}
	for _, key := range keys {
		if text := key + c.Get(t.Context(), key).Val(); strings.Contains(text, "one") || strings.Contains(text, "corp") {
			t.Errorf("%s shows what was used", text)
		}
		if !strings.HasPrefix(key, "sallyport:dpop:") && !strings.HasPrefix(key, "sallyport:nonce:") && !strings.HasPrefix(key, "own:dpop:") {
			t.Errorf("key %s", key)
		}
		// 90 s old ones count, this second is one more, and clocks differ.
		if left := c.PTTL(t.Context(), key).Val(); left <= 91*time.Second || left > 91*time.Second+skew {
			t.Errorf("%s ends in %s", key, left)
		}
	}
}

// TestTogether: where one of several counted before, none counts now, and the others may
// come again, at the replica that was asked about them.
func TestTogether(t *testing.T) {
	server := redistest.Start(t, t.TempDir(), redistest.Open)
	a, b := replica(t, redis.Server{Address: server.Address}, nil), replica(t, redis.Server{Address: server.Address}, nil)
	if err := a.Use(t.Context(), use("key", "one"), use("key", "two")); err != nil {
		t.Fatal(err)
	}
	if err := b.Use(t.Context(), use("key", "three"), use("key", "two"), use("key", "four")); !errors.Is(err, ErrUsed) {
		t.Errorf("with one that was used: %v, want ErrUsed", err)
	}
	if err := b.Use(t.Context(), use("key", "three"), use("key", "four")); err != nil {
		t.Errorf("without it: %v", err)
	}
	for _, id := range []string{"one", "two", "three", "four"} {
		if err := a.Use(t.Context(), use("key", id)); !errors.Is(err, ErrUsed) {
			t.Errorf("%s again: %v, want ErrUsed", id, err)
		}
	}
}

// TestOneOfMany: however many replicas and requests there are, a use counts once.
func TestOneOfMany(t *testing.T) {
	server := redistest.Start(t, t.TempDir(), redistest.Open)
	replicas := make([]*Memory, 3)
	for i := range replicas {
		replicas[i] = replica(t, redis.Server{Address: server.Address}, func(c *Config) { c.Redis.Timeout = 10 * time.Second })
	}
	for round := range 10 {
		var counted atomic.Int64
		var all sync.WaitGroup
		for i := range 30 {
			all.Go(func() {
				switch err := replicas[i%3].Use(t.Context(), use("key", fmt.Sprint(round))); {
				case err == nil:
					counted.Add(1)
				case !errors.Is(err, ErrUsed):
					t.Error(err)
				}
			})
		}
		if all.Wait(); counted.Load() != 1 {
			t.Errorf("round %d: counted %d times", round, counted.Load())
		}
	}
}

// TestRedisGoesAndComesBack: nothing counts while Redis is away, nothing is taken for a
// replay because of it, and what counted before still did.
func TestRedisGoesAndComesBack(t *testing.T) {
	server := redistest.Start(t, t.TempDir(), redistest.Open)
	a := replica(t, redis.Server{Address: server.Address}, func(c *Config) { c.Room = Room{All: 3, PerKey: 2} })
	b := replica(t, redis.Server{Address: server.Address}, nil)
	if err := a.Use(t.Context(), use("key", "before")); err != nil {
		t.Fatal(err)
	}
	server.Kill()
	for i := range 10 { // more than there is room for, if any stayed
		err := a.Use(t.Context(), use("key", fmt.Sprint("during", i)))
		if !errors.Is(err, ErrUnreachable) || !errors.Is(err, authn.ErrUnavailable) || errors.Is(err, ErrUsed) || !strings.Contains(err.Error(), server.Address) {
			t.Errorf("without Redis: %v, want ErrUnreachable", err)
		}
	}
	if err := a.Use(t.Context(), use("key", "before")); !errors.Is(err, ErrUsed) {
		t.Errorf("what the process saw itself: %v, want ErrUsed", err)
	}
	server.Restart()
	if err := redistest.Retry(func() error { return a.Use(t.Context(), use("key", "during0")) }, ErrUnreachable); err != nil {
		t.Errorf("after it came back: %v", err)
	}
	for _, id := range []string{"before", "during0"} {
		if err := redistest.Retry(func() error { return b.Use(t.Context(), use("key", id)) }, ErrUnreachable); !errors.Is(err, ErrUsed) {
			t.Errorf("%s at the other: %v, want ErrUsed", id, err)
		}
	}
}

// TestAnswerIsLost: Redis takes a claim and its answer comes too late. That was no use, so
// the same may come again where it came first, and nowhere else.
func TestAnswerIsLost(t *testing.T) {
	server := redistest.Start(t, t.TempDir(), redistest.Open)
	at := redis.Server{Address: server.Address}
	a, b := replica(t, at, func(c *Config) { c.Redis.Timeout = 200 * time.Millisecond }), replica(t, at, nil)
	if err := redistest.Retry(func() error { return a.Use(t.Context(), use("key", "first")) }, ErrUnreachable); err != nil {
		t.Fatal(err)
	}
	server.Signal(syscall.SIGSTOP)
	defer server.Signal(syscall.SIGCONT)
	if err := a.Use(t.Context(), use("key", "lost")); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("while it hangs: %v, want ErrUnreachable", err)
	}
	server.Signal(syscall.SIGCONT)
	// It reads what was sent before the connection ended.
	c := server.Client()
	for deadline := time.Now().Add(patience); c.DBSize(t.Context()).Val() != 2; {
		if time.Now().After(deadline) {
			t.Fatal("Redis did not take the claim")
		}
	}
	if err := b.Use(t.Context(), use("key", "lost")); !errors.Is(err, ErrUsed) {
		t.Errorf("at the other: %v, want ErrUsed", err)
	}
	if err := redistest.Retry(func() error { return a.Use(t.Context(), use("key", "lost")) }, ErrUnreachable); err != nil {
		t.Errorf("where it came first: %v", err)
	}
	if err := a.Use(t.Context(), use("key", "lost")); !errors.Is(err, ErrUsed) {
		t.Errorf("and again: %v, want ErrUsed", err)
	}
}

// TestAnswerIsLostOnTheWay: the connection ends before the answer, the question is asked
// again at once, and the use counts, once.
func TestAnswerIsLostOnTheWay(t *testing.T) {
	way := redistest.Start(t, t.TempDir(), redistest.Open).Losing()
	a, b := replica(t, redis.Server{Address: way.Address}, nil), replica(t, redis.Server{Address: way.Address}, nil)
	if err := a.Use(t.Context(), use("key", "first")); err != nil {
		t.Fatal(err)
	}
	way.Lose()
	if err := a.Use(t.Context(), use("key", "lost")); err != nil {
		t.Errorf("got %v", err)
	}
	for name, m := range map[string]*Memory{"there": a, "at the other": b} {
		if err := m.Use(t.Context(), use("key", "lost")); !errors.Is(err, ErrUsed) {
			t.Errorf("again %s: %v, want ErrUsed", name, err)
		}
	}
}

// TestRedisIsFull: what Redis does not take is not used.
func TestRedisIsFull(t *testing.T) {
	server := redistest.Start(t, t.TempDir(), redistest.Open+"maxmemory 1\nmaxmemory-policy noeviction\n")
	a := replica(t, redis.Server{Address: server.Address}, nil)
	if err := a.Use(t.Context(), use("key", "one")); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "OOM") {
		t.Errorf("got %v, want ErrUnreachable because of OOM", err)
	}
}

// TestReload: the next configuration's memory has what this one's has, in Redis or not.
func TestReload(t *testing.T) {
	server := redistest.Start(t, t.TempDir(), redistest.ByPassword)
	at := redis.Server{Address: server.Address, PasswordFile: server.File("password", redistest.Password+"\n")}
	without, err := New(Config{Kind: "dpop", Name: "corp", Room: Room{All: 100}})
	if err != nil {
		t.Fatal(err)
	}
	if err := without.Use(t.Context(), use("key", "one")); err != nil {
		t.Fatal(err)
	}
	if without.Files() != nil || without.Reload() != nil {
		t.Error("a memory without Redis has files")
	}
	next := replica(t, at, nil)
	next.Inherit(without)
	if files := next.Files(); len(files) != 1 || files[0] != at.PasswordFile {
		t.Errorf("files %q", files)
	}
	if err := next.Use(t.Context(), use("key", "one")); !errors.Is(err, ErrUsed) {
		t.Errorf("used before the reload: %v, want ErrUsed", err)
	}
	if err := next.Use(t.Context(), use("key", "two")); err != nil {
		t.Error(err)
	}
	next.Close()
	if err := next.Use(t.Context(), use("key", "three")); err != nil {
		t.Errorf("a request that began before a reload: %v", err)
	}
	if err := os.Remove(at.PasswordFile); err != nil {
		t.Fatal(err)
	}
	if err := next.Reload(); err == nil {
		t.Error("a password that is not there was read")
	}
}

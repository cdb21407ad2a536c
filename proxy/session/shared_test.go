package session

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
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

// server is a real Redis that replicas of a test share.
type server struct {
	*redistest.Server
	t *testing.T
}

func newServer(t *testing.T) *server {
	t.Helper()
	return &server{redistest.Start(t, t.TempDir(), redistest.ByPassword), t}
}

// replica is the store of one gateway.
func (s *server) replica(name string) *Shared {
	s.t.Helper()
	c := Default()
	c.KeysFiles = []string{s.File("key", strings.Repeat("5e", 32))}
	c.Redis = &redis.Config{Server: redis.Server{Address: s.Address, PasswordFile: s.File("password", redistest.Password+"\n")}}
	if err := c.Validate(); err != nil {
		s.t.Fatal(err)
	}
	keys, err := NewKeys(c.KeysFiles)
	if err != nil {
		s.t.Fatal(err)
	}
	store, err := NewShared(name, c, keys, Deps{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = store.Close() })
	return store
}

func TestReplicasShareSessions(t *testing.T) {
	redis := newServer(t)
	a, b := redis.replica("login"), redis.replica("login")
	now := time.Now()
	v := someone(9000)
	j := logIn(t, a, v, now)
	if len(j) != 1 || len(j["__Host-sallyport-login"]) > 64 {
		t.Errorf("the cookie has more than an identifier: %v", j)
	}
	for name, store := range map[string]Store{"the one": a, "the other": b} {
		got, err := load(t, store, j, now)
		if err != nil || got.Subject != "alice" || got.RefreshToken != "rt1" || got.ID != v.ID {
			t.Fatalf("%s: %+v, %v", name, got, err)
		}
	}
	// Whoever reads Redis finds neither the identifier nor a token.
	c := redis.Client()
	defer c.Close()
	keys, err := c.Keys(t.Context(), "*").Result()
	if err != nil || len(keys) != 3 {
		t.Fatalf("keys %v, %v", keys, err)
	}
	for _, key := range keys {
		text, _ := c.Get(t.Context(), key).Result() // indexes are no strings
		for _, secret := range []string{v.ID, "alice", "at1", "rt1"} {
			if strings.Contains(key+text, secret) {
				t.Errorf("%s shows %q", key, secret)
			}
		}
		if ttl := c.PTTL(t.Context(), key).Val(); ttl <= 0 || ttl > 13*time.Hour {
			t.Errorf("%s ends in %s", key, ttl)
		}
	}
	// A session that was put in the place of another is none.
	other := logIn(t, a, someone(0), now)
	theirs, mine := a.key(other["__Host-sallyport-login"][2:]), a.key(v.ID)
	if err := c.Copy(t.Context(), theirs, mine, 0, true).Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := load(t, a, j, now); !errors.Is(err, ErrNone) {
		t.Errorf("a session in another one's place: %v", err)
	}
	for name, jar := range map[string]jar{
		"nothing": {}, "unknown": {"__Host-sallyport-login": "1." + NewID()}, "long": {"__Host-sallyport-login": "1." + strings.Repeat("x", 3000)},
		"another authenticator's": {"__Host-sallyport-other": other["__Host-sallyport-login"]},
	} {
		if _, err := load(t, a, jar, now); !errors.Is(err, ErrNone) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := load(t, redis.replica("other"), jar{"__Host-sallyport-other": other["__Host-sallyport-login"]}, now); !errors.Is(err, ErrNone) {
		t.Errorf("under another authenticator: %v", err)
	}
	if _, err := load(t, a, other, now.Add(2*time.Hour)); !errors.Is(err, ErrNone) {
		t.Errorf("idle: %v", err)
	}
}

func TestReplicasEndSessions(t *testing.T) {
	redis := newServer(t)
	a, b := redis.replica("login"), redis.replica("login")
	now := time.Now()
	for name, end := range map[string]func(j jar, v *Session) error{
		"logout":     func(j jar, v *Session) error { return b.End(t.Context(), j.visit(now), v) },
		"new login":  func(j jar, _ *Session) error { return b.Create(t.Context(), j.visit(now), someone(0)) },
		"by sid":     func(jar, *Session) error { return b.Revoke(t.Context(), "https://idp.example", "s1", "alice") },
		"by subject": func(jar, *Session) error { return b.Revoke(t.Context(), "https://idp.example", "", "alice") },
		"front":      func(jar, *Session) error { return b.RevokeKnown(t.Context(), "https://idp.example", "s1") },
		"refused": func(j jar, v *Session) error {
			if _, err := b.Renew(t.Context(), j.visit(now), v, func(context.Context, *Session) (*Session, error) { return nil, ErrNone }); !errors.Is(err, ErrNone) {
				return errors.New("the renewal was not refused")
			}
			return nil
		},
	} {
		j := logIn(t, a, someone(0), now)
		v, err := load(t, a, j, now)
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{
			b.Revoke(t.Context(), "https://idp.example", "s2", "alice"), b.Revoke(t.Context(), "https://idp.example", "", "bob"),
			b.Revoke(t.Context(), "https://other.example", "s1", "alice"),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if _, err := load(t, a, j, now); err != nil {
			t.Errorf("%s: others' sessions ended, and this one too: %v", name, err)
		}
		if err := end(j, v); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := load(t, a, j, now); !errors.Is(err, ErrNone) {
			t.Errorf("%s: the session goes on elsewhere: %v", name, err)
		}
		// Noting its use and renewing it do not bring it back.
		late := v.Copy()
		late.Used = now.Add(-30 * time.Minute).UnixMilli()
		late.sealed = v.sealed
		if err := a.Touch(t.Context(), j.visit(now), late); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Renew(t.Context(), j.visit(now), v, func(_ context.Context, s *Session) (*Session, error) { return s.Copy(), nil }); !errors.Is(err, ErrNone) {
			t.Errorf("%s: it was renewed: %v", name, err)
		}
		if _, err := load(t, a, j, now); !errors.Is(err, ErrNone) {
			t.Errorf("%s: the session is back: %v", name, err)
		}
	}
	for i, want := range []bool{true, false} {
		if got, err := b.Seen(t.Context(), "jti", now); got == want || err != nil {
			t.Errorf("seen, before replica %d: %v %v", i, got, err)
		}
		if got, err := []*Shared{a, b}[i].Once(t.Context(), "jti", now, time.Minute); got != want || err != nil {
			t.Errorf("once, by replica %d: %v %v", i, got, err)
		}
	}
}

// TestEndedSessionsAreHandedOut: whoever wants to know gets what was in the sessions that
// ended, each once and no others.
func TestEndedSessionsAreHandedOut(t *testing.T) {
	redis := newServer(t)
	a, b := redis.replica("login"), redis.replica("login")
	var got []string
	b.told = func(_ context.Context, all []*Session) {
		for _, v := range all {
			got = append(got, v.RefreshToken)
		}
		slices.Sort(got)
	}
	now := time.Now()
	in := func(sid, subject, refresh string) (jar, *Session) {
		t.Helper()
		v := someone(0)
		v.SID, v.Subject, v.RefreshToken = sid, subject, refresh
		return logIn(t, a, v, now), v
	}
	in("s1", "alice", "rt-1")
	in("s1", "alice", "rt-2")
	in("s2", "alice", "rt-3")
	in("s3", "bob", "rt-4")
	gone, v := in("s1", "alice", "rt-5")
	if err := a.End(t.Context(), gone.visit(now), v); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ sid, subject, want string }{
		{"s9", "", ""}, {"s1", "alice", "rt-1 rt-2"}, {"s1", "alice", ""}, {"", "alice", "rt-3"}, {"", "alice", ""}, {"s3", "", "rt-4"}, {"", "bob", ""},
	} {
		got = nil
		if err := b.Revoke(t.Context(), "https://idp.example", row.sid, row.subject); err != nil {
			t.Fatal(err)
		}
		if text := strings.Join(got, " "); text != row.want {
			t.Errorf("revoked sid %q, subject %q: handed out are %q, want %q", row.sid, row.subject, text, row.want)
		}
	}
	// What nobody here sealed is deleted and handed to nobody.
	strange, v := in("s4", "carol", "rt-6")
	if err := a.redis.Set(t.Context(), a.key(v.ID), "garbage", time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	got = nil
	if err := b.RevokeKnown(t.Context(), "https://idp.example", "s4"); err != nil || got != nil {
		t.Errorf("handed out are %v; %v", got, err)
	}
	if n, err := a.redis.Exists(t.Context(), a.key(v.ID)).Result(); n != 0 || err != nil {
		t.Errorf("it is still there: %d %v", n, err)
	}
	if _, err := load(t, a, strange, now); !errors.Is(err, ErrNone) {
		t.Errorf("got %v", err)
	}
}

// TestReplicasRenewOnce: the refresh token is good once.
func TestReplicasRenewOnce(t *testing.T) {
	redis := newServer(t)
	replicas := []*Shared{redis.replica("login"), redis.replica("login"), redis.replica("login")}
	now := time.Now()
	j := logIn(t, replicas[0], someone(0), now)
	var asked atomic.Int64
	renew := func(_ context.Context, s *Session) (*Session, error) {
		asked.Add(1)
		next := s.Copy()
		next.AccessToken, next.RefreshToken = "at2", "rt2"
		return next, nil
	}
	var loaded, done sync.WaitGroup
	loaded.Add(24)
	for i := range 24 {
		done.Go(func() {
			store, r := replicas[i%3], j.visit(now)
			s, err := store.Load(t.Context(), r)
			loaded.Done()
			loaded.Wait() // all have the old one
			if err == nil {
				s, err = store.Renew(t.Context(), r, s, renew)
			}
			if err != nil || s.AccessToken != "at2" {
				t.Errorf("got %+v, %v", s, err)
			}
		})
	}
	done.Wait()
	if asked.Load() != 1 {
		t.Errorf("renewed %d times", asked.Load())
	}
	s, err := load(t, replicas[1], j, now)
	if err != nil || s.RefreshToken != "rt2" {
		t.Fatalf("got %+v, %v", s, err)
	}
	// Noting the use of what was there before does not undo the renewal.
	old := someone(0)
	old.ID, old.Created, old.Used, old.sealed = s.ID, s.Created, now.Add(-30*time.Minute).UnixMilli(), "what was there before"
	if err := replicas[2].Touch(t.Context(), j.visit(now), old); err != nil {
		t.Fatal(err)
	}
	if s, err = load(t, replicas[0], j, now); err != nil || s.RefreshToken != "rt2" {
		t.Errorf("got %+v, %v", s, err)
	}
}

// TestRedisGoesAndComesBack: closed for those who have a session, and only them.
func TestRedisGoesAndComesBack(t *testing.T) {
	redis := newServer(t)
	a := redis.replica("login")
	now := time.Now()
	j := logIn(t, a, someone(0), now)
	v, err := load(t, a, j, now)
	if err != nil {
		t.Fatal(err)
	}
	asks := func(name string) {
		for what, do := range map[string]func() error{
			"load":   func() error { _, err := load(t, a, j, now); return err },
			"create": func() error { return a.Create(t.Context(), jar{}.visit(now), someone(0)) },
			"end":    func() error { return a.End(t.Context(), j.visit(now), v) },
			"revoke": func() error { return a.Revoke(t.Context(), "https://idp.example", "s1", "") },
			"once":   func() error { _, err := a.Once(t.Context(), "x", now, time.Minute); return err },
			"seen":   func() error { _, err := a.Seen(t.Context(), "x", now); return err },
			"touch":  func() error { return a.Touch(t.Context(), j.visit(now.Add(30*time.Minute)), v) },
			"renew": func() error {
				_, err := a.Renew(t.Context(), j.visit(now), v, func(_ context.Context, s *Session) (*Session, error) { return s.Copy(), nil })
				return err
			},
		} {
			if err := do(); !errors.Is(err, authn.ErrUnavailable) || !errors.Is(err, ErrUnreachable) || errors.Is(err, ErrNone) {
				t.Errorf("%s, %s: got %v, want ErrUnreachable", name, what, err)
			}
		}
	}
	redis.Kill()
	asks("killed")
	redis.Restart()
	if err := redistest.Retry(func() error { _, err := load(t, a, j, now); return err }, ErrUnreachable); err != nil {
		t.Errorf("after Redis came back: %v", err)
	}
}

// TestRedisHangs: each question ends while Redis takes connections and answers none.
func TestRedisHangs(t *testing.T) {
	redis := newServer(t)
	a := redis.replica("login")
	a.config.Timeout = 200 * time.Millisecond // beside the second that the connections have
	now := time.Now()
	j := logIn(t, a, someone(0), now)
	v, err := load(t, a, j, now)
	if err != nil {
		t.Fatal(err)
	}
	redis.Signal(syscall.SIGSTOP)
	defer redis.Signal(syscall.SIGCONT)
	var all sync.WaitGroup
	for range 30 { // more than there are connections
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if _, err := a.Load(ctx, j.visit(now)); !errors.Is(err, ErrUnreachable) || ctx.Err() != nil {
				t.Errorf("got %v, want ErrUnreachable", err)
			}
		})
	}
	all.Wait()
	_, err = a.Renew(t.Context(), j.visit(now), v, func(_ context.Context, s *Session) (*Session, error) {
		t.Error("renewed without the lock")
		return s, nil
	})
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("renewal: %v, want ErrUnreachable", err)
	}
	redis.Signal(syscall.SIGCONT)
	if err := redistest.Retry(func() error { _, err := load(t, a, j, now); return err }, ErrUnreachable); err != nil {
		t.Errorf("after Redis went on: %v", err)
	}
}

// TestRenewalOutlivesRedis: the provider has spent the refresh token that Redis has,
// and Redis is away when it is to take the new one.
func TestRenewalOutlivesRedis(t *testing.T) {
	redis := newServer(t)
	a, b := redis.replica("login"), redis.replica("login")
	now := time.Now()
	a.flights.now, b.flights.now = func() time.Time { return now }, func() time.Time { return now } // nothing that is remembered ends
	j := logIn(t, a, someone(0), now)
	v, err := load(t, a, j, now)
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.Renew(t.Context(), j.visit(now), v, func(_ context.Context, s *Session) (*Session, error) {
		next := s.Copy()
		next.AccessToken, next.RefreshToken = "at2", "rt2"
		redis.Kill()
		return next, nil
	})
	if !errors.Is(err, ErrUnreachable) {
		t.Fatalf("got %v, want ErrUnreachable", err)
	}
	redis.Restart()
	for name, store := range map[string]*Shared{"who renewed it": a, "the other": b} {
		var got *Session
		err := redistest.Retry(func() (err error) {
			got, err = store.Renew(t.Context(), j.visit(now), v, func(context.Context, *Session) (*Session, error) {
				t.Errorf("%s: a refresh token is used twice", name)
				return nil, ErrNone
			})
			return err
		}, ErrUnreachable)
		if err != nil || got.RefreshToken != "rt2" {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

// TestReplicaDiesRenewing: nobody lets go of its lock, and whoever waited for that has
// the whole time for the renewal.
func TestReplicaDiesRenewing(t *testing.T) {
	redis := newServer(t)
	b := redis.replica("login")
	now := time.Now()
	v := someone(0)
	j := logIn(t, b, v, now)
	c := redis.Client()
	defer c.Close()
	if err := c.Set(t.Context(), b.prefix+"lock:"+hashed(v.ID), "the dead one's", 300*time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	next, err := b.Renew(t.Context(), j.visit(now), v, func(ctx context.Context, s *Session) (*Session, error) {
		if ends, ok := ctx.Deadline(); !ok || time.Until(ends) <= lockWait {
			t.Errorf("the renewal has to end at %v", ends)
		}
		next := s.Copy()
		next.AccessToken, next.RefreshToken = "at2", "rt2"
		return next, nil
	})
	if err != nil || next.RefreshToken != "rt2" {
		t.Errorf("got %+v, %v", next, err)
	}
	if lockWait <= lockLife {
		t.Errorf("a lock that is nobody's lasts %s, and others wait for %s", lockLife, lockWait)
	}
}

// TestLongRenewal takes longer than the lock lasts by itself.
func TestLongRenewal(t *testing.T) {
	redis := newServer(t)
	a, b := redis.replica("login"), redis.replica("login")
	a.turns.life, b.turns.wait = time.Second, 2*time.Second
	now := time.Now()
	v := someone(0)
	j := logIn(t, a, v, now)
	c := redis.Client()
	defer c.Close()
	other := func() error {
		_, err := b.Renew(t.Context(), j.visit(now), v, func(context.Context, *Session) (*Session, error) {
			t.Error("two replicas renew one session")
			return nil, ErrNone
		})
		return err
	}
	_, err := a.Renew(t.Context(), j.visit(now), v, func(ctx context.Context, s *Session) (*Session, error) {
		if err := other(); !errors.Is(err, authn.ErrUnavailable) || errors.Is(err, ErrUnreachable) {
			t.Errorf("the other one: %v, want ErrUnavailable, and not because of Redis", err)
		}
		lock := a.prefix + "lock:" + hashed(v.ID)
		if n, err := c.Del(ctx, lock).Result(); n != 1 || err != nil { // as if Redis had been away for long
			t.Errorf("ended %d locks, %v", n, err)
		}
		for deadline := time.Now().Add(20 * time.Second); c.Exists(ctx, lock).Val() == 0; {
			if time.Now().After(deadline) {
				return nil, errors.New("the lock was not taken again")
			}
		}
		return s.Copy(), nil
	})
	if err != nil {
		t.Error(err)
	}
	if n := c.Exists(t.Context(), a.prefix+"lock:"+hashed(v.ID)).Val(); n != 0 {
		t.Error("the lock is still held after the renewal")
	}
}

func TestRedisConfig(t *testing.T) {
	good := Default()
	good.KeysFiles, good.Redis = []string{"k"}, &redis.Config{Server: redis.Server{Address: "redis:6379"}}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Config){
		"keys_files: is missing": func(c *Config) { c.KeysFiles = nil },
		"redis.address":          func(c *Config) { c.Redis = &redis.Config{Server: redis.Server{Address: "redis"}} },
		"redis.timeout: 20ms is": func(c *Config) {
			c.Redis = &redis.Config{Server: good.Redis.Server, Timeout: 20 * time.Millisecond}
		},
	} {
		c := good
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

// TestOnceWithoutAnAnswer: what Redis noted and could not say is not taken for used.
func TestOnceWithoutAnAnswer(t *testing.T) {
	redis := newServer(t)
	way := redis.Losing()
	redis.Address = way.Address
	a := redis.replica("login")
	now := time.Now()
	if fresh, err := a.Once(t.Context(), "one", now, time.Minute); !fresh || err != nil {
		t.Fatalf("one: %v, %v", fresh, err)
	}
	way.Lose()
	for i, want := range []bool{true, false} {
		if fresh, err := a.Once(t.Context(), "two", now, time.Minute); fresh != want || err != nil {
			t.Errorf("time %d: %v, %v, want %v", i, fresh, err, want)
		}
	}
}

// TestSharedOverTLS: sessions are asked of the Redis that is meant and of no other.
func TestSharedOverTLS(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(strings.Repeat("5e", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := NewKeys([]string{key})
	if err != nil {
		t.Fatal(err)
	}
	ways, _ := redistest.Ways(t)
	now := time.Now()
	for _, w := range ways {
		c := Default()
		c.Redis = &redis.Config{Server: w.Server, Timeout: w.Timeout}
		a, err := NewShared("login", c, keys, Deps{})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		j := jar{}
		err = a.Create(t.Context(), j.visit(now), someone(0))
		if w.Refused != nil {
			if !errors.Is(err, ErrUnreachable) || !w.Refused.MatchString(err.Error()) {
				t.Errorf("%s: %v, want %v", w.Name, err, w.Refused)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", w.Name, err)
		}
		if v, err := load(t, a, logIn(t, a, someone(0), now), now); err != nil || v.Subject != "alice" {
			t.Errorf("%s: %+v, %v", w.Name, v, err)
		}
	}
}

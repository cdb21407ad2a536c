package session

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/bsm/redislock"
	goredis "github.com/redis/go-redis/v9"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/redis"
)

// ErrUnreachable is Redis not answering, or not in time. It is authn.ErrUnavailable too.
var ErrUnreachable = errors.New("session store cannot be reached")

// Shared is a Store that keeps sessions in Redis, sealed there too. The browser has a
// random identifier, of which Redis knows only the hash: whoever reads Redis can
// neither read a session nor present one.
type Shared struct {
	name    string
	prefix  string
	keys    *Keys
	cookies *Cookies
	limits  limits
	now     func() time.Time
	flights *flights
	opened  *opened
	redis   *redis.Client
	locks   *redislock.Client
	config  redis.Config
	told    func(context.Context, []*Session) // of those that ended
	turns   turns
	kept    sync.WaitGroup // renewals that are offered to Redis again
}

// NewShared makes the store of the authenticator called name. It reads files and
// connects to nothing.
func NewShared(name string, c Config, keys *Keys, deps Deps) (*Shared, error) {
	deps = deps.filled()
	s := &Shared{
		name: name, keys: keys, cookies: NewCookies(name, c.CookieDomain), limits: c.limits(), now: deps.Now,
		flights: newFlights(deps.Now), opened: newOpened(), config: c.Redis.Filled(), told: deps.Ended,
		turns: turns{life: lockLife, wait: lockWait, keep: keepWithin},
	}
	s.prefix = s.config.Prefix + cookieName(name) + ":"
	var err error
	if s.redis, err = redis.New(s.config.Server, s.config.Timeout); err != nil {
		return nil, err
	}
	s.locks = redislock.New(s.redis)
	return s, nil
}

// Files returns the files that Reload reads.
func (s *Shared) Files() []string { return s.redis.Files() }

// Reload reads the password again, for connections that are made from then on.
func (s *Shared) Reload() error { return s.redis.Reload() }

// Retire closes the store when requests that began before a reload need it no more.
func (s *Shared) Retire() { time.AfterFunc(redis.Retirement, func() { _ = s.Close() }) }

// Close ends the connections. Requests that come later are answered with 503.
func (s *Shared) Close() error {
	err := s.redis.Close()
	s.kept.Wait() // what is offered again ends with the connections
	return err
}

// within bounds what a request waits for Redis, a second try included.
func (s *Shared) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.config.Timeout)
}

func hashed(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:])
}

func (s *Shared) key(id string) string { return s.prefix + "session:" + hashed(id) }

// indexes are the sets in which a session stands for those who end it from outside.
func (s *Shared) indexes(issuer, sid, subject string) (out []string) {
	if sid != "" {
		out = append(out, s.prefix+"sid:"+hashed(issuer+"\x00"+sid))
	}
	if subject != "" {
		out = append(out, s.prefix+"sub:"+hashed(issuer+"\x00"+subject))
	}
	return out
}

// unavailable hides what the client of Redis says in the class that closes.
func unavailable(doing string, err error) error {
	return fmt.Errorf("%w: %s: %w: %w", authn.ErrUnavailable, doing, ErrUnreachable, err)
}

// Load implements Store.
func (s *Shared) Load(ctx context.Context, r *authn.Request) (*Session, error) {
	id := s.cookies.Read(r)
	if id == "" || len(id) > 64 {
		return nil, ErrNone
	}
	return s.load(ctx, id, r.Now)
}

func (s *Shared) load(ctx context.Context, id string, now time.Time) (*Session, error) {
	ctx, cancel := s.within(ctx)
	defer cancel()
	sealed, err := s.redis.Get(ctx, s.key(id)).Result()
	switch {
	case errors.Is(err, goredis.Nil):
		return nil, ErrNone
	case err != nil:
		return nil, unavailable("load session", err)
	}
	keys := s.keys.current.Load()
	out := s.opened.get(keys, sealed)
	if out == nil {
		text, err := s.keys.Open(s.purpose(id), []byte(sealed))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNone, err)
		}
		if out, err = decode(text); err != nil {
			return nil, err
		}
		out.sealed = sealed
		s.opened.put(keys, sealed, out)
	}
	if out.ID != id || out.Provider != s.name || !s.limits.alive(out, now) {
		return nil, fmt.Errorf("%w: it has ended", ErrNone)
	}
	return out, nil
}

// purpose binds what is sealed to its place: one session cannot be put in the place
// of another.
func (s *Shared) purpose(id string) string { return s.purposeOf(hashed(id)) }

func (s *Shared) purposeOf(hash string) string { return "session " + s.name + " " + hash }

func (s *Shared) seal(v *Session) (string, error) {
	text, err := encode(v)
	if err != nil {
		return "", err
	}
	return string(s.keys.Seal(s.purpose(v.ID), text)), nil
}

// Create implements Store.
func (s *Shared) Create(ctx context.Context, r *authn.Request, v *Session) error {
	ctx, cancel := s.within(ctx)
	defer cancel()
	if old := s.cookies.Read(r); old != "" {
		if err := s.redis.Del(ctx, s.key(old)).Err(); err != nil {
			return unavailable("end the session before", err)
		}
	}
	v.ID, v.Created, v.Used, v.Lifetime = NewID(), r.Now.UnixMilli(), r.Now.UnixMilli(), s.limits.lifetime.Milliseconds()
	sealed, err := s.seal(v)
	if err != nil {
		return err
	}
	end := r.Now.Add(s.limits.lifetime)
	_, err = s.redis.TxPipelined(ctx, func(p goredis.Pipeliner) error {
		for _, index := range s.indexes(v.Issuer, v.SID, v.Subject) {
			p.ZRemRangeByScore(ctx, index, "-inf", strconv.FormatInt(r.Now.UnixMilli(), 10))
			p.ZAdd(ctx, index, goredis.Z{Score: float64(end.UnixMilli()), Member: s.key(v.ID)})
			p.PExpire(ctx, index, s.limits.lifetime+maxSkew)
		}
		p.Set(ctx, s.key(v.ID), sealed, s.limits.remaining(v, r.Now))
		return nil
	})
	if err != nil {
		return unavailable("keep session", err)
	}
	return s.cookies.Write(r, v.ID, s.limits.remaining(v, r.Now))
}

// replace writes a session if nobody changed it meanwhile: noting its use must not
// undo a renewal.
func replace() *goredis.Script {
	return goredis.NewScript(`if redis.call("GET", KEYS[1]) == ARGV[1] then redis.call("SET", KEYS[1], ARGV[2], "PX", ARGV[3]) return 1 end return 0`)
}

// Touch implements Store.
func (s *Shared) Touch(ctx context.Context, r *authn.Request, v *Session) error {
	if !s.limits.stale(v, r.Now) {
		return nil
	}
	used := v.Copy()
	used.Used = r.Now.UnixMilli()
	sealed, err := s.seal(used)
	if err != nil {
		return err
	}
	left := s.limits.remaining(used, r.Now)
	ctx, cancel := s.within(ctx)
	defer cancel()
	if err := replace().Run(ctx, s.redis, []string{s.key(v.ID)}, v.sealed, sealed, left.Milliseconds()).Err(); err != nil {
		return unavailable("note use of session", err)
	}
	return s.cookies.Write(r, v.ID, left)
}

// End implements Store.
func (s *Shared) End(ctx context.Context, r *authn.Request, v *Session) error {
	ctx, cancel := s.within(ctx)
	defer cancel()
	if v != nil {
		if err := s.redis.Del(ctx, s.key(v.ID)).Err(); err != nil {
			return unavailable("end session", err)
		}
	}
	s.cookies.Clear(r)
	return nil
}

// Once implements Store. Redis keeps each key for as long as what it stands for is
// good.
func (s *Shared) Once(ctx context.Context, key string, _ time.Time, keep time.Duration) (bool, error) {
	ctx, cancel := s.within(ctx)
	defer cancel()
	fresh, err := s.redis.Claim(ctx, s.prefix+"once:"+hashed(key), NewID(), keep)
	if err != nil {
		return false, unavailable("note that it was used", err)
	}
	return fresh, nil
}

// Seen implements Store.
func (s *Shared) Seen(ctx context.Context, key string, _ time.Time) (bool, error) {
	ctx, cancel := s.within(ctx)
	defer cancel()
	n, err := s.redis.Exists(ctx, s.prefix+"once:"+hashed(key)).Result()
	if err != nil {
		return false, unavailable("see whether it was used", err)
	}
	return n > 0, nil
}

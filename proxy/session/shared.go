package session

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/bsm/redislock"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn"
)

const (
	redisTimeout = time.Second // for one question
	lockLife     = 15 * time.Second
	lockPause    = 20 * time.Millisecond
)

// RedisConfig is a Redis server that replicas share.
type RedisConfig struct {
	// Address is host:port.
	Address string `yaml:"address"`
	// Username and the password authenticate to it.
	Username string `yaml:"username"`
	// PasswordFile is a file with the password.
	PasswordFile string `yaml:"password_file" sallyport:"path"`
	// TLS speaks TLS to it.
	TLS bool `yaml:"tls"`
	// CAFile holds the PEM certificates that the server is verified with instead of
	// the system's.
	CAFile string `yaml:"ca_file" sallyport:"path"`
	// Database is the number of the database.
	Database int `yaml:"database"`
	// Prefix begins every key; "sallyport:" by default.
	Prefix string `yaml:"prefix"`
}

func (c *RedisConfig) validate(keys []string) error {
	if c == nil {
		return nil
	}
	var errs []error
	if len(keys) == 0 {
		errs = append(errs, setting.Problemf("keys_files", "is missing: without a common key replicas cannot read each other's sessions"))
	}
	if err := setting.Address(c.Address); err != nil {
		errs = append(errs, setting.Problemf("redis.address", "%w", err))
	}
	if c.CAFile != "" && !c.TLS {
		errs = append(errs, setting.Problemf("redis.ca_file", "is not used without tls"))
	}
	if c.Database < 0 {
		errs = append(errs, setting.Problemf("redis.database", "is negative"))
	}
	return errors.Join(errs...)
}

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
	secret  atomic.Pointer[string]
	config  RedisConfig
	told    func(context.Context, []*Session) // of those that ended
}

// NewShared makes the store of the authenticator called name. It reads files and
// connects to nothing.
func NewShared(name string, c Config, keys *Keys, deps Deps) (*Shared, error) {
	deps = deps.filled()
	s := &Shared{
		name: name, prefix: c.Redis.Prefix, keys: keys, cookies: NewCookies(name, c.CookieDomain), limits: c.limits(), now: deps.Now,
		flights: newFlights(deps.Now), opened: newOpened(), config: *c.Redis, told: deps.Ended,
	}
	if s.prefix == "" {
		s.prefix = "sallyport:"
	}
	s.prefix += cookieName(name) + ":"
	if err := s.Reload(); err != nil {
		return nil, err
	}
	opts := &redis.Options{
		Addr: c.Redis.Address, DB: c.Redis.Database, ClientName: "sallyport",
		CredentialsProvider: func() (string, string) { return c.Redis.Username, *s.secret.Load() },
		DialTimeout:         redisTimeout, ReadTimeout: redisTimeout, WriteTimeout: redisTimeout, PoolTimeout: redisTimeout,
		MaxRetries: 1, DialerRetries: 1, ContextTimeoutEnabled: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	var err error
	if opts.TLSConfig, err = c.Redis.trust(); err != nil {
		return nil, err
	}
	s.redis = redis.NewClient(opts)
	s.locks = redislock.New(s.redis)
	return s, nil
}

func (c *RedisConfig) trust() (*tls.Config, error) {
	if !c.TLS {
		return nil, nil
	}
	host, _, err := net.SplitHostPort(c.Address)
	if err != nil {
		return nil, err
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if c.CAFile == "" {
		return t, nil
	}
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read CA of Redis: %w", err)
	}
	if t.RootCAs = x509.NewCertPool(); !t.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read CA of Redis: %s holds no PEM certificate", c.CAFile)
	}
	return t, nil
}

// Files returns the files that Reload reads.
func (s *Shared) Files() []string {
	if s.config.PasswordFile == "" {
		return nil
	}
	return []string{s.config.PasswordFile}
}

// Reload reads the password again, for connections that are made from then on.
func (s *Shared) Reload() error {
	secret := ""
	if s.config.PasswordFile != "" {
		data, err := os.ReadFile(s.config.PasswordFile)
		if err != nil {
			return fmt.Errorf("read Redis password: %w", err)
		}
		secret = strings.TrimSpace(string(data))
	}
	s.secret.Store(&secret)
	return nil
}

// Close ends the connections. Requests that come later are answered with 503.
func (s *Shared) Close() error { return s.redis.Close() }

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
	return fmt.Errorf("%w: %s: Redis: %w", authn.ErrUnavailable, doing, err)
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
	sealed, err := s.redis.Get(ctx, s.key(id)).Result()
	switch {
	case errors.Is(err, redis.Nil):
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
	if old := s.cookies.Read(r); old != "" {
		if err := s.redis.Del(ctx, s.key(old)).Err(); err != nil {
			return unavailable("end the session before", err)
		}
	}
	v.ID, v.Created, v.Used = NewID(), r.Now.UnixMilli(), r.Now.UnixMilli()
	sealed, err := s.seal(v)
	if err != nil {
		return err
	}
	end := r.Now.Add(s.limits.lifetime)
	_, err = s.redis.TxPipelined(ctx, func(p redis.Pipeliner) error {
		for _, index := range s.indexes(v.Issuer, v.SID, v.Subject) {
			p.ZRemRangeByScore(ctx, index, "-inf", strconv.FormatInt(r.Now.UnixMilli(), 10))
			p.ZAdd(ctx, index, redis.Z{Score: float64(end.UnixMilli()), Member: s.key(v.ID)})
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
func replace() *redis.Script {
	return redis.NewScript(`if redis.call("GET", KEYS[1]) == ARGV[1] then redis.call("SET", KEYS[1], ARGV[2], "PX", ARGV[3]) return 1 end return 0`)
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
	if err := replace().Run(ctx, s.redis, []string{s.key(v.ID)}, v.sealed, sealed, left.Milliseconds()).Err(); err != nil {
		return unavailable("note use of session", err)
	}
	return s.cookies.Write(r, v.ID, left)
}

// Renew implements Store. Replicas take turns by a lock in Redis; who comes second
// finds the renewed session.
func (s *Shared) Renew(ctx context.Context, r *authn.Request, v *Session, do func(context.Context, *Session) (*Session, error)) (*Session, error) {
	now := r.Now
	next, err := s.flights.do(ctx, digestOf("renew", v.ID, v.AccessToken, v.RefreshToken), func(ctx context.Context) (*Session, error) {
		ctx, cancel := context.WithTimeout(ctx, lockLife)
		defer cancel()
		return s.renew(ctx, v, now, do)
	})
	if errors.Is(err, ErrNone) {
		s.cookies.Clear(r)
	}
	return next, err
}

func (s *Shared) renew(ctx context.Context, v *Session, now time.Time, do func(context.Context, *Session) (*Session, error)) (*Session, error) {
	lock, err := s.locks.Obtain(ctx, s.prefix+"lock:"+hashed(v.ID), lockLife, &redislock.Options{RetryStrategy: redislock.LinearBackoff(lockPause)})
	if err != nil {
		return nil, unavailable("lock session", err)
	}
	defer lock.Release(context.WithoutCancel(ctx)) //nolint:errcheck // it ends by itself
	current, err := s.load(ctx, v.ID, now)
	if err != nil {
		return nil, err
	}
	if current.AccessToken != v.AccessToken || current.RefreshToken != v.RefreshToken {
		return current, nil // another replica was faster
	}
	next, err := do(ctx, current)
	if errors.Is(err, ErrNone) {
		return nil, errors.Join(err, s.redis.Del(ctx, s.key(v.ID)).Err())
	}
	if err != nil {
		return nil, err
	}
	next.Used = max(next.Used, now.UnixMilli())
	sealed, err := s.seal(next)
	if err != nil {
		return nil, err
	}
	next.sealed = sealed
	kept, err := s.redis.SetXX(ctx, s.key(v.ID), sealed, s.limits.remaining(next, now)).Result()
	switch {
	case err != nil && !errors.Is(err, redis.Nil):
		return nil, unavailable("keep renewed session", err)
	case !kept:
		return nil, fmt.Errorf("%w: it was ended while it was renewed", ErrNone)
	}
	return next, nil
}

// End implements Store.
func (s *Shared) End(ctx context.Context, r *authn.Request, v *Session) error {
	if v != nil {
		if err := s.redis.Del(ctx, s.key(v.ID)).Err(); err != nil {
			return unavailable("end session", err)
		}
	}
	s.cookies.Clear(r)
	return nil
}

// Revoke implements Store. Each session is read and deleted in one step: whoever else
// ends it at the same time does not get it too.
func (s *Shared) Revoke(ctx context.Context, issuer, sid, subject string) error {
	index := s.indexes(issuer, sid, subject)[0]
	members, err := s.redis.ZRange(ctx, index, 0, -1).Result()
	if err != nil {
		return unavailable("end sessions", err)
	}
	if len(members) == 0 {
		return nil
	}
	var were []*redis.StringCmd
	_, err = s.redis.TxPipelined(ctx, func(p redis.Pipeliner) error {
		for _, key := range members {
			were = append(were, p.Get(ctx, key))
		}
		p.Del(ctx, append(slices.Clone(members), index)...)
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) { // nil: one of them had ended before
		return unavailable("end sessions", err)
	}
	var all []*Session
	for i, was := range were {
		if v := s.ended(members[i], was); v != nil {
			all = append(all, v)
		}
	}
	if len(all) > 0 {
		s.told(ctx, all)
	}
	return nil
}

// ended is the session that was kept under a key; nil if there was none, or none that
// can be opened.
func (s *Shared) ended(key string, was *redis.StringCmd) *Session {
	sealed, err := was.Result()
	if err != nil {
		return nil
	}
	text, err := s.keys.Open(s.purposeOf(strings.TrimPrefix(key, s.prefix+"session:")), []byte(sealed))
	if err != nil {
		return nil
	}
	v, err := decode(text)
	if err != nil || v.Provider != s.name {
		return nil
	}
	return v
}

// RevokeKnown implements Store: an index that is not there has nothing to end.
func (s *Shared) RevokeKnown(ctx context.Context, issuer, sid string) error {
	return s.Revoke(ctx, issuer, sid, "")
}

// Once implements Store. Redis keeps each key for as long as what it stands for is
// good.
func (s *Shared) Once(ctx context.Context, key string, _ time.Time, keep time.Duration) (bool, error) {
	fresh, err := s.redis.SetNX(ctx, s.prefix+"once:"+hashed(key), 1, keep).Result()
	if err != nil {
		return false, unavailable("note that it was used", err)
	}
	return fresh, nil
}

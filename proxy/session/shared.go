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
	"sync"
	"sync/atomic"
	"time"

	"github.com/bsm/redislock"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn"
)

const (
	redisTimeout = time.Second // by default, for one answer
	// lockLife is how long the lock of a replica that died keeps others from renewing
	// the session: one that lives holds on to it for as long as the renewal takes.
	lockLife  = 10 * time.Second
	lockPause = 20 * time.Millisecond
	// lockWait is longer than lockLife: whoever waits outlives a lock that is nobody's.
	lockWait = 15 * time.Second
	// renewWithin is how long a renewal may take once it is this replica's turn. The
	// wait is not part of it: a refresh token that was sent too late for the answer to
	// be heard is lost.
	renewWithin = 30 * time.Second
	// keepWithin is how long a renewal that Redis did not take is offered again.
	keepWithin = time.Minute
	keepPause  = 100 * time.Millisecond
)

// ErrUnreachable is Redis not answering, or not in time. It is authn.ErrUnavailable too.
var ErrUnreachable = errors.New("session store cannot be reached")

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
	// Timeout is how long a request waits for one answer of Redis, connecting
	// included, between 50ms and 10s; 1s by default. After it the request gets 503.
	Timeout time.Duration `yaml:"timeout"`
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
	if t := c.timeout(); t < 50*time.Millisecond || t > 10*time.Second {
		errs = append(errs, setting.Problemf("redis.timeout", "%s is not between 50ms and 10s", t))
	}
	return errors.Join(errs...)
}

func (c *RedisConfig) timeout() time.Duration {
	if c.Timeout == 0 {
		return redisTimeout
	}
	return c.Timeout
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
	turns   turns
	kept    sync.WaitGroup // renewals that are offered to Redis again
}

// turns are the times of the lock by which replicas take turns.
type turns struct{ life, wait, keep time.Duration }

// NewShared makes the store of the authenticator called name. It reads files and
// connects to nothing.
func NewShared(name string, c Config, keys *Keys, deps Deps) (*Shared, error) {
	deps = deps.filled()
	s := &Shared{
		name: name, prefix: c.Redis.Prefix, keys: keys, cookies: NewCookies(name, c.CookieDomain), limits: c.limits(), now: deps.Now,
		flights: newFlights(deps.Now), opened: newOpened(), config: *c.Redis, told: deps.Ended,
		turns: turns{life: lockLife, wait: lockWait, keep: keepWithin},
	}
	if s.prefix == "" {
		s.prefix = "sallyport:"
	}
	s.prefix += cookieName(name) + ":"
	if err := s.Reload(); err != nil {
		return nil, err
	}
	timeout := c.Redis.timeout()
	opts := &redis.Options{
		Addr: c.Redis.Address, DB: c.Redis.Database, ClientName: "sallyport",
		CredentialsProvider: func() (string, string) { return c.Redis.Username, *s.secret.Load() },
		DialTimeout:         timeout, ReadTimeout: timeout, WriteTimeout: timeout, PoolTimeout: timeout,
		MaxRetries: 1, DialerRetries: 1, ContextTimeoutEnabled: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	var err error
	if opts.TLSConfig, err = c.Redis.trust(); err != nil {
		return nil, err
	}
	logging.Disable() // it would write a line to standard error for each connection that fails: errors say it
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
func (s *Shared) Close() error {
	err := s.redis.Close()
	s.kept.Wait() // what is offered again ends with the connections
	return err
}

// within bounds what a request waits for Redis, a second try included.
func (s *Shared) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.config.timeout())
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
	ctx, cancel := s.within(ctx)
	defer cancel()
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
		return s.renew(ctx, v, now, do)
	})
	if errors.Is(err, ErrNone) {
		s.cookies.Clear(r)
	}
	return next, err
}

func (s *Shared) renew(ctx context.Context, v *Session, now time.Time, do func(context.Context, *Session) (*Session, error)) (*Session, error) {
	release, err := s.lock(ctx, v.ID)
	if err != nil {
		return nil, err
	}
	later := false
	defer func() {
		if !later { // also when do panics
			release()
		}
	}()
	next, err := s.renewed(ctx, v, now, do)
	if later = errors.Is(err, ErrUnreachable); later {
		s.kept.Go(func() {
			defer release() // the refresh token in Redis may be spent: nobody is to use it meanwhile
			s.offer(ctx, next, now)
		})
	}
	if err != nil {
		return nil, err
	}
	return next, nil
}

// renewed renews a session whose lock is held. If it returns both a session and
// ErrUnreachable, that is what Redis did not take.
func (s *Shared) renewed(ctx context.Context, v *Session, now time.Time, do func(context.Context, *Session) (*Session, error)) (*Session, error) {
	current, err := s.load(ctx, v.ID, now)
	if err != nil {
		return nil, err
	}
	if current.AccessToken != v.AccessToken || current.RefreshToken != v.RefreshToken {
		return current, nil // another replica was faster
	}
	work, cancel := context.WithTimeout(ctx, renewWithin)
	defer cancel()
	next, err := do(work, current)
	if errors.Is(err, ErrNone) {
		ctx, cancel := s.within(ctx)
		defer cancel()
		return nil, errors.Join(err, s.redis.Del(ctx, s.key(v.ID)).Err())
	}
	if err != nil {
		return nil, err
	}
	next.Used = max(next.Used, now.UnixMilli())
	if next.sealed, err = s.seal(next); err != nil {
		return nil, err
	}
	return next, s.put(ctx, next, now)
}

// put writes a renewed session, unless it was ended.
func (s *Shared) put(ctx context.Context, next *Session, now time.Time) error {
	ctx, cancel := s.within(ctx)
	defer cancel()
	kept, err := s.redis.SetXX(ctx, s.key(next.ID), next.sealed, s.limits.remaining(next, now)).Result()
	switch {
	case err != nil && !errors.Is(err, redis.Nil):
		return unavailable("keep renewed session", err)
	case !kept:
		return fmt.Errorf("%w: it was ended while it was renewed", ErrNone)
	}
	return nil
}

// offer writes a renewed session, if there is one, as soon as Redis takes it.
func (s *Shared) offer(ctx context.Context, next *Session, now time.Time) {
	if next == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.turns.keep)
	defer cancel()
	tick := time.NewTicker(keepPause)
	defer tick.Stop()
	for {
		err := s.put(ctx, next, now)
		if !errors.Is(err, ErrUnreachable) || errors.Is(err, redis.ErrClosed) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// lock waits until it is this replica's turn to renew the session, and holds the lock
// until release is called.
func (s *Shared) lock(ctx context.Context, id string) (release func(), err error) {
	wait, cancel := context.WithTimeout(ctx, s.turns.wait)
	defer cancel()
	key := s.prefix + "lock:" + hashed(id)
	lock, err := s.locks.Obtain(wait, key, s.turns.life, &redislock.Options{RetryStrategy: redislock.LinearBackoff(lockPause)})
	switch {
	case err == nil:
	case wait.Err() != nil:
		return nil, fmt.Errorf("%w: lock session: another replica is still renewing it", authn.ErrUnavailable)
	default:
		return nil, unavailable("lock session", err)
	}
	over, held := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(held)
		s.hold(ctx, lock, key, over)
	}()
	return func() {
		close(over)
		<-held
		ctx, cancel := s.within(ctx)
		defer cancel()
		_ = lock.Release(ctx) // it ends by itself
	}, nil
}

// hold keeps a lock from ending until over is closed.
func (s *Shared) hold(ctx context.Context, lock *redislock.Lock, key string, over <-chan struct{}) {
	tick := time.NewTicker(s.turns.life / 5)
	defer tick.Stop()
	for {
		select {
		case <-over:
			return
		case <-tick.C:
			s.prolong(ctx, lock, key)
		}
	}
}

// prolong tells Redis that the lock is still held. One that ended while Redis was away
// it takes again, if nobody else has it. Errors are for the next time.
func (s *Shared) prolong(ctx context.Context, lock *redislock.Lock, key string) {
	ctx, cancel := s.within(ctx)
	defer cancel()
	if err := lock.Refresh(ctx, s.turns.life, nil); errors.Is(err, redislock.ErrNotObtained) {
		_, _ = s.locks.Obtain(ctx, key, s.turns.life, &redislock.Options{Token: lock.Token()})
	}
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

// Revoke implements Store. Each session is read and deleted in one step: whoever else
// ends it at the same time does not get it too.
func (s *Shared) Revoke(ctx context.Context, issuer, sid, subject string) error {
	ctx, cancel := s.within(ctx)
	defer cancel()
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
	ctx, cancel := s.within(ctx)
	defer cancel()
	fresh, err := s.redis.SetNX(ctx, s.prefix+"once:"+hashed(key), 1, keep).Result()
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

package splittoken

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// cache is a store in Redis, where the authorization server lets records end with
// their tokens.
type cache struct {
	config RedisConfig
	client *redis.Client
	secret atomic.Pointer[string]
}

func newRedis(c RedisConfig, timeout time.Duration) (*cache, error) {
	s := &cache{config: c}
	if err := s.reload(); err != nil {
		return nil, err
	}
	trust, err := c.trust()
	if err != nil {
		return nil, err
	}
	s.client = redis.NewClient(&redis.Options{
		Addr: c.Address, DB: c.Database, ClientName: "sallyport", TLSConfig: trust,
		CredentialsProvider: func() (string, string) { return c.Username, *s.secret.Load() },
		DialTimeout:         timeout, ReadTimeout: timeout, WriteTimeout: timeout, PoolTimeout: timeout,
		MaxRetries: 1, DialerRetries: 1, ContextTimeoutEnabled: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
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

func (s *cache) get(ctx context.Context, hash string) (string, error) {
	record, err := s.client.Get(ctx, s.config.Prefix+hash).Result()
	switch {
	case errors.Is(err, redis.Nil):
		return "", ErrUnknown
	case err != nil:
		return "", fmt.Errorf("redis: %w", err)
	}
	return record, nil
}

func (s *cache) files() []string {
	if s.config.PasswordFile == "" {
		return nil
	}
	return []string{s.config.PasswordFile}
}

// reload reads the password again, for connections that are made from then on.
func (s *cache) reload() error {
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

func (s *cache) close() { _ = s.client.Close() } // nothing is written

package splittoken

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/proxy/redis"
)

// cache is a store in Redis, where the authorization server lets records end with
// their tokens.
type cache struct {
	prefix string
	client *redis.Client
}

func newRedis(c RedisConfig, timeout time.Duration) (*cache, error) {
	client, err := redis.New(c.Server, timeout)
	return &cache{c.Prefix, client}, err
}

func (s *cache) get(ctx context.Context, hash string) (string, error) {
	record, err := s.client.Get(ctx, s.prefix+hash).Result()
	switch {
	case errors.Is(err, redis.Nil):
		return "", ErrUnknown
	case err != nil:
		return "", fmt.Errorf("redis: %w", err)
	}
	return record, nil
}

func (s *cache) files() []string { return s.client.Files() }

func (s *cache) reload() error { return s.client.Reload() }

func (s *cache) close() { s.client.Retire() }

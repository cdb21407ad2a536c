package splittoken

import (
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/redis"
)

// TestValidate: each row is one change of a good configuration and the keys that the
// problems name.
func TestValidate(t *testing.T) {
	inRedis := func(c *Config) { c.URL, c.Redis = "", &RedisConfig{Server: redis.Server{Address: "127.0.0.1:6379"}} }
	for name, tt := range map[string]struct {
		change func(*Config)
		keys   []string
	}{
		"good":             {func(*Config) {}, nil},
		"redis":            {inRedis, nil},
		"max_age 0":        {func(c *Config) { c.MaxAge = 0 }, nil},
		"hash in a query":  {func(c *Config) { c.URL = "http://127.0.0.1/?sha256={hash}" }, nil},
		"neither":          {func(c *Config) { c.URL = "" }, []string{"url"}},
		"both":             {func(c *Config) { c.Redis = &RedisConfig{Server: redis.Server{Address: "127.0.0.1:6379"}} }, []string{"url"}},
		"no hash":          {func(c *Config) { c.URL = "https://tokens.example/" }, []string{"url"}},
		"http":             {func(c *Config) { c.URL = "http://tokens.example/{hash}" }, []string{"url"}},
		"insecure http":    {func(c *Config) { c.URL, c.InsecureHTTP = "http://tokens.example/{hash}", true }, nil},
		"hash is the host": {func(c *Config) { c.URL = "http://{hash}/" }, []string{"url"}},
		"no address":       {func(c *Config) { inRedis(c); c.Redis.Address = "" }, []string{"redis.address"}},
		"CA without tls":   {func(c *Config) { inRedis(c); c.Redis.CAFile = "ca" }, []string{"redis.ca_file"}},
		"key alone":        {func(c *Config) { c.KeyFile = "key" }, []string{"key_file"}},
		"redis and token":  {func(c *Config) { inRedis(c); c.BearerTokenFile = "token" }, []string{"bearer_token_file"}},
		"limits": {func(c *Config) {
			c.MaxAge, c.RefusedMaxAge, c.Timeout, c.MaxConcurrent, c.LookupLimit.Burst = -1, time.Hour, time.Hour, -1, -1
		}, []string{"lookup_limit.burst", "max_age", "max_concurrent", "refused_max_age", "timeout"}},
	} {
		c := Default()
		c.URL = "https://tokens.example/{hash}"
		tt.change(&c)
		var keys []string
		for _, p := range setting.Problems(c.Validate()) {
			keys = append(keys, p.Key)
		}
		if slices.Sort(keys); !slices.Equal(keys, tt.keys) {
			t.Errorf("%s: problems with %q, want %q", name, keys, tt.keys)
		}
	}
	if err := (*Config)(nil).Validate(); err != nil {
		t.Errorf("none: %v", err)
	}
}

// TestHash is what sha256sum says of a token.
func TestHash(t *testing.T) {
	if got, want := Hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; got != want {
		t.Errorf("hash %s, want %s", got, want)
	}
}

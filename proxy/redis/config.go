package redis

import (
	"errors"
	"time"

	"github.com/sallyport/sallyport/engine/setting"
)

// Server is where a Redis server is, and how the gateway and it know each other.
type Server struct {
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
}

// Validate reports everything wrong with s.
func (s Server) Validate() error {
	var errs []error
	if err := setting.Address(s.Address); err != nil {
		errs = append(errs, setting.Problemf("address", "%w", err))
	}
	if s.CAFile != "" && !s.TLS {
		errs = append(errs, setting.Problemf("ca_file", "is not used without tls"))
	}
	if s.Database < 0 {
		errs = append(errs, setting.Problemf("database", "is negative"))
	}
	return errors.Join(errs...)
}

// Config is a Redis server that replicas share, and what of it is theirs.
type Config struct {
	Server `yaml:",inline"`
	// Prefix begins every key; "sallyport:" by default.
	Prefix string `yaml:"prefix"`
	// Timeout is how long a request waits for one answer of Redis, connecting
	// included, between 50ms and 10s; 1s by default. After it the request gets 503.
	Timeout time.Duration `yaml:"timeout"`
}

// Default returns the settings of a Config that leaves them out.
func Default() Config { return Config{Prefix: "sallyport:", Timeout: time.Second} }

// Filled returns c with the default for each setting whose zero value means nothing.
func (c Config) Filled() Config {
	d := Default()
	if c.Prefix == "" {
		c.Prefix = d.Prefix
	}
	if c.Timeout == 0 {
		c.Timeout = d.Timeout
	}
	return c
}

// Validate reports everything wrong with c. A nil one is right.
func (c *Config) Validate() error {
	if c == nil {
		return nil
	}
	err := c.Server.Validate()
	if t := c.Filled().Timeout; t < 50*time.Millisecond || t > 10*time.Second {
		err = errors.Join(err, setting.Problemf("timeout", "%s is not between 50ms and 10s", t))
	}
	return err
}

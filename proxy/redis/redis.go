// Package redis owns how the gateway reaches a Redis server: what the configuration says
// of one, the connections with their TLS and password, how long a request waits for them,
// and the claim that of several replicas one alone gets.
//
// It does not know what is kept there: sessions, split tokens and the memory of replays
// have their keys and commands with them.
package redis

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
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Retirement is how long the connections of a configuration that was replaced stay open:
// requests that began before still need them.
const Retirement = 2 * time.Minute

// Nil is the error of a key that is not there.
const Nil = redis.Nil

// Client has the connections to one server. It is safe for concurrent use.
type Client struct {
	*redis.Client
	server Server
	secret atomic.Pointer[string]
}

// New reads the files of s and connects to nothing. Timeout bounds each step of a
// question: to wait for a connection, to make one, to write, to read. A context bounds
// all of them.
func New(s Server, timeout time.Duration) (*Client, error) {
	c := &Client{server: s}
	if err := c.Reload(); err != nil {
		return nil, err
	}
	trust, err := s.trust()
	if err != nil {
		return nil, err
	}
	logging.Disable() // it would write a line to standard error for each connection that fails: errors say it
	c.Client = redis.NewClient(&redis.Options{
		Addr: s.Address, DB: s.Database, ClientName: "sallyport", TLSConfig: trust,
		CredentialsProvider: func() (string, string) { return s.Username, *c.secret.Load() },
		DialTimeout:         timeout, ReadTimeout: timeout, WriteTimeout: timeout, PoolTimeout: timeout,
		MaxRetries: 1, DialerRetries: 1, ContextTimeoutEnabled: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	return c, nil
}

func (s Server) trust() (*tls.Config, error) {
	if !s.TLS {
		return nil, nil
	}
	host, _, err := net.SplitHostPort(s.Address)
	if err != nil {
		return nil, err
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if s.CAFile == "" {
		return t, nil
	}
	pem, err := os.ReadFile(s.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read CA of Redis: %w", err)
	}
	if t.RootCAs = x509.NewCertPool(); !t.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read CA of Redis: %s holds no PEM certificate", s.CAFile)
	}
	return t, nil
}

// Files returns the files that Reload reads.
func (c *Client) Files() []string {
	if c.server.PasswordFile == "" {
		return nil
	}
	return []string{c.server.PasswordFile}
}

// Reload reads the password again, for connections that are made from then on.
func (c *Client) Reload() error {
	secret := ""
	if c.server.PasswordFile != "" {
		data, err := os.ReadFile(c.server.PasswordFile)
		if err != nil {
			return fmt.Errorf("read Redis password: %w", err)
		}
		secret = strings.TrimSpace(string(data))
	}
	c.secret.Store(&secret)
	return nil
}

// Address is the host:port of the server, for errors.
func (c *Client) Address() string { return c.server.Address }

// Retire closes the connections after Retirement.
func (c *Client) Retire() { time.AfterFunc(Retirement, func() { _ = c.Close() }) }

// Claim reports whether key is the claimant's: it was nobody's and is now kept for a
// time, or it was the claimant's before. So who did not hear the answer to a claim can
// make it again.
func (c *Client) Claim(ctx context.Context, key, claimant string, keep time.Duration) (bool, error) {
	fresh, err := c.SetNX(ctx, key, claimant, keep).Result()
	if err != nil || fresh {
		return fresh, err
	}
	holder, err := c.Get(ctx, key).Result()
	if errors.Is(err, redis.Nil) {
		return false, nil // it was somebody's a moment ago
	}
	return err == nil && holder == claimant, err
}

package grant

import (
	"context"
	"fmt"
	"net/url"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

// Credentials gets the gateway's own tokens (RFC 6749 section 4.4). It is safe for
// concurrent use.
type Credentials struct {
	*asker
	config  CredentialsConfig
	current atomic.Pointer[lease]
	flight  singleflight.Group
	wake    chan struct{} // a token was got by a request
}

// lease is a token with the times that matter.
type lease struct {
	token   string
	refresh time.Time // when the next one is to be had
	until   time.Time // when it is not used any more
	used    atomic.Bool
}

// NewCredentials makes a source of tokens. It reads the files of c and asks nobody.
// now is the clock; nil: time.Now.
func NewCredentials(c CredentialsConfig, deps Deps) (*Credentials, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	a, err := newAsker(c.Endpoint, deps, fetches)
	if err != nil {
		return nil, err
	}
	return &Credentials{asker: a, config: c, wake: make(chan struct{}, 1)}, nil
}

// Token returns a token that is good for a while.
func (c *Credentials) Token(ctx context.Context) (string, error) {
	if l := c.current.Load(); l != nil && c.now().Before(l.until) {
		if !l.used.Load() {
			l.used.Store(true)
		}
		return l.token, nil
	}
	done := c.flight.DoChan("", func() (any, error) { return c.fetch(context.WithoutCancel(ctx)) })
	select {
	case r := <-done:
		if r.Err != nil {
			return "", r.Err
		}
		l, _ := r.Val.(*lease)
		l.used.Store(true)
		select {
		case c.wake <- struct{}{}:
		default:
		}
		return l.token, nil
	case <-ctx.Done():
		return "", fmt.Errorf("get a token by client credentials: %w", ctx.Err())
	}
}

func (c *Credentials) fetch(ctx context.Context) (*lease, error) {
	params := url.Values{}
	if c.config.Audience != "" {
		params.Set("audience", c.config.Audience)
	}
	begin := c.now()
	g, err := c.ask(ctx, c.config.Scopes, params)
	c.count.of(err).Add(1)
	if err != nil {
		return nil, err
	}
	life := g.until.Sub(begin)
	l := &lease{token: g.token, until: g.until.Add(-margin(life)), refresh: begin.Add(life * 3 / 4)}
	c.current.Store(l)
	return l, nil
}

// retryAfter is the pause after a refresh that failed.
const retryAfter = 5 * time.Second

// Run gets the next token ahead of the end of one that is in use, until ctx ends,
// and returns nil then. Without it requests wait for their tokens themselves.
func (c *Credentials) Run(ctx context.Context) error {
	defer c.client.Close()
	for {
		var due <-chan time.Time
		l := c.current.Load()
		if l != nil {
			due = time.After(max(l.refresh.Sub(c.now()), 0))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
			continue
		case <-due:
		}
		if !l.used.Load() { // nobody needs it: the next who does asks
			select {
			case <-ctx.Done():
				return nil
			case <-c.wake:
			}
			continue
		}
		if _, err, _ := c.flight.Do("", func() (any, error) { return c.fetch(ctx) }); err != nil {
			select { // the one that there is may still be good; then requests find out
			case <-ctx.Done():
				return nil
			case <-time.After(retryAfter):
			}
		}
	}
}

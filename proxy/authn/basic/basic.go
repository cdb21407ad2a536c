// Package basic authenticates requests by name and password (RFC 7617) against an
// htpasswd file of bcrypt hashes. It owns the file, the reading of the header, and
// what keeps the cost of bcrypt from being used against the gateway: verified
// passwords are remembered for a while, hashes are computed a few at a time, and a
// client has a number of wrong passwords.
//
// It exists for machines and pages that can do nothing else, and is no way to log
// people in: a password that stands in each request is stolen with any of them.
package basic

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/bcrypt"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/limit"
)

// Kind is the key of this mechanism in the configuration.
const Kind = "basic"

const (
	// bcrypt reads 72 bytes and no more: of a longer password, the rest would not count.
	maxPassword = 72
	maxEncoded  = 1024 // characters of base64
	// turnWait is how long a request waits until its password is hashed.
	turnWait = time.Second
)

// Authenticator accepts the users of one file. It is safe for concurrent use.
type Authenticator struct {
	name     string
	config   Config
	cheapest int // cost of bcrypt that the file may have
	wait     time.Duration
	limiter  *limit.Limiter
	recent   *recent
	turns    chan struct{}
	users    atomic.Pointer[users]
}

// New makes an authenticator that the configuration calls name, with the users that
// its file holds now.
func New(name string, c Config) (*Authenticator, error) {
	return newAuthenticator(name, c, minCost, turnWait)
}

func newAuthenticator(name string, c Config, cheapest int, wait time.Duration) (*Authenticator, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.filled()
	a := &Authenticator{name: name, config: c, cheapest: cheapest, wait: wait, turns: make(chan struct{}, c.Concurrency)}
	var err error
	if a.limiter, err = limit.New(c.VerificationLimit); err != nil {
		return nil, err
	}
	if a.recent, err = newRecent(c.CacheSize, c.CacheTTL); err != nil {
		return nil, err
	}
	return a, a.Reload(context.Background())
}

var errWrong = fmt.Errorf("%w: name or password is wrong", authn.ErrInvalid)

// Authenticate returns the identity of the user whose password stands in the
// Authorization header.
func (a *Authenticator) Authenticate(ctx context.Context, r *authn.Request) (*authz.Identity, error) {
	who, password, err := credentials(r.Authorization)
	if err != nil {
		return nil, err
	}
	set := a.users.Load()
	u := set.byName[who]
	if u != nil && a.recent.has(u, password, r.Now) {
		return u.identity, nil
	}
	hash := set.dummy
	if u != nil {
		hash = u.hash
	}
	if err := a.compare(ctx, r, hash, password); err != nil {
		return nil, err
	}
	if u == nil { // the dummy is of no password that comes here
		return nil, errWrong
	}
	a.recent.add(u, password, r.Now)
	return u.identity, nil
}

// compare hashes the password when its turn comes, if the client has a check left
// then: of many that come at once, those that waited behind wrong ones are refused.
func (a *Authenticator) compare(ctx context.Context, r *authn.Request, hash []byte, password string) error {
	if err := a.limiter.Allow(r.Client, r.Now); err != nil {
		return err
	}
	timeout := time.NewTimer(a.wait)
	defer timeout.Stop()
	select {
	case a.turns <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("%w: request ended while its password waited to be hashed: %w", authn.ErrUnavailable, ctx.Err())
	case <-timeout.C:
		return fmt.Errorf("%w: more passwords come than can be hashed, %d at once (concurrency)", authn.ErrUnavailable, a.config.Concurrency)
	}
	defer func() { <-a.turns }()
	if err := a.limiter.Allow(r.Client, r.Now); err != nil {
		return err
	}
	if bcrypt.CompareHashAndPassword(hash, []byte(password)) != nil {
		a.limiter.Charge(r.Client, r.Now)
		return errWrong
	}
	return nil
}

// credentials reads the Authorization value: one spelling of base64, UTF-8, and a
// colon between name and password (RFC 7617 section 2). Errors show none of it.
func credentials(authorization string) (who, password string, err error) {
	scheme, encoded, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "Basic") {
		return "", "", authn.ErrNotMine
	}
	if encoded = strings.TrimLeft(encoded, " "); len(encoded) > maxEncoded || strings.ContainsAny(encoded, "\r\n") {
		return "", "", errForm
	}
	text, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || !utf8.Valid(text) {
		return "", "", errForm
	}
	who, password, ok := strings.Cut(string(text), ":")
	if !ok || !goodName(who) || strings.ContainsFunc(password, control) {
		return "", "", errForm
	}
	if password == "" || len(password) > maxPassword {
		return "", "", errWrong // no hash can be of it
	}
	return who, password, nil
}

var errForm = fmt.Errorf("%w: Basic credentials are not base64 of name:password in UTF-8", authn.ErrInvalid)

// Files returns the file that Reload reads.
func (a *Authenticator) Files() []string { return []string{a.config.HtpasswdFile} }

// Reload reads the file again. On error the users that were read before stay.
func (a *Authenticator) Reload(context.Context) error {
	set, err := load(a.name, a.config.HtpasswdFile, a.cheapest)
	if err != nil {
		return err
	}
	a.users.Store(set)
	return nil
}

// Challenge returns the challenge of RFC 7617 section 2.1. A user who lacks a scope
// would only be asked for the password again.
func (a *Authenticator) Challenge(err error) string {
	if errors.Is(err, authn.ErrInsufficientScope) {
		return ""
	}
	return `Basic realm="` + a.config.Realm + `", charset="UTF-8"`
}

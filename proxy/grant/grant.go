// Package grant gets access tokens for upstreams from an OAuth token endpoint: a
// caller's token is exchanged for a narrower one (RFC 8693), or the gateway gets one
// of its own by its client credentials (RFC 6749 section 4.4). It owns the asking,
// the limits on what may be asked, and what is kept of the answers.
//
// It does not decide which upstream gets what; routes and policies do. A token that
// cannot be had closes.
package grant

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/proxy/authn/fetch"
	"github.com/sallyport/sallyport/proxy/problem"
)

const (
	maxToken  = 16 << 10 // bytes, as of tokens that come in
	maxSecret = 4 << 10  // bytes
	// unstated is how long a token is used that the provider says no lifetime of
	// (RFC 6749 section 5.1 recommends it).
	unstated = 30 * time.Second
)

// asker asks one token endpoint.
type asker struct {
	endpoint Endpoint
	client   *fetch.Client
	now      func() time.Time
	count    outcomes
}

// Deps is what tokens are got with. The zero value counts nothing.
type Deps struct {
	Name    string           // in the configuration, for metrics
	Now     func() time.Time // nil: time.Now
	Metrics *meter.Registry  // nil: nobody sees them
}

func newAsker(e Endpoint, deps Deps, register func(Deps) outcomes) (*asker, error) {
	now := deps.Now
	if now == nil {
		now = time.Now
	}
	e = e.filled()
	client, err := fetch.New(fetch.Config{Whose: "token endpoint " + e.URL, CAFile: e.CAFile, Connections: 16})
	return &asker{endpoint: e, client: client, now: now, count: register(deps)}, err
}

// Files returns the files that Reload reads.
func (a *asker) Files() []string { return a.client.Files() }

// Reload makes new connections with what the files hold now.
func (a *asker) Reload(context.Context) error { return a.client.Reload() }

func readSecret(file string) (string, error) {
	f, err := os.Open(file) //nolint:gosec // the operator names the file
	if err != nil {
		return "", fmt.Errorf("read client secret: %w", err)
	}
	defer f.Close() //nolint:errcheck // nothing is written
	data, err := fetch.Read(f, maxSecret, file)
	if err != nil {
		return "", err
	}
	secret := strings.TrimSpace(string(data))
	if secret == "" {
		return "", fmt.Errorf("%s is empty", file)
	}
	return secret, nil
}

// granted is a token that an upstream can be shown.
type granted struct {
	token  string
	until  time.Time // when the provider says that it ends
	scopes []string  // as far as the provider says
	kind   string    // issued_token_type of RFC 8693, empty if not said
}

// ask gets a token. The error is problem.ErrTokenRefused when the provider does not
// grant what was asked for, and problem.ErrNoToken when one cannot be had now.
// Neither says anything of tokens and secrets.
func (a *asker) ask(ctx context.Context, scopes []string, params url.Values) (*granted, error) {
	secret, err := readSecret(a.endpoint.ClientSecretFile)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", problem.ErrNoToken, err)
	}
	for name, value := range a.endpoint.Parameters {
		params.Set(name, value)
	}
	c := clientcredentials.Config{
		ClientID: a.endpoint.ClientID, ClientSecret: secret, TokenURL: a.endpoint.URL,
		Scopes: scopes, EndpointParams: params, AuthStyle: oauth2.AuthStyleInHeader,
	}
	if a.endpoint.ClientAuthentication == post {
		c.AuthStyle = oauth2.AuthStyleInParams
	}
	ctx, cancel := context.WithTimeout(ctx, a.endpoint.Timeout)
	defer cancel()
	begin := a.now()
	ctx = context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Transport: a.client})
	t, err := c.Token(ctx)
	if err != nil {
		return nil, a.classify(err)
	}
	return a.check(t, begin)
}

// refusals are the errors of RFC 6749 section 5.2 and RFC 8693 section 2.2.2 that
// are about what was asked for. Others are about the gateway or the provider.
func refusal(code string) bool {
	switch code {
	case "invalid_request", "invalid_grant", "invalid_target", "invalid_scope", "access_denied":
		return true
	}
	return false
}

// classify drops the text of the answer: it may repeat what was sent.
func (a *asker) classify(err error) error {
	var answer *oauth2.RetrieveError
	if !errors.As(err, &answer) {
		return fmt.Errorf("ask %s for a token: %w: %w", a.endpoint.URL, problem.ErrNoToken, withoutBody(err))
	}
	class := problem.ErrNoToken
	if status := answer.Response.StatusCode; refusal(answer.ErrorCode) && status >= 400 && status < 500 {
		class = problem.ErrTokenRefused
	}
	return fmt.Errorf("ask %s for a token: %w: it answered %d %.64q", a.endpoint.URL, class, answer.Response.StatusCode, answer.ErrorCode)
}

// withoutBody keeps errors of the connection, which say what an operator has to
// know, and no others: those of reading the answer may quote it.
func withoutBody(err error) error {
	if connection, ok := errors.AsType[*url.Error](err); ok {
		return connection.Err
	}
	return errors.New("its answer is not one of a token endpoint")
}

// check refuses an answer that is not a bearer token to be shown in a header.
func (a *asker) check(t *oauth2.Token, begin time.Time) (*granted, error) {
	bad := func(what string) (*granted, error) {
		return nil, fmt.Errorf("ask %s for a token: %w: %s", a.endpoint.URL, problem.ErrNoToken, what)
	}
	switch {
	case len(t.AccessToken) > maxToken:
		return bad("the token is too long")
	case strings.ContainsFunc(t.AccessToken, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return bad("the token has characters that no token has")
	case !strings.EqualFold(t.TokenType, "bearer"):
		return bad(fmt.Sprintf("the token is of type %.32q, not Bearer", t.TokenType))
	}
	g := &granted{token: t.AccessToken, until: begin.Add(unstated)}
	if life, stated := lifetime(t.Extra("expires_in")); stated {
		g.until = begin.Add(life)
	}
	if scope, ok := t.Extra("scope").(string); ok {
		g.scopes = strings.Fields(scope)
	}
	g.kind, _ = t.Extra("issued_token_type").(string)
	return g, nil
}

// maxLifetime keeps an absurd expires_in from being one that is over.
const maxLifetime = 365 * 24 * time.Hour

func lifetime(v any) (time.Duration, bool) {
	seconds, ok := v.(float64)
	if text, is := v.(string); is { // some providers
		n, err := strconv.ParseFloat(text, 64)
		seconds, ok = n, err == nil
	}
	if !ok || seconds != seconds || seconds < 0 {
		return 0, ok
	}
	return time.Duration(min(seconds, maxLifetime.Seconds()) * float64(time.Second)), true
}

// margin is how long before its end a token is not used any more: it takes a while
// to get there, and clocks differ.
func margin(life time.Duration) time.Duration { return min(life/10, 30*time.Second) }

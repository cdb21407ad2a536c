package oidc

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/sync/semaphore"

	"github.com/sallyport/sallyport/proxy/authn"
)

// client is this gateway as the provider knows it.
type client struct {
	config   Config
	provider *provider
	now      func() time.Time
	http     *http.Client
	secret   atomic.Pointer[string]
	signer   atomic.Pointer[signer]    // of assertions; nil without private_key_jwt
	requests atomic.Pointer[[]*signer] // of authorization requests, the usual way first; nil without request_object
	pushing  *semaphore.Weighted
}

func newClient(c Config, p *provider, now func() time.Time) (*client, error) {
	cl := &client{config: c, provider: p, now: now, http: &http.Client{Transport: p.client}, pushing: semaphore.NewWeighted(maxPushes)}
	return cl, cl.reload()
}

func (c *client) files() []string {
	files := []string{c.config.ClientSecretFile, c.config.ClientKeyFile, c.config.ClientCertificateFile, c.config.RequestObjectKeyFile}
	return slices.DeleteFunc(files, func(f string) bool { return f == "" })
}

// reload reads the files. On error what was read before stays, all of it.
func (c *client) reload() error {
	secret := ""
	if f := c.config.ClientSecretFile; f != "" {
		data, err := os.ReadFile(f) //nolint:gosec // the operator names the file
		if err != nil {
			return fmt.Errorf("read client secret: %w", err)
		}
		if secret = strings.TrimSpace(string(data)); secret == "" {
			return fmt.Errorf("client secret: %s is empty", f)
		}
	}
	var assertions *signer
	var requests []*signer
	var err error
	if c.config.ClientKeyFile != "" {
		if assertions, err = loadAssertionSigner(c.config); err != nil {
			return err
		}
	}
	if f, kid := c.config.requestObjectKey(); f != "" {
		if requests, err = loadSigners("request object key", f, requestObjectType, kid); err != nil {
			return err
		}
		c.requests.Store(&requests)
	}
	if assertions != nil {
		c.signer.Store(assertions)
	}
	c.secret.Store(&secret)
	return nil
}

// oauth is the configuration of the OAuth library for one use.
func (c *client) oauth(m *metadata, redirect string) *oauth2.Config {
	o := &oauth2.Config{
		ClientID: c.config.ClientID, RedirectURL: redirect, Scopes: c.config.Scopes,
		Endpoint: oauth2.Endpoint{AuthURL: m.authorization, TokenURL: m.token, AuthStyle: oauth2.AuthStyleInParams},
	}
	switch c.config.ClientAuth {
	case authBasic:
		o.ClientSecret, o.Endpoint.AuthStyle = *c.secret.Load(), oauth2.AuthStyleInHeader
	case authPost:
		o.ClientSecret = *c.secret.Load()
	}
	return o
}

// ask asks the token endpoint. The parameters come on top of those of a code
// exchange, and replace them for another grant.
func (c *client) ask(ctx context.Context, m *metadata, redirect, code string, params url.Values) (*oauth2.Token, error) {
	ctx, cancel := context.WithTimeout(ctx, providerTimeout)
	defer cancel()
	if err := c.prove(m.token, params); err != nil {
		return nil, err
	}
	var opts []oauth2.AuthCodeOption
	for name, values := range params {
		opts = append(opts, oauth2.SetAuthURLParam(name, values[0]))
	}
	token, err := c.oauth(m, redirect).Exchange(context.WithValue(ctx, oauth2.HTTPClient, c.http), code, opts...)
	if err != nil {
		return nil, tokenError(err)
	}
	if t := token.Type(); !strings.EqualFold(t, "Bearer") {
		return nil, fmt.Errorf("%w: token type %.32q is not Bearer", authn.ErrInvalid, t)
	}
	return token, nil
}

// prove adds the client assertion of private_key_jwt (RFC 7523 section 2.2).
func (c *client) prove(audience string, params url.Values) error {
	s := c.signer.Load()
	if s == nil {
		return nil
	}
	now := c.now()
	assertion, err := s.sign(map[string]any{
		"iss": c.config.ClientID, "sub": c.config.ClientID, "aud": audience, "jti": newJTI(),
		"iat": now.Unix(), "nbf": now.Add(-c.config.Leeway).Unix(), "exp": now.Add(time.Minute).Unix(),
	})
	if err != nil {
		return err
	}
	params.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
	params.Set("client_assertion", assertion)
	return nil
}

// newJTI returns an identifier that no JWT of ours had before.
func newJTI() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// tokenError tells a refusal, which ends things, from a provider that is not to be
// had now. The log gets the error code and not the answer, which may hold tokens.
func tokenError(err error) error {
	var r *oauth2.RetrieveError
	if !errors.As(err, &r) {
		return fmt.Errorf("%w: token endpoint: %w", authn.ErrUnavailable, err)
	}
	status := r.Response.StatusCode
	if busy(status, r.ErrorCode) {
		return fmt.Errorf("%w: token endpoint answered %d", authn.ErrUnavailable, status)
	}
	return fmt.Errorf("%w: token endpoint answered %d %.64q", authn.ErrInvalid, status, r.ErrorCode)
}

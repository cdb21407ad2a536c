package oidc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/fetch"
	"github.com/sallyport/sallyport/proxy/authn/jose"
	"github.com/sallyport/sallyport/proxy/authn/jwt"
)

const (
	providerTimeout = 5 * time.Second // for one question
	maxAnswer       = 1 << 20         // bytes
	metadataAge     = 10 * time.Minute
	metadataRetry   = 2 * time.Second
)

// metadata is what a provider says of itself (OpenID Connect Discovery 1.0 section 3).
type metadata struct {
	authorization, token string
	userinfo, endSession string // empty if it has none
	pushed, revocation   string // RFC 9126, RFC 7009; empty if it has none
	pushRequired         bool   // RFC 9126 section 5
	signRequired         bool   // authorization requests, RFC 9101 section 10.5
	requestAlgorithms    []string
	namesIssuer          bool // in authorization responses, RFC 9207 section 3
	fetched              time.Time
}

// provider asks the provider over HTTP.
type provider struct {
	issuer   string
	insecure bool
	aliases  bool // we show a certificate, so that its addresses for that count
	client   *fetch.Client
	now      func() time.Time

	current atomic.Pointer[metadata]
	mu      sync.Mutex // held during a fetch
	failed  time.Time
	lastErr error
}

func newProvider(c Config, now func() time.Time) (*provider, error) {
	client, err := fetch.New(fetch.Config{
		Whose: "issuer " + c.Issuer, CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile, Connections: 16,
	})
	return &provider{issuer: c.Issuer, insecure: c.InsecureHTTP, aliases: c.CertFile != "", client: client, now: now}, err
}

// metadata returns what is known, and asks for it if nothing is. The error is
// authn.ErrUnavailable.
func (p *provider) metadata(ctx context.Context) (*metadata, error) {
	if m := p.current.Load(); m != nil {
		return m, nil
	}
	return p.refresh(ctx, metadataRetry)
}

// refresh asks, unless that failed less than a pause ago.
func (p *provider) refresh(ctx context.Context, pause time.Duration) (*metadata, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lastErr != nil && p.now().Sub(p.failed) < pause {
		return nil, fmt.Errorf("%w: %w", authn.ErrUnavailable, p.lastErr)
	}
	if m := p.current.Load(); m != nil && p.now().Sub(m.fetched) < metadataRetry {
		return m, nil // somebody else was faster
	}
	ctx, cancel := context.WithTimeout(ctx, providerTimeout)
	defer cancel()
	m, err := p.discover(ctx)
	if err != nil {
		p.lastErr, p.failed = fmt.Errorf("discover %s: %w", p.issuer, err), p.now()
		return nil, fmt.Errorf("%w: %w", authn.ErrUnavailable, p.lastErr)
	}
	m.fetched, p.lastErr = p.now(), nil
	p.current.Store(m)
	return m, nil
}

// run keeps the metadata fresh. While the provider is away what it last said counts.
func (p *provider) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		wait := metadataAge
		if m := p.current.Load(); m == nil || p.now().Sub(m.fetched) >= metadataAge {
			if _, err := p.refresh(ctx, 0); err != nil {
				wait = metadataRetry // kept for the answers of requests
			}
		}
		timer.Reset(wait)
	}
}

// discover reads the metadata. The issuer in it must be ours to the letter (OpenID
// Connect Discovery 1.0 section 4.3), and each address as good as the issuer's own.
func (p *provider) discover(ctx context.Context) (*metadata, error) {
	doc, err := p.object(ctx, strings.TrimSuffix(p.issuer, "/")+"/.well-known/openid-configuration", "")
	if err != nil {
		return nil, err
	}
	if doc["issuer"] != p.issuer {
		return nil, fmt.Errorf("metadata is of issuer %.64q", doc["issuer"])
	}
	m := &metadata{}
	m.namesIssuer, _ = doc["authorization_response_iss_parameter_supported"].(bool)
	m.signRequired, _ = doc["require_signed_request_object"].(bool)
	m.pushRequired, _ = doc["require_pushed_authorization_requests"].(bool)
	m.requestAlgorithms, _ = jwt.Strings(doc, "request_object_signing_alg_values_supported") // a list that is none says nothing
	aliases, _ := doc["mtls_endpoint_aliases"].(map[string]any)
	if !p.aliases {
		aliases = nil
	}
	for _, e := range []struct {
		name    string
		to      *string
		needed  bool
		browser bool // is who goes there
	}{
		{"authorization_endpoint", &m.authorization, true, true},
		{"token_endpoint", &m.token, true, false},
		{"userinfo_endpoint", &m.userinfo, false, false},
		{"end_session_endpoint", &m.endSession, false, true},
		{"pushed_authorization_request_endpoint", &m.pushed, false, false},
		{"revocation_endpoint", &m.revocation, false, false},
	} {
		url, ok := doc[e.name].(string)
		if alias, there := aliases[e.name].(string); there && !e.browser { // RFC 8705 section 5
			url, ok = alias, true
		}
		if !ok || url == "" {
			if e.needed {
				return nil, fmt.Errorf("metadata has no %s", e.name)
			}
			continue
		}
		if err := fetch.CheckURL(url, p.insecure); err != nil {
			return nil, fmt.Errorf("%s %.64q %w", e.name, url, err)
		}
		*e.to = url
	}
	return m, nil
}

// object asks for a JSON object, with an access token if there is one.
func (p *provider) object(ctx context.Context, url, token string) (map[string]any, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // nothing is written; a read error shows below
	if resp.StatusCode != http.StatusOK {
		_, _ = io.CopyN(io.Discard, resp.Body, 4<<10)
		return nil, &statusError{url: url, status: resp.StatusCode}
	}
	data, err := fetch.Read(resp.Body, maxAnswer, url)
	if err != nil {
		return nil, err
	}
	doc, err := jose.Object(data)
	if err != nil {
		return nil, fmt.Errorf("answer of %s: %w", url, err)
	}
	return doc, nil
}

// statusError is an answer of the provider that is no success.
type statusError struct {
	url    string
	status int
}

func (e *statusError) Error() string { return fmt.Sprintf("%s answered %d", e.url, e.status) }

// away reports whether err says that the provider is not to be had now, and not that
// it refused.
func away(err error) bool {
	if s, ok := errors.AsType[*statusError](err); ok {
		return s.status >= 500 || s.status == http.StatusTooManyRequests
	}
	return true
}

package clientcredentials

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/asking"
	"github.com/sallyport/sallyport/proxy/authn/fetch"
	"github.com/sallyport/sallyport/proxy/authn/jose"
)

const (
	maxMetadata = 1 << 20 // bytes
	metadataAge = 10 * time.Minute
	// metadataRetry is the time between two attempts to discover.
	metadataRetry = time.Second
)

// granted is a token as the provider gave it; nothing of it is verified.
type granted struct {
	token string
	life  time.Duration // 0: not said
}

// provider is whom the gateway asks for tokens, by a bounded number of questions at a
// time.
type provider struct {
	config  Config
	client  *fetch.Client
	http    *http.Client
	slots   asking.Turns
	breaker *gobreaker.CircuitBreaker[*granted]

	mu      sync.Mutex // held during discovery
	found   string
	next    time.Time // when to discover again
	lastErr error
}

func newProvider(name string, c Config) (*provider, error) {
	client, err := fetch.New(fetch.Config{Whose: "issuer " + c.Issuer, CAFile: c.CAFile, Connections: c.MaxConcurrent})
	p := &provider{config: c, client: client, slots: make(asking.Turns, c.MaxConcurrent)}
	p.http = &http.Client{Transport: client}
	p.breaker = asking.NewBreaker[*granted](name)
	return p, err
}

// ask gets a token for a client. The error is authn.ErrInvalid if the provider refuses
// the client; any other says nothing about it. The context bounds the question.
func (p *provider) ask(ctx context.Context, c credentials) (*granted, error) {
	if err := p.slots.Take(ctx, p.config.MaxWait); err != nil {
		return nil, err
	}
	defer p.slots.Give()
	return p.breaker.Execute(func() (*granted, error) { return p.grant(ctx, c) })
}

func (p *provider) grant(ctx context.Context, c credentials) (*granted, error) {
	endpoint, err := p.endpoint(ctx)
	if err != nil {
		return nil, err
	}
	params := url.Values{}
	for name, value := range p.config.Parameters {
		params.Set(name, value)
	}
	o := clientcredentials.Config{
		ClientID: c.id, ClientSecret: c.secret, TokenURL: endpoint, Scopes: p.config.Scopes,
		EndpointParams: params, AuthStyle: oauth2.AuthStyleInHeader,
	}
	if p.config.ClientAuth == authPost || c.assertion != "" {
		o.AuthStyle = oauth2.AuthStyleInParams
	}
	if c.assertion != "" { // RFC 7521 section 4.2
		params.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		params.Set("client_assertion", c.assertion)
	}
	t, err := o.Token(context.WithValue(ctx, oauth2.HTTPClient, p.http))
	if err != nil {
		return nil, fmt.Errorf("token endpoint %s: %w", endpoint, classify(err, c))
	}
	if !strings.EqualFold(t.TokenType, "Bearer") {
		return nil, fmt.Errorf("token endpoint %s: the token is of type %.32q, not Bearer", endpoint, t.TokenType)
	}
	return &granted{token: t.AccessToken, life: time.Duration(max(0, t.ExpiresIn)) * time.Second}, nil
}

// classify drops the text of the answer, which may repeat what was sent.
func classify(err error, c credentials) error {
	var answer *oauth2.RetrieveError
	if !errors.As(err, &answer) {
		if connection, ok := errors.AsType[*url.Error](err); ok {
			return fmt.Errorf("%w: %w", asking.ErrAbsent, connection.Err)
		}
		return errors.New("its answer is not one of a token endpoint")
	}
	switch status := answer.Response.StatusCode; {
	case status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout:
		return fmt.Errorf("%w: somebody answered %d", asking.ErrAbsent, status)
	case status == http.StatusUnauthorized || status == http.StatusBadRequest && refusal(answer.ErrorCode, c):
		return fmt.Errorf("%w: %w: %d %.64q", authn.ErrInvalid, errRefuses, status, answer.ErrorCode)
	default:
		return fmt.Errorf("it answered %d %.64q", status, answer.ErrorCode)
	}
}

// refusal are the errors that are about the client (RFC 6749 section 5.2, RFC 8707
// section 2). Others are about the gateway or the provider, but that of a request whose
// larger part the caller wrote: an assertion may be anything.
func refusal(code string, c credentials) bool {
	switch code {
	case "invalid_request":
		return c.assertion != ""
	case "invalid_client", "unauthorized_client", "invalid_grant", "invalid_scope", "invalid_target", "access_denied":
		return true
	}
	return false
}

// endpoint returns the token endpoint, and discovers it if need be. While the provider
// is away what it last said counts.
func (p *provider) endpoint(ctx context.Context) (string, error) {
	if p.config.TokenURL != "" {
		return p.config.TokenURL, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); !now.Before(p.next) {
		found, err := p.discover(ctx)
		if err == nil {
			p.found, p.lastErr, p.next = found, nil, now.Add(metadataAge)
		} else {
			p.lastErr, p.next = fmt.Errorf("discover %s: %w", p.config.Issuer, err), time.Now().Add(metadataRetry)
		}
	}
	if p.found != "" {
		return p.found, nil
	}
	return "", p.lastErr
}

// discover reads the issuer's metadata (OpenID Connect Discovery 1.0 section 4). The
// issuer named there must be ours to the letter (section 4.3): secrets go to the
// address that it names.
func (p *provider) discover(ctx context.Context) (string, error) {
	data, err := p.get(ctx, strings.TrimSuffix(p.config.Issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return "", err
	}
	doc, err := jose.Object(data)
	if err != nil {
		return "", fmt.Errorf("metadata: %w", err)
	}
	if doc["issuer"] != p.config.Issuer {
		return "", fmt.Errorf("metadata is of issuer %.64q", doc["issuer"])
	}
	endpoint, ok := doc["token_endpoint"].(string)
	if !ok {
		return "", errors.New("metadata has no token_endpoint")
	}
	if err := fetch.CheckURL(endpoint, p.config.InsecureHTTP); err != nil {
		return "", fmt.Errorf("token_endpoint %.64q %w", endpoint, err)
	}
	return endpoint, nil
}

func (p *provider) get(ctx context.Context, address string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, p.config.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", asking.ErrAbsent, err)
	}
	defer resp.Body.Close() //nolint:errcheck // nothing is written; a read error shows below
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", address, resp.Status)
	}
	return fetch.Read(resp.Body, maxMetadata, address)
}

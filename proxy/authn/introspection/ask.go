package introspection

import (
	"context"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/sony/gobreaker/v2"

	"github.com/sallyport/sallyport/proxy/authn/asking"
	"github.com/sallyport/sallyport/proxy/authn/fetch"
)

// maxAnswer bounds an answer in bytes. What providers send stays under 16 KiB.
const maxAnswer = 256 << 10

// answer is what the provider sent with status 200 or 204.
type answer struct {
	status int
	media  string // lower case, without parameters
	body   []byte
}

// provider is who is asked, by a bounded number of questions at a time.
type provider struct {
	config      Config
	client      *fetch.Client
	credentials *credentials
	slots       asking.Turns
	breaker     *gobreaker.CircuitBreaker[*answer]
}

func newProvider(name string, c Config) (*provider, error) {
	p := &provider{config: c, credentials: &credentials{config: c}, slots: make(asking.Turns, c.MaxConcurrent)}
	if err := p.credentials.reload(); err != nil {
		return nil, err
	}
	var err error
	p.client, err = fetch.New(fetch.Config{
		Whose: c.URL, CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile, Connections: c.MaxConcurrent,
	})
	p.breaker = asking.NewBreaker[*answer](name)
	return p, err
}

// ask sends one question and returns the answer. The context bounds it.
func (p *provider) ask(ctx context.Context, token string) (*answer, error) {
	if err := p.slots.Take(ctx, p.config.MaxWait); err != nil {
		return nil, err
	}
	defer p.slots.Give()
	return p.breaker.Execute(func() (*answer, error) { return p.post(ctx, token) })
}

func (p *provider) post(ctx context.Context, token string) (*answer, error) {
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}
	header := http.Header{
		"Content-Type": {"application/x-www-form-urlencoded"},
		"Accept":       {p.accept()},
	}
	if err := p.credentials.apply(form, header); err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.config.URL, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header = header
	resp, err := p.client.Do(req)
	if err != nil {
		if resp != nil { // a redirect that is not followed
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", asking.ErrAbsent, err)
	}
	defer resp.Body.Close() //nolint:errcheck // nothing is written; a read error shows below
	if err := p.checkStatus(resp); err != nil {
		return nil, err
	}
	body, err := fetch.Read(resp.Body, maxAnswer, "answer")
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%w: %w", asking.ErrAbsent, context.Cause(ctx))
	case err != nil:
		return nil, err
	}
	media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		media = "" // it may be absent, and JSON shows itself
	}
	return &answer{status: resp.StatusCode, media: media, body: body}, nil
}

func (p *provider) checkStatus(resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusNoContent:
		if p.config.Format == formatJWT {
			return nil
		}
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("the provider answered %s: it does not let this client ask; check client_id, its credential and client_auth %s", resp.Status, p.config.ClientAuth)
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return fmt.Errorf("%w: somebody answered %s", asking.ErrAbsent, resp.Status)
	}
	return fmt.Errorf("the provider answered %s", resp.Status)
}

// Media types of answers (RFC 7662 section 2.2, RFC 9701 section 4).
const (
	mediaJSON   = "application/json"
	mediaSigned = "application/token-introspection+jwt"
	mediaJWT    = "application/jwt"
)

func (p *provider) accept() string {
	switch p.config.Format {
	case formatSigned:
		return mediaSigned
	case formatJWT:
		return mediaJWT
	}
	return mediaJSON
}

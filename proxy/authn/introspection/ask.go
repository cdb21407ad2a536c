package introspection

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/sallyport/sallyport/proxy/authn/fetch"
)

// maxAnswer bounds an answer in bytes. What providers send stays under 16 KiB.
const maxAnswer = 256 << 10

// After so many questions in a row without an answer the provider is left alone for
// breakFor, and then asked one question. Until it answers that, all others fail at
// once: they neither wait for it nor keep it down.
const (
	breakAfter = 10
	breakFor   = time.Second
)

var (
	// errAbsent: the provider did not answer, or somebody before it said so.
	errAbsent = errors.New("the provider does not answer")
	// errBusy: too many questions are under way.
	errBusy = errors.New("too many questions are under way")
)

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
	slots       chan struct{}
	breaker     *gobreaker.CircuitBreaker[*answer]
}

func newProvider(name string, c Config) (*provider, error) {
	p := &provider{config: c, credentials: &credentials{config: c}, slots: make(chan struct{}, c.MaxConcurrent)}
	if err := p.credentials.reload(); err != nil {
		return nil, err
	}
	var err error
	p.client, err = fetch.New(fetch.Config{
		Whose: c.URL, CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile, Connections: c.MaxConcurrent,
	})
	p.breaker = gobreaker.NewCircuitBreaker[*answer](gobreaker.Settings{
		Name: name, MaxRequests: 1, Timeout: breakFor,
		ReadyToTrip: func(n gobreaker.Counts) bool { return n.ConsecutiveFailures >= breakAfter },
		// A provider that answers is there, whatever it says: nobody closes the way
		// for others by a token that it chokes on.
		IsSuccessful: func(err error) bool { return !errors.Is(err, errAbsent) },
	})
	return p, err
}

// ask sends one question and returns the answer. The context bounds it.
func (p *provider) ask(ctx context.Context, token string) (*answer, error) {
	if err := p.take(ctx); err != nil {
		return nil, err
	}
	defer func() { <-p.slots }()
	return p.breaker.Execute(func() (*answer, error) { return p.post(ctx, token) })
}

// take waits for a turn, which is given back through slots.
func (p *provider) take(ctx context.Context) error {
	select {
	case p.slots <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(p.config.MaxWait)
	defer timer.Stop()
	select {
	case p.slots <- struct{}{}:
		return nil
	case <-timer.C:
	case <-ctx.Done():
	}
	return errBusy
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
		return nil, fmt.Errorf("%w: %w", errAbsent, err)
	}
	defer resp.Body.Close() //nolint:errcheck // nothing is written; a read error shows below
	if err := p.checkStatus(resp); err != nil {
		return nil, err
	}
	body, err := fetch.Read(resp.Body, maxAnswer, "answer")
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%w: %w", errAbsent, context.Cause(ctx))
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
		return fmt.Errorf("%w: somebody answered %s", errAbsent, resp.Status)
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

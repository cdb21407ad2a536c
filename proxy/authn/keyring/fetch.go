package keyring

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/proxy/authn/fetch"
	"github.com/sallyport/sallyport/proxy/authn/jose"
)

const fetchTimeout = 5 * time.Second // for discovery and key set together

// fetcher gets an issuer's key set over HTTP.
type fetcher struct {
	source Source
	client *fetch.Client
}

func newFetcher(s Source) (*fetcher, error) {
	client, err := fetch.New(fetch.Config{Whose: "issuer " + s.Issuer, CAFile: s.CAFile, Connections: 2})
	f := &fetcher{source: s, client: client}
	if err == nil {
		_, err = f.ownToken()
	}
	return f, err
}

// ownToken reads the token that the server of the key set is shown, empty for none.
func (f *fetcher) ownToken() (string, error) {
	if f.source.TokenFile == "" {
		return "", nil
	}
	data, err := os.ReadFile(f.source.TokenFile)
	if err != nil {
		return "", fmt.Errorf("read token for the key set of %s: %w", f.source.Issuer, err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" || strings.ContainsAny(token, " \t\r\n") {
		return "", fmt.Errorf("read token for the key set of %s: %s does not hold one token", f.source.Issuer, f.source.TokenFile)
	}
	return token, nil
}

// load fetches the key set.
func (f *fetcher) load(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	url := f.source.URL
	if url == "" {
		var err error
		if url, err = f.discover(ctx); err != nil {
			return nil, fmt.Errorf("discover key set of %s: %w", f.source.Issuer, err)
		}
	}
	data, err := f.get(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("fetch key set of %s: %w", f.source.Issuer, err)
	}
	return data, nil
}

// discover reads the issuer's metadata (OpenID Connect Discovery 1.0 section 4).
// The issuer named there must be ours to the letter (section 4.3): otherwise one
// tenant of a provider could answer for another.
func (f *fetcher) discover(ctx context.Context) (string, error) {
	data, err := f.get(ctx, strings.TrimSuffix(f.source.Issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return "", err
	}
	metadata, err := jose.Object(data)
	if err != nil {
		return "", fmt.Errorf("metadata: %w", err)
	}
	if metadata["issuer"] != f.source.Issuer {
		return "", fmt.Errorf("metadata is of issuer %.64q", metadata["issuer"])
	}
	url, ok := metadata["jwks_uri"].(string)
	if !ok {
		return "", errors.New("metadata has no jwks_uri")
	}
	if err := fetch.CheckURL(url, f.source.InsecureHTTP); err != nil {
		return "", fmt.Errorf("jwks_uri %.64q %w", url, err)
	}
	return url, nil
}

func (f *fetcher) get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	token, err := f.ownToken()
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // nothing is written; a read error shows below
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return fetch.Read(resp.Body, jose.MaxKeySet, url)
}

// loadFile reads a file, and makes a set of a single key.
func loadFile(name string) ([]byte, error) {
	f, err := os.Open(name) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("open key set: %w", err)
	}
	defer f.Close() //nolint:errcheck // nothing is written
	data, err := fetch.Read(f, jose.MaxKeySet, name)
	if err != nil {
		return nil, err
	}
	doc, err := jose.Object(data)
	if _, set := doc["keys"]; err != nil || doc["kty"] == nil || set {
		return data, nil // for who reads the set to say what is wrong
	}
	return slices.Concat([]byte(`{"keys":[`), data, []byte(`]}`)), nil
}

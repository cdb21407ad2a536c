package jwt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

const (
	fetchTimeout = 5 * time.Second // for discovery and key set together
	maxRedirects = 3
)

// fetcher gets an issuer's key set over HTTP.
type fetcher struct {
	issuer   string
	url      string // empty: discovered from issuer
	insecure bool
	caFile   string
	client   atomic.Pointer[http.Client]
}

func newFetcher(c Config) (*fetcher, error) {
	f := &fetcher{issuer: c.Issuer, url: c.JWKSURL, insecure: c.InsecureHTTP, caFile: c.CAFile}
	return f, f.connect()
}

// connect makes the client, with the certificates that ca_file holds now.
func (f *fetcher) connect() error {
	transport := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    fetchTimeout,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           2,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
	if f.caFile != "" {
		pem, err := os.ReadFile(f.caFile)
		if err != nil {
			return fmt.Errorf("read CA of issuer %s: %w", f.issuer, err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return fmt.Errorf("read CA of issuer %s: %s holds no PEM certificate", f.issuer, f.caFile)
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	old := f.client.Swap(&http.Client{Transport: transport, CheckRedirect: sameHost})
	if old != nil {
		old.CloseIdleConnections()
	}
	return nil
}

// sameHost follows redirects within the host that the operator named only.
func sameHost(req *http.Request, via []*http.Request) error {
	first := via[0].URL
	switch {
	case len(via) > maxRedirects:
		return errors.New("too many redirects")
	case req.URL.Host != first.Host || req.URL.Scheme != first.Scheme:
		return fmt.Errorf("redirect to another host: %s", req.URL.Redacted())
	}
	return nil
}

// load fetches the key set.
func (f *fetcher) load(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	url := f.url
	if url == "" {
		var err error
		if url, err = f.discover(ctx); err != nil {
			return nil, fmt.Errorf("discover key set of %s: %w", f.issuer, err)
		}
	}
	data, err := f.get(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("fetch key set of %s: %w", f.issuer, err)
	}
	return data, nil
}

// discover reads the issuer's metadata (OpenID Connect Discovery 1.0 section 4).
// The issuer named there must be ours to the letter (section 4.3): otherwise one
// tenant of a provider could answer for another.
func (f *fetcher) discover(ctx context.Context) (string, error) {
	data, err := f.get(ctx, strings.TrimSuffix(f.issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return "", err
	}
	metadata, err := decodeObject(data)
	if err != nil {
		return "", fmt.Errorf("metadata: %w", err)
	}
	if metadata["issuer"] != f.issuer {
		return "", fmt.Errorf("metadata is of issuer %.64q", metadata["issuer"])
	}
	url, ok := metadata["jwks_uri"].(string)
	if !ok {
		return "", errors.New("metadata has no jwks_uri")
	}
	if err := checkURL(url, f.insecure); err != nil {
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
	resp, err := f.client.Load().Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // nothing is written; a read error shows below
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return readLimited(resp.Body, url)
}

// readLimited reads at most the size that a key set may have.
func readLimited(r io.Reader, name string) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxKeySet+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > maxKeySet {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, maxKeySet)
	}
	return data, nil
}

// loadFile reads the key set from a file.
func loadFile(name string) ([]byte, error) {
	f, err := os.Open(name) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("open key set: %w", err)
	}
	defer f.Close() //nolint:errcheck // nothing is written
	return readLimited(f, name)
}

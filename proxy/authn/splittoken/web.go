package splittoken

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"

	"github.com/sallyport/sallyport/proxy/authn/fetch"
)

// placeholder stands in a URL for the hash.
const placeholder = "{hash}"

// web is a store behind HTTP.
type web struct {
	config Config
	client *fetch.Client
	bearer atomic.Pointer[string] // nil: none
}

func newWeb(c Config) (*web, error) {
	w := &web{config: c}
	if err := w.readBearer(); err != nil {
		return nil, err
	}
	var err error
	w.client, err = fetch.New(fetch.Config{
		Whose: c.URL, CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile, Connections: c.MaxConcurrent,
	})
	return w, err
}

func (w *web) readBearer() error {
	if w.config.BearerTokenFile == "" {
		return nil
	}
	data, err := os.ReadFile(w.config.BearerTokenFile)
	if err != nil {
		return fmt.Errorf("read token for %s: %w", w.config.URL, err)
	}
	token := string(bytes.TrimRight(data, "\r\n"))
	if token == "" {
		return fmt.Errorf("read token for %s: %s is empty", w.config.URL, w.config.BearerTokenFile)
	}
	w.bearer.Store(&token)
	return nil
}

func (w *web) get(ctx context.Context, hash string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.ReplaceAll(w.config.URL, placeholder, hash), http.NoBody)
	if err != nil {
		return "", err
	}
	req.Header.Set("Accept", "text/plain")
	if token := w.bearer.Load(); token != nil {
		req.Header.Set("Authorization", "Bearer "+*token)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close() //nolint:errcheck // nothing is written; a read error shows below
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusGone:
		return "", ErrUnknown
	default:
		return "", fmt.Errorf("GET %s: status %s", w.config.URL, resp.Status)
	}
	body, err := fetch.Read(resp.Body, maxRecord, "record")
	return string(body), err
}

func (w *web) files() []string {
	files := w.client.Files()
	if w.config.BearerTokenFile != "" {
		files = append(files, w.config.BearerTokenFile)
	}
	return files
}

func (w *web) reload() error {
	if err := w.readBearer(); err != nil {
		return err
	}
	return w.client.Reload()
}

func (w *web) close() { w.client.Close() }

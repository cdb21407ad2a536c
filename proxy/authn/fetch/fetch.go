// Package fetch is the bounded way to identity providers: which URLs may be asked,
// whom a connection is verified with, which redirects are followed, how much of an
// answer is read. It exists so that every mechanism that asks a provider over HTTP
// does so by the same rules.
//
// It knows no protocol: what is asked and what an answer means is for the mechanism.
package fetch

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"sync/atomic"
	"time"
)

const (
	handshakeTimeout = 5 * time.Second
	maxRedirects     = 3
	// A connection on which nothing arrives for so long is tried, and closed if nobody
	// is there: over HTTP/2, questions would go on into the void of one whose other end
	// vanished without a word.
	pingAfter = 10 * time.Second
)

// Config is where to and by which files a Client connects.
type Config struct {
	Whose       string // "issuer https://idp.example", for errors
	CAFile      string // PEM; verifies the server instead of the system's authorities
	CertFile    string // PEM; the gateway's own certificate, with KeyFile
	KeyFile     string
	Connections int // kept open while idle
}

// Client asks one provider. It is safe for concurrent use.
type Client struct {
	config Config
	client atomic.Pointer[http.Client]
}

// New reads the files of c. An unreadable one is an error.
func New(c Config) (*Client, error) {
	f := &Client{config: c}
	return f, f.Reload()
}

// Files returns the files that Reload reads.
func (c *Client) Files() []string {
	files := []string{c.config.CAFile, c.config.CertFile, c.config.KeyFile}
	return slices.DeleteFunc(files, func(f string) bool { return f == "" })
}

// Reload makes new connections with what the files hold now. On error the old
// ones stay.
func (c *Client) Reload() error {
	trust, err := c.trust()
	if err != nil {
		return err
	}
	transport := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        trust,
		TLSHandshakeTimeout:    handshakeTimeout,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: handshakeTimeout},
		MaxIdleConns:           c.config.Connections,
		MaxIdleConnsPerHost:    c.config.Connections,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
	old := c.client.Swap(&http.Client{Transport: transport, CheckRedirect: checkRedirect})
	if old != nil {
		old.CloseIdleConnections()
	}
	return nil
}

func (c *Client) trust() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.config.CAFile != "" {
		pem, err := os.ReadFile(c.config.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read CA of %s: %w", c.config.Whose, err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read CA of %s: %s holds no PEM certificate", c.config.Whose, c.config.CAFile)
		}
	}
	if c.config.CertFile != "" {
		own, err := tls.LoadX509KeyPair(c.config.CertFile, c.config.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read certificate for %s: %w", c.config.Whose, err)
		}
		t.Certificates = []tls.Certificate{own}
	}
	return t, nil
}

// checkRedirect follows redirects of a GET within the host that the operator named
// only. Any other request carries a credential in its body, and a token or a secret
// is for the address that the operator wrote down.
func checkRedirect(req *http.Request, via []*http.Request) error {
	first := via[0].URL
	switch {
	case via[0].Method != http.MethodGet:
		return fmt.Errorf("redirect of a %s to %s is not followed", via[0].Method, req.URL.Redacted())
	case len(via) > maxRedirects:
		return errors.New("too many redirects")
	case req.URL.Host != first.Host || req.URL.Scheme != first.Scheme:
		return fmt.Errorf("redirect to another host: %s", req.URL.Redacted())
	}
	return nil
}

// Do sends a request. The caller closes the body, and reads it with Read. After an
// error there is none to close, also where a redirect that is not followed left its
// response.
func (c *Client) Do(req *http.Request) (*http.Response, error) {
	return c.client.Load().Do(req) //nolint:gosec // the operator names the URL, or a provider that the operator named
}

// RoundTrip is Do for a library that wants an http.Client of its own. It implements
// http.RoundTripper, which has either a response or an error: a redirect that is not
// followed has both, its body closed.
func (c *Client) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// Close closes the connections that nobody uses.
func (c *Client) Close() { c.client.Load().CloseIdleConnections() }

// Read reads at most limit bytes of what errors call name; more is an error.
func Read(r io.Reader, limit int64, name string) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, limit)
	}
	return data, nil
}

// CheckURL accepts https, http to a loopback address, and http to anywhere when
// insecure. Nothing fetched from the URL is better than the way it came.
func CheckURL(raw string, insecure bool) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return errors.New("is not a URL")
	case u.Host == "" || u.User != nil || u.Fragment != "":
		return errors.New("must be an absolute URL with a host, without user and fragment")
	case u.Scheme == "https":
		return nil
	case u.Scheme != "http":
		return errors.New("must be https")
	case insecure || isLoopback(u.Hostname()):
		return nil
	}
	return errors.New("is http to a host that is not loopback; use https, or say insecure_http: true")
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

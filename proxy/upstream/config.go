package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"time"

	"github.com/sallyport/sallyport/engine/setting"
)

// Config is one upstream: servers that are interchangeable.
type Config struct {
	// Endpoints are http or https URLs without path, such as http://127.0.0.1:9000.
	Endpoints []string `yaml:"endpoints"`
	// ConnectTimeout bounds connecting, TLS handshake included.
	ConnectTimeout time.Duration `yaml:"connect_timeout"`
	// ResponseTimeout is how long the upstream may take to begin its response, and then to send each next part of it.
	ResponseTimeout time.Duration `yaml:"response_timeout"`
	// IdleTimeout is how long an unused connection is kept.
	IdleTimeout time.Duration `yaml:"idle_timeout"`
	// MaxConnections bounds the connections to each endpoint.
	MaxConnections int `yaml:"max_connections"`
	// TLS is for https endpoints.
	TLS TLSConfig `yaml:"tls"`
}

// TLSConfig says how an upstream proves who it is, and how the gateway does.
type TLSConfig struct {
	// CAFile holds the certificates, in PEM, that upstream certificates must descend from; empty: the system's.
	CAFile string `yaml:"ca_file" sallyport:"path"`
	// CertFile and KeyFile are the gateway's own client certificate.
	CertFile string `yaml:"cert_file" sallyport:"path"`
	// KeyFile is the private key of CertFile.
	KeyFile string `yaml:"key_file" sallyport:"path"`
	// ServerName is the name that the certificate must have; empty: the endpoint's host.
	ServerName string `yaml:"server_name"`
	// InsecureSkipVerify accepts any certificate: whoever can reach the network between can read and change everything.
	InsecureSkipVerify bool `yaml:"insecure_skip_verify"`
}

// Default returns the defaults of an upstream.
func Default() Config {
	return Config{
		ConnectTimeout: 5 * time.Second, ResponseTimeout: 60 * time.Second,
		IdleTimeout: 60 * time.Second, MaxConnections: 1024,
	}
}

// withDefaults fills in what is not set.
func (c Config) withDefaults() Config {
	d := Default()
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = d.ConnectTimeout
	}
	if c.ResponseTimeout == 0 {
		c.ResponseTimeout = d.ResponseTimeout
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = d.IdleTimeout
	}
	if c.MaxConnections == 0 {
		c.MaxConnections = d.MaxConnections
	}
	return c
}

// Validate reports every problem, files that cannot be read included.
func (c *Config) Validate() error {
	var errs []error
	if len(c.Endpoints) == 0 {
		errs = append(errs, setting.Problemf("endpoints", "an upstream needs at least one"))
	}
	secure := false
	for i, e := range c.Endpoints {
		ep, err := parseEndpoint(e)
		if err != nil {
			errs = append(errs, setting.Problemf(fmt.Sprintf("endpoints[%d]", i), "%w", err))
			continue
		}
		secure = secure || ep.tls
	}
	for key, d := range map[string]time.Duration{
		"connect_timeout": c.ConnectTimeout, "response_timeout": c.ResponseTimeout, "idle_timeout": c.IdleTimeout,
	} {
		if d < 0 {
			errs = append(errs, setting.Problemf(key, "must not be negative"))
		}
	}
	if c.MaxConnections < 0 {
		errs = append(errs, setting.Problemf("max_connections", "must not be negative"))
	}
	if c.TLS != (TLSConfig{}) && !secure {
		errs = append(errs, setting.Problemf("tls", "no endpoint is https"))
	}
	_, err := c.TLS.build()
	return errors.Join(append(errs, setting.Under("tls", err))...)
}

// Insecure reports whether a start should warn about the upstream.
func (c *Config) Insecure() bool { return c.TLS.InsecureSkipVerify }

// build makes the client side of TLS, without the server's name.
func (c *TLSConfig) build() (*tls.Config, error) {
	var errs []error
	out := &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: c.ServerName,
		InsecureSkipVerify: c.InsecureSkipVerify, //nolint:gosec // the operator's choice, named loudly
		ClientSessionCache: tls.NewLRUClientSessionCache(64),
	}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		out.RootCAs = x509.NewCertPool()
		if err != nil {
			errs = append(errs, setting.Problemf("ca_file", "%w", err))
		} else if !out.RootCAs.AppendCertsFromPEM(pem) {
			errs = append(errs, setting.Problemf("ca_file", "%s holds no certificate", c.CAFile))
		}
	}
	switch {
	case (c.CertFile == "") != (c.KeyFile == ""):
		errs = append(errs, setting.Problemf("cert_file", "cert_file and key_file come together"))
	case c.CertFile != "":
		cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			errs = append(errs, setting.Problemf("cert_file", "%w", err))
		}
		out.Certificates = []tls.Certificate{cert}
	}
	return out, errors.Join(errs...)
}

// address is where an endpoint is.
type address struct {
	hostport string
	host     string // for the certificate
	tls      bool
}

func parseEndpoint(text string) (address, error) {
	u, err := url.Parse(text)
	if err != nil {
		return address{}, fmt.Errorf("%q is not a URL: %w", text, err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return address{}, fmt.Errorf("%q is not an http or https URL", text)
	}
	if u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return address{}, fmt.Errorf("%q has more than scheme, host and port; paths are changed by a route's rewrite", text)
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	host := u.Hostname()
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		return address{}, fmt.Errorf("%q is no address to connect to", text)
	}
	return address{hostport: net.JoinHostPort(host, port), host: host, tls: u.Scheme == "https"}, nil
}

package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/route"
	"github.com/sallyport/sallyport/proxy/upstream"
)

// Config is what a Snapshot is built of.
type Config struct {
	// Listeners are where requests come in.
	Listeners []ListenerConfig `yaml:"listeners"`
	// Upstreams are where requests go to, by name.
	Upstreams map[string]upstream.Config `yaml:"upstreams"`
	// Routes say which request goes where; the first match in file order counts.
	Routes []route.Config `yaml:"routes"`
	// IdentityHeaders are further names that only the gateway or the policy sets: clients' are dropped.
	IdentityHeaders []string `yaml:"identity_headers"`
}

// ListenerConfig is one listener. Its TLS belongs to whoever opens the socket.
type ListenerConfig struct {
	// Name identifies the listener in input.gateway.listener, metrics and logs.
	Name string `yaml:"name"`
	// Address is host:port to listen on.
	Address string `yaml:"address"`
	// ProxyProtocol reads a PROXY protocol header (version 1 or 2) from peers in trusted_proxies; others may not send one.
	ProxyProtocol bool `yaml:"proxy_protocol"`
	// TrustedProxies are addresses or prefixes of peers whose X-Forwarded-*, Forwarded, X-Real-IP, X-Request-Id and X-Forwarded-Client-Cert count.
	// They must set or drop these fields and not hand on what clients send: proofs and signatures of requests are compared with X-Forwarded-Proto and
	// X-Forwarded-Host, and logins lead back there. Routes and policies go by Host.
	TrustedProxies []string `yaml:"trusted_proxies"`
	// RedirectToHTTPS answers every request with a redirect to its https URL.
	RedirectToHTTPS bool `yaml:"redirect_to_https"`
	// AllowPathParameters lets paths have ";". Servers disagree on what it means: with it, a policy can be passed by.
	AllowPathParameters bool `yaml:"allow_path_parameters"`
	// Limits bound what one client can take.
	Limits Limits `yaml:"limits"`
}

// Limits bound what one client can take.
type Limits struct {
	// MaxHeaderBytes bounds request line and headers. Beyond: 431.
	MaxHeaderBytes setting.Size `yaml:"max_header_bytes"`
	// MaxBodyBytes bounds the request body, chunked ones too. Beyond: 413. 0 takes no body.
	MaxBodyBytes setting.Size `yaml:"max_body_bytes"`
	// HeaderTimeout is how long a request head may take from its first byte, and a TLS handshake.
	HeaderTimeout time.Duration `yaml:"header_timeout"`
	// RequestTimeout is how long a request may take from its head until the upstream's response begins, body included.
	RequestTimeout time.Duration `yaml:"request_timeout"`
	// IdleTimeout is how long a connection may wait for its next request.
	IdleTimeout time.Duration `yaml:"idle_timeout"`
	// MaxConnections bounds the open connections. Beyond: 503.
	MaxConnections int `yaml:"max_connections"`
}

// DefaultListener returns the defaults of a listener.
func DefaultListener() ListenerConfig {
	return ListenerConfig{Limits: Limits{
		MaxHeaderBytes: 32 << 10, MaxBodyBytes: 10 << 20,
		HeaderTimeout: 5 * time.Second, RequestTimeout: 60 * time.Second, IdleTimeout: 60 * time.Second,
		MaxConnections: 100_000,
	}}
}

// Validate reports every problem. Known says which authenticators there are;
// nil accepts every name.
func (c *Config) Validate(authenticator func(name string) bool) error {
	var errs []error
	if len(c.Listeners) == 0 {
		errs = append(errs, setting.Problemf("listeners", "a gateway needs at least one"))
	}
	names := map[string]bool{}
	for i := range c.Listeners {
		l := &c.Listeners[i]
		err := l.Validate()
		if names[l.Name] && l.Name != "" {
			err = errors.Join(err, setting.Problemf("name", "%q names another listener too", l.Name))
		}
		names[l.Name] = true
		errs = append(errs, setting.Under(fmt.Sprintf("listeners[%d]", i), err))
	}
	for name, u := range c.Upstreams {
		errs = append(errs, setting.Under("upstreams."+name, u.Validate()))
	}
	known := route.Known{Authenticator: authenticator, Upstream: func(name string) bool { _, ok := c.Upstreams[name]; return ok }}
	errs = append(errs, setting.Under("routes", route.Validate(c.Routes, known)))
	for i, h := range c.IdentityHeaders {
		if h == "" || strings.ContainsAny(h, " :\r\n\t") {
			errs = append(errs, setting.Problemf(fmt.Sprintf("identity_headers[%d]", i), "%q is not a header name", h))
		}
	}
	return errors.Join(errs...)
}

// Validate reports every problem of the listener.
func (l *ListenerConfig) Validate() error {
	var errs []error
	problem := func(key, format string, args ...any) {
		errs = append(errs, setting.Problemf(key, format, args...))
	}
	if l.Name == "" {
		problem("name", "a listener needs a name")
	}
	if err := setting.Address(l.Address); err != nil {
		problem("address", "%w", err)
	}
	for i, t := range l.TrustedProxies {
		if _, err := parsePrefix(t); err != nil {
			problem(fmt.Sprintf("trusted_proxies[%d]", i), "%q is neither an address nor a prefix such as 10.0.0.0/8", t)
		}
	}
	if l.ProxyProtocol && len(l.TrustedProxies) == 0 {
		problem("proxy_protocol", "needs trusted_proxies: nobody else may send the header")
	}
	l.Limits.check(problem)
	return errors.Join(errs...)
}

func (l *Limits) check(problem func(key, format string, args ...any)) {
	if l.MaxHeaderBytes < 1<<10 || l.MaxHeaderBytes > 1<<20 {
		problem("limits.max_header_bytes", "must be between 1KiB and 1MiB")
	}
	if l.MaxBodyBytes < 0 {
		problem("limits.max_body_bytes", "must not be negative")
	}
	if l.MaxConnections <= 0 {
		problem("limits.max_connections", "must be more than 0")
	}
	for _, d := range []struct {
		key   string
		value time.Duration
	}{{"header_timeout", l.HeaderTimeout}, {"request_timeout", l.RequestTimeout}, {"idle_timeout", l.IdleTimeout}} {
		if d.value <= 0 {
			problem("limits."+d.key, "must be more than 0")
		}
	}
}

func parsePrefix(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), nil
	}
	ip, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(ip, ip.BitLen()), nil
}

// Package config is the configuration file: it composes the Config structs of
// the packages that own the settings, reads the file strictly, and reports every
// problem at once with file, line and key.
//
// It owns no setting's meaning and starts nothing. What is wrong with a value is
// said by the package that uses it.
package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/sallyport/sallyport/bundles"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/admin"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/config/strictyaml"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/telemetry"
	"github.com/sallyport/sallyport/engine"
	"github.com/sallyport/sallyport/engine/decisionlog"
	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy"
	"github.com/sallyport/sallyport/proxy/authn/apikey"
	"github.com/sallyport/sallyport/proxy/authn/basic"
	"github.com/sallyport/sallyport/proxy/authn/clientcredentials"
	"github.com/sallyport/sallyport/proxy/authn/httpsignature"
	"github.com/sallyport/sallyport/proxy/authn/introspection"
	"github.com/sallyport/sallyport/proxy/authn/jwt"
	"github.com/sallyport/sallyport/proxy/authn/kubernetes"
	"github.com/sallyport/sallyport/proxy/authn/oidc"
	"github.com/sallyport/sallyport/proxy/authn/resource"
	"github.com/sallyport/sallyport/proxy/authn/signedheader"
	"github.com/sallyport/sallyport/proxy/authn/splittoken"
	"github.com/sallyport/sallyport/proxy/certs"
	"github.com/sallyport/sallyport/proxy/grant"
	"github.com/sallyport/sallyport/proxy/identitytoken"
	"github.com/sallyport/sallyport/proxy/ratelimit"
	"github.com/sallyport/sallyport/proxy/route"
	"github.com/sallyport/sallyport/proxy/upstream"
)

// Version is the version of the format that this build reads.
const Version = "v1"

// Config is the whole file.
type Config struct {
	// Version is the version of this format: v1.
	Version string `yaml:"version" jsonschema:"required,enum=v1"`
	// Gateway is how this gateway calls itself in input.gateway.
	Gateway Gateway `yaml:"gateway"`
	// Listeners are the addresses that clients connect to.
	Listeners []Listener `yaml:"listeners" jsonschema:"required"`
	// Admin is the listener of operators: health, metrics, status, decisions.
	Admin admin.Config `yaml:"admin"`
	// Authenticators establish who sends a request; routes name the ones that
	// count for them.
	Authenticators map[string]Authenticator `yaml:"authenticators"`
	// ProtectedResources are what clients are told of who issues tokens for the APIs
	// (RFC 9728), under /.well-known/oauth-protected-resource and in challenges.
	ProtectedResources []resource.Config `yaml:"protected_resources"`
	// Upstreams are the APIs behind the gateway, by name.
	Upstreams map[string]upstream.Config `yaml:"upstreams"`
	// Routes say which requests go where; the first in file order that matches counts.
	Routes []route.Config `yaml:"routes" jsonschema:"required"`
	// IdentityToken is the gateway's own word on who a caller is, for the upstreams of routes that ask for it.
	IdentityToken *identitytoken.Config `yaml:"identity_token"`
	// TokenExchanges turn callers' tokens into tokens for upstreams (RFC 8693), by name; routes name the one that counts for them.
	TokenExchanges map[string]grant.ExchangeConfig `yaml:"token_exchanges"`
	// ClientCredentials are tokens of the gateway's own for upstreams (RFC 6749 section 4.4), by name; routes name the one that counts for them.
	ClientCredentials map[string]grant.CredentialsConfig `yaml:"client_credentials"`
	// RateLimits bound what policies that answer with rate_limit make the gateway remember.
	RateLimits ratelimit.Config `yaml:"rate_limits"`
	// IdentityHeaders are further header names that only the gateway or a policy
	// sets: what clients send under them is dropped.
	IdentityHeaders []string `yaml:"identity_headers"`
	// Policy says what is asked, where policies come from and what they may do.
	Policy Policy `yaml:"policy" jsonschema:"required"`
	// DecisionLog is the record of every decision, on standard output.
	DecisionLog decisionlog.Config `yaml:"decision_log"`
	// Telemetry is the operator's log, traces and metrics.
	Telemetry telemetry.Config `yaml:"telemetry"`
	// Shutdown says how the gateway leaves traffic on SIGTERM.
	Shutdown Shutdown `yaml:"shutdown"`

	// Text is the file as it was read.
	Text []byte `yaml:"-" json:"-"`

	doc *strictyaml.Document
}

// Shutdown says how the gateway leaves traffic.
type Shutdown struct {
	// Delay is how long the gateway goes on serving, not ready, before it stops
	// taking connections: the time that load balancers need to notice. WebSockets
	// live that long.
	Delay time.Duration `yaml:"delay"`
	// Timeout is how long requests that have begun may take to end. Those that take
	// longer are cut, and the exit status is 1.
	Timeout time.Duration `yaml:"timeout"`
}

// Gateway names the gateway for policies and logs.
type Gateway struct {
	// Name is input.gateway.name; the host's name when empty.
	Name string `yaml:"name"`
	// Labels are input.gateway.labels.
	Labels map[string]string `yaml:"labels"`
}

// Listener is one address that clients connect to.
type Listener struct {
	proxy.ListenerConfig `yaml:",inline"`
	// TLS makes the listener speak TLS. Its files are watched.
	TLS *certs.Config `yaml:"tls"`
}

// Policy says what is asked and where policies come from.
type Policy struct {
	// Engine is what is asked and what policies may do.
	Engine engine.Config `yaml:",inline"`
	// Sources are where policies come from.
	Sources bundles.Config `yaml:",inline"`
	// Dialect is the form of input and decision: sallyport.
	Dialect string `yaml:"dialect" jsonschema:"enum=sallyport"`
	// MaxBodyBytes is how much of a request body is read for a policy that looks
	// at it; a longer one is cut there and input.request.body_truncated is true.
	MaxBodyBytes setting.Size `yaml:"max_body_bytes"`
}

// Default returns the configuration of a file that says nothing.
func Default() Config {
	return Config{
		Admin:       admin.Default(),
		Policy:      Policy{Engine: engine.Default(), Dialect: "sallyport", MaxBodyBytes: 1 << 20},
		RateLimits:  ratelimit.Default(),
		DecisionLog: decisionlog.Default(),
		Telemetry:   telemetry.Default(),
		Shutdown:    Shutdown{Timeout: 30 * time.Second},
	}
}

// Load reads and checks a file. The error joins one problem for each mistake.
func Load(file string) (*Config, error) {
	data, err := os.ReadFile(file) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	return Parse(file, data, os.LookupEnv)
}

// Parse is Load with the text and the environment given.
func Parse(file string, data []byte, env func(string) (string, bool)) (*Config, error) {
	c := Default()
	c.Text = data
	doc, err := strictyaml.Decode(file, data, env, &c, defaults()...)
	c.doc = doc
	var errs []error
	if err != nil {
		errs = append(errs, err)
	}
	for _, p := range setting.Problems(c.Validate()) {
		if !doc.Broken(p.Key) { // what could not be decoded has been said
			errs = append(errs, doc.At(p.Key, p.Err.Error()))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return &c, nil
}

// At returns the problems in err with the places of their keys in the file. Key
// is what err is about: what only the use of a value shows is found after Load.
func (c *Config) At(key string, err error) error {
	var errs []error
	for _, p := range setting.Problems(setting.Under(key, err)) {
		errs = append(errs, c.doc.At(p.Key, p.Err.Error()))
	}
	return errors.Join(errs...)
}

// defaults are what elements of lists and mappings start from.
func defaults() []any {
	return []any{
		Listener{ListenerConfig: proxy.DefaultListener()},
		upstream.Default(),
		jwt.Default(), splittoken.Default(), introspection.Default(), kubernetes.Default(), oidc.Default(),
		apikey.Default(), basic.Default(), signedheader.Default(), clientcredentials.Default(), httpsignature.Default(),
		identitytoken.Default(), grant.DefaultExchange(), grant.DefaultCredentials(),
	}
}

// Validate reports every problem of the values, with keys from the file's root.
func (c *Config) Validate() error {
	var errs []error
	problem := func(key, format string, args ...any) { errs = append(errs, setting.Problemf(key, format, args...)) }
	if c.Version != Version {
		problem("version", "is %q; this build reads %q", c.Version, Version)
	}
	if c.Policy.Dialect != "sallyport" {
		problem("policy.dialect", "%q is not known; use sallyport", c.Policy.Dialect)
	}
	if c.Policy.MaxBodyBytes <= 0 {
		problem("policy.max_body_bytes", "must be more than 0")
	}
	if c.Shutdown.Delay < 0 || c.Shutdown.Timeout <= 0 {
		problem("shutdown", "delay must not be negative and timeout more than 0")
	}
	if len(c.Policy.Sources.Paths) == 0 && len(c.Policy.Sources.OPA) == 0 {
		problem("policy", "has neither paths nor opa: every request would be answered with 503")
	}
	if len(c.Routes) == 0 {
		problem("routes", "there is none: every request would be answered with 404")
	}
	front := c.Front()
	errs = append(errs,
		front.Validate(has(c.Authenticators)),
		c.validateTLS(),
		setting.Under("admin", c.Admin.Validate()),
		c.validateAuthenticators(),
		setting.Under("protected_resources", resource.Validate(c.ProtectedResources)),
		c.validateOutbound(),
		setting.Under("rate_limits", c.RateLimits.Validate()),
		setting.Under("policy", c.Policy.Engine.Validate()),
		setting.Under("policy", c.Policy.Sources.Validate()),
		setting.Under("decision_log", c.DecisionLog.Validate()),
		setting.Under("telemetry", c.Telemetry.Validate()),
	)
	return errors.Join(errs...)
}

// Front returns what the HTTP front is built of.
func (c *Config) Front() proxy.Config {
	out := proxy.Config{Upstreams: c.Upstreams, Routes: c.Routes, IdentityHeaders: c.IdentityHeaders}
	if c.IdentityToken != nil {
		out.IdentityHeaders = append(slices.Clone(c.IdentityHeaders), c.IdentityToken.HeaderName())
	}
	for _, l := range c.Listeners {
		out.Listeners = append(out.Listeners, l.ListenerConfig)
	}
	return out
}

func has[V any](m map[string]V) func(string) bool {
	return func(name string) bool { _, ok := m[name]; return ok }
}

func (c *Config) validateTLS() error {
	var errs []error
	for i, l := range c.Listeners {
		at := fmt.Sprintf("listeners[%d]", i)
		if l.Address == c.Admin.Address {
			errs = append(errs, setting.Problemf(at+".address", "%s is the admin listener's", l.Address))
		}
		if l.TLS != nil {
			errs = append(errs, setting.Under(at+".tls", l.TLS.Validate()))
		}
	}
	return errors.Join(errs...)
}

func (c *Config) validateAuthenticators() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(c.Authenticators)) {
		errs = append(errs, setting.Under("authenticators."+name, c.Authenticators[name].validate()))
		if c.Authenticators[name].MTLS != nil && !slices.ContainsFunc(c.Listeners, asksForCertificates) {
			errs = append(errs, setting.Problemf("authenticators."+name+".mtls", "no listener asks for client certificates: set tls.client_auth and tls.client_ca_file of one"))
		}
	}
	return errors.Join(errs...)
}

func asksForCertificates(l Listener) bool {
	return l.TLS != nil && l.TLS.AsksForCertificates()
}

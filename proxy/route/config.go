package route

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/template"
)

// Config is one route: which requests it takes and what happens to them.
type Config struct {
	// Name identifies the route in input.route.name, metrics and logs.
	Name string `yaml:"name"`
	// Match says which requests the route takes; the first route in file order that matches counts.
	Match Match `yaml:"match"`
	// Authenticate names the authenticators to ask, in order; each says "not mine" or decides.
	Authenticate []string `yaml:"authenticate"`
	// Require is what an identity must have to come as far as the policy.
	Require Require `yaml:"require"`
	// Upstream names the upstream to forward to.
	Upstream string `yaml:"upstream"`
	// Rewrite changes the path before it is judged and forwarded.
	Rewrite Rewrite `yaml:"rewrite"`
	// Entrypoint is this route's own rule, as "orders/decision"; empty: policy.entrypoint.
	Entrypoint string `yaml:"entrypoint"`
	// NoDecisionCache asks the policy for each request anew, also for what policy.decision_cache has kept.
	NoDecisionCache bool `yaml:"no_decision_cache"`
	// Labels appear in input.route.labels and in the decision log.
	Labels map[string]string `yaml:"labels"`
	// ForwardCredentials forwards the client's Authorization header to the upstream, as upstream_authorization: client does. By default it ends at the gateway.
	ForwardCredentials bool `yaml:"forward_credentials"`
	// UpstreamHeaders are set on what is forwarded: templates over .token (Raw, Header, Claims, Signature), .identity (subject, issuer, scopes and so on) and .httpRequestHeader; numbers of claims are floating point. What clients send under their names is dropped, also when a template sets nothing.
	UpstreamHeaders []template.Header `yaml:"upstream_headers"`
	// UpstreamAuthorization is what the upstream gets in Authorization: none, client (what the client sent), token (the access token that stands for the caller, as a bearer token: with phantom tokens and sessions not what the client sent), exchange (a token from token_exchange) or client_credentials (the gateway's own). Default: none.
	UpstreamAuthorization string `yaml:"upstream_authorization" jsonschema:"enum=none,enum=client,enum=token,enum=exchange,enum=client_credentials"`
	// TokenExchange names the exchange of token_exchanges for upstream_authorization: exchange, and for policies that answer with upstream.token_exchange.
	TokenExchange string `yaml:"token_exchange"`
	// ClientCredentials names the entry of client_credentials for upstream_authorization: client_credentials.
	ClientCredentials string `yaml:"client_credentials"`
	// IdentityToken shows the upstream a token of the gateway's own that says who an authenticated caller is; the section identity_token says how it is made.
	IdentityToken *IdentityToken `yaml:"identity_token"`
	// ErrorResponse is what the gateway's own answers on this route look like; by default they are application/problem+json.
	ErrorResponse *template.ErrorResponse `yaml:"error_response"`
	// InputHeaders names credential headers, such as cookie or x-api-key, that the policy may read.
	InputHeaders []string `yaml:"input_headers"`
	// Timeout is how long a request may take until the upstream's response begins; 0: the listener's request_timeout.
	Timeout time.Duration `yaml:"timeout"`
}

// Require is what an identity must have beside being valid. It is checked for every
// request, whatever is cached of a credential; anonymous identities have nothing.
type Require struct {
	// Scopes must all be granted, else 403 insufficient_scope (RFC 6750 section 3.1).
	Scopes []string `yaml:"scopes"`
	// Audiences are those of which the identity must have one, else 401 invalid_token.
	Audiences []string `yaml:"audiences"`
}

// IdentityToken is a route's part of the gateway's own tokens.
type IdentityToken struct {
	// Audience is the aud claim; empty: the name of the upstream that the request goes to.
	Audience string `yaml:"audience"`
}

// Match is a conjunction: each part that is given must hold.
type Match struct {
	// Hosts are names without port, compared without case; *.example.com is any name below example.com. Empty: every host.
	Hosts []string `yaml:"hosts"`
	// Path is a pattern: * is one segment, ** at the end any rest, {name} one segment that becomes input.route.params.name. Empty: /**.
	Path string `yaml:"path"`
	// Methods are upper case; empty: every method that the gateway takes.
	Methods []string `yaml:"methods"`
	// Headers must each be there exactly once with exactly this value. Those that are dropped from every request cannot be named: what only the gateway or the policy sets, and X-Forwarded-* and their like without trusted_proxies.
	Headers map[string]string `yaml:"headers"`
}

// Rewrite changes whole segments at the start of the path.
type Rewrite struct {
	// StripPrefix removes these segments; the pattern must begin with them.
	StripPrefix string `yaml:"strip_prefix"`
	// AddPrefix is put before what is left.
	AddPrefix string `yaml:"add_prefix"`
}

// Known is what the rest of the configuration defines. A nil function accepts
// every name.
type Known struct {
	Upstream      func(name string) bool
	Authenticator func(name string) bool
}

// Validate reports every problem of the routes, each under its index.
func Validate(routes []Config, known Known) error {
	var errs []error
	names := map[string]int{}
	shapes := map[string]int{}
	for i := range routes {
		c := &routes[i]
		err := c.validate(known)
		if first, dup := names[c.Name]; dup && c.Name != "" {
			err = errors.Join(err, setting.Problemf("name", "%q is also the name of route %d", c.Name, first))
		}
		names[c.Name] = i
		shape := c.shape()
		if first, dup := shapes[shape]; dup {
			err = errors.Join(err, setting.Problemf("match", "can never match: route %q before it takes the same requests", routes[first].Name))
		} else {
			shapes[shape] = i
		}
		errs = append(errs, setting.Under(fmt.Sprintf("[%d]", i), err))
	}
	errs = append(errs, shadowed(routes)...)
	return errors.Join(errs...)
}

// shape is equal for routes that match the same requests.
func (c *Config) shape() string {
	hosts, methods := lowered(c.Match.Hosts), slices.Clone(c.Match.Methods)
	slices.Sort(hosts)
	slices.Sort(methods)
	var headers []string
	for k, v := range c.Match.Headers {
		headers = append(headers, strings.ToLower(k)+"="+v)
	}
	slices.Sort(headers)
	var path []string
	if p, err := parsePattern(c.Match.Path); err == nil {
		for _, s := range p.segments {
			if s.kind == wildcard {
				s.literal = "*" // the name of a parameter matches nothing
			}
			path = append(path, s.literal)
		}
		if p.rest {
			path = append(path, "**")
		}
	} else {
		path = []string{c.Match.Path}
	}
	return fmt.Sprintf("%q %q %q %q", hosts, methods, headers, path)
}

// shadowed reports the routes that come after one that takes every request.
func shadowed(routes []Config) []error {
	for i := range routes {
		m := &routes[i].Match
		p, err := parsePattern(m.Path)
		if err != nil || len(m.Hosts)+len(m.Methods)+len(m.Headers)+len(p.segments) > 0 || !p.rest {
			continue
		}
		var errs []error
		for j := i + 1; j < len(routes); j++ {
			errs = append(errs, setting.Problemf(fmt.Sprintf("[%d].match", j), "can never match: route %q before it takes every request", routes[i].Name))
		}
		return errs
	}
	return nil
}

func (c *Config) validate(known Known) error {
	var errs []error
	problem := func(key, format string, args ...any) {
		errs = append(errs, setting.Problemf(key, format, args...))
	}
	for i, s := range c.Require.Scopes {
		if !isScope(s) {
			problem(fmt.Sprintf("require.scopes[%d]", i), "%q is not one scope (RFC 6749 section 3.3)", s)
		}
	}
	if slices.Contains(c.Require.Audiences, "") {
		problem("require.audiences", "has an empty one")
	}
	if c.Name == "" {
		problem("name", "a route needs a name")
	}
	p, err := parsePattern(c.Match.Path)
	if err != nil {
		problem("match.path", "%w", err)
	} else if err := c.Rewrite.check(p); err != nil {
		errs = append(errs, err)
	}
	if c.Upstream == "" {
		problem("upstream", "a route needs an upstream")
	} else if known.Upstream != nil && !known.Upstream(c.Upstream) {
		problem("upstream", "no upstream is named %q", c.Upstream)
	}
	if len(c.Authenticate) == 0 {
		problem("authenticate", "a route needs at least one authenticator; name an anonymous one to let everyone reach the policy")
	}
	for i, name := range c.Authenticate {
		if known.Authenticator != nil && !known.Authenticator(name) {
			problem(fmt.Sprintf("authenticate[%d]", i), "no authenticator is named %q", name)
		}
	}
	if c.Timeout < 0 {
		problem("timeout", "must not be negative")
	}
	return errors.Join(append(errs, c.Match.check(), checkNames("input_headers", c.InputHeaders), c.checkTemplates(), c.checkAuthorization())...)
}

// What upstream_authorization can be.
const (
	AuthorizationNone              = "none"
	AuthorizationClient            = "client"
	AuthorizationToken             = "token"
	AuthorizationExchange          = "exchange"
	AuthorizationClientCredentials = "client_credentials"
)

// ForwardsCredentials reports whether the upstream gets what the client sent to
// authenticate.
func (c *Config) ForwardsCredentials() bool {
	return c.ForwardCredentials || c.UpstreamAuthorization == AuthorizationClient
}

func (c *Config) checkAuthorization() error {
	const key = "upstream_authorization"
	switch c.UpstreamAuthorization {
	case "", AuthorizationClient:
		return nil
	case AuthorizationNone, AuthorizationToken:
	case AuthorizationExchange:
		if c.TokenExchange == "" {
			return setting.Problemf(key, "exchange needs token_exchange, which names the exchange")
		}
	case AuthorizationClientCredentials:
		if c.ClientCredentials == "" {
			return setting.Problemf(key, "client_credentials needs the key client_credentials, which names whose")
		}
	default:
		return setting.Problemf(key, "%q is not known; use none, client, token, exchange or client_credentials", c.UpstreamAuthorization)
	}
	if c.ForwardCredentials {
		return setting.Problemf(key, "%s and forward_credentials: true say two things about one header", c.UpstreamAuthorization)
	}
	return nil
}

func (c *Config) checkTemplates() error {
	_, err := template.NewHeaders(c.UpstreamHeaders)
	err = setting.Under("upstream_headers", err)
	if c.ErrorResponse != nil {
		_, bad := template.NewErrors(*c.ErrorResponse)
		err = errors.Join(err, setting.Under("error_response", bad))
	}
	return err
}

func (m *Match) check() error {
	var errs []error
	for i, h := range m.Hosts {
		if !validHostPattern(h) {
			errs = append(errs, setting.Problemf(fmt.Sprintf("match.hosts[%d]", i), "%q is neither a host name without port nor *.name", h))
		}
	}
	for i, method := range m.Methods {
		if !validMethod(method) {
			errs = append(errs, setting.Problemf(fmt.Sprintf("match.methods[%d]", i), "%q is not a method that can be routed; methods are upper case", method))
		}
	}
	for k := range m.Headers {
		errs = append(errs, checkNames("match.headers", []string{k}))
	}
	return errors.Join(errs...)
}

func checkNames(key string, names []string) error {
	var errs []error
	for _, n := range names {
		if n == "" || strings.ContainsFunc(n, func(r rune) bool { return !isNameRune(r) }) {
			errs = append(errs, setting.Problemf(key, "%q is not a header name", n))
		}
	}
	return errors.Join(errs...)
}

func isNameRune(r rune) bool {
	return r == '-' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
}

// validMethod refuses CONNECT and TRACE too: the one makes a tunnel of the
// gateway, the other shows a client's credentials to its scripts.
func validMethod(m string) bool {
	if m == "" || m == "CONNECT" || m == "TRACE" || len(m) > 32 {
		return false
	}
	return !strings.ContainsFunc(m, func(r rune) bool { return (r < 'A' || r > 'Z') && r != '-' })
}

func validHostPattern(h string) bool {
	h = strings.TrimPrefix(h, "*.")
	if h == "" || strings.HasPrefix(h, ".") || strings.HasSuffix(h, ".") || strings.Contains(h, "..") {
		return false
	}
	if strings.HasPrefix(h, "[") {
		return strings.HasSuffix(h, "]")
	}
	return !strings.ContainsFunc(h, func(r rune) bool { return !isNameRune(r) && r != '.' && r != '_' })
}

func lowered(in []string) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = strings.ToLower(s)
	}
	return out
}

// isScope reports whether s is a scope-token (RFC 6749 section 3.3).
func isScope(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return s != ""
}

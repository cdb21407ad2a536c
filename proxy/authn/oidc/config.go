package oidc

import (
	"errors"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn/fetch"
	"github.com/sallyport/sallyport/proxy/authn/jwt"
	"github.com/sallyport/sallyport/proxy/session"
)

// Kind is the key of this mechanism in the configuration.
const Kind = "oidc"

// The ways in which the gateway authenticates to the provider (OpenID Connect Core
// section 9, RFC 8705).
const (
	authBasic = "client_secret_basic"
	authPost  = "client_secret_post"
	authKey   = "private_key_jwt"
	authTLS   = "tls_client_auth" // RFC 8705 section 2; self-signed certificates too
	authNone  = "none"
)

// Config is one provider at which people log in.
type Config struct {
	// Issuer is the provider's issuer identifier. Its metadata is read from there
	// (OpenID Connect Discovery 1.0 section 4), and ID tokens must be of it.
	Issuer string `yaml:"issuer"`
	// ClientID is what the provider calls this gateway.
	ClientID string `yaml:"client_id"`
	// ClientSecretFile is a file with the secret that the provider gave the gateway.
	ClientSecretFile string `yaml:"client_secret_file" sallyport:"path"`
	// ClientKeyFile is a file with the private key, PEM, for private_key_jwt: RSA,
	// P-256, P-384 or Ed25519.
	ClientKeyFile string `yaml:"client_key_file" sallyport:"path"`
	// ClientKeyID is the kid by which the provider knows that key.
	ClientKeyID string `yaml:"client_key_id"`
	// ClientCertificateFile is a file with the certificate of that key, PEM, for
	// providers such as Entra ID that know it by the certificate's SHA-256 thumbprint
	// (x5t#S256, RFC 7515 section 4.1.8). An RSA key then signs with PS256. On a
	// connection no certificate is shown but cert_file.
	ClientCertificateFile string `yaml:"client_certificate_file" sallyport:"path"`
	// CertFile holds the PEM certificate that the gateway shows the provider, for
	// tls_client_auth (RFC 8705 section 2); a self-signed one will do where the provider
	// knows it.
	CertFile string `yaml:"cert_file" sallyport:"path"`
	// KeyFile holds the PEM private key of cert_file.
	KeyFile string `yaml:"key_file" sallyport:"path"`
	// ClientAuth is how the gateway proves at the token endpoint who it is, and wherever
	// else it speaks to the provider itself: client_secret_basic, client_secret_post,
	// private_key_jwt, tls_client_auth or none. By default what the files given allow.
	ClientAuth string `yaml:"client_auth" jsonschema:"enum=client_secret_basic,enum=client_secret_post,enum=private_key_jwt,enum=tls_client_auth,enum=none"`
	// Scopes are asked for at each login; openid and email by default. openid is
	// added if it is missing. Without offline_access most providers give no refresh
	// token.
	Scopes []string `yaml:"scopes"`
	// AuthorizationParameters are sent to the authorization endpoint in addition, such
	// as audience.
	AuthorizationParameters map[string]string `yaml:"authorization_parameters"`
	// PushedAuthorizationRequests says when the gateway gives the provider the
	// parameters of a login directly and the browser a reference to them (RFC 9126), so
	// that nobody on the way can read or change them: auto where the provider offers
	// that, required always, off only where the provider requires it. A provider that
	// does not take them has nobody log in; there is no way back to plain parameters.
	PushedAuthorizationRequests string `yaml:"pushed_authorization_requests" jsonschema:"enum=auto,enum=required,enum=off"`
	// RequestObject signs the parameters of each login (RFC 9101), so that the provider
	// knows them to be the gateway's. It needs request_object_key_file, or
	// client_key_file.
	RequestObject bool `yaml:"request_object"`
	// RequestObjectKeyFile is a file with the private key, PEM, that signs them, of a
	// kind that client_key_file may have; that key by default.
	RequestObjectKeyFile string `yaml:"request_object_key_file" sallyport:"path"`
	// RequestObjectKeyID is the kid by which the provider knows that key.
	RequestObjectKeyID string `yaml:"request_object_key_id"`
	// RedirectPath is where the provider sends browsers back to. With redirect_origin in
	// front of it, or else each of origins, it is the redirect URI to register at the
	// provider.
	RedirectPath string `yaml:"redirect_path"`
	// LoginPath is where a link may lead to log in, with the page to come back to as
	// return: /oauth2/login?return=/orders; login beside redirect_path by default.
	LoginPath string `yaml:"login_path"`
	// DisplayName is what people read where they choose between several providers; the
	// authenticator's name by default.
	DisplayName string `yaml:"display_name"`
	// LogoutPath is where people log out; logout beside redirect_path by default. GET
	// shows a form, and POST with the form's token logs out.
	LogoutPath string `yaml:"logout_path"`
	// FrontChannelLogoutPath is the frontchannel_logout_uri to register at the
	// provider; frontchannel-logout beside redirect_path by default.
	FrontChannelLogoutPath string `yaml:"frontchannel_logout_path"`
	// BackChannelLogoutPath is the backchannel_logout_uri to register at the provider;
	// backchannel-logout beside redirect_path by default.
	BackChannelLogoutPath string `yaml:"backchannel_logout_path"`
	// SharedSignals takes the provider's security events, which end sessions. Without it,
	// nothing does.
	SharedSignals *SharedSignals `yaml:"shared_signals"`
	// PostLogoutRedirect is where browsers go when they have logged out at the
	// provider: a path of the same origin, or an https URL. The provider must know it.
	// Without it, they stay on the provider's page.
	PostLogoutRedirect string `yaml:"post_logout_redirect"`
	// KeepTokensAtLogout leaves the refresh and access token of a session that ends by a
	// logout as they are. Without it the provider is asked to revoke them (RFC 7009), if
	// it has an address for that: some providers then ask for consent at the next login.
	KeepTokensAtLogout bool `yaml:"keep_tokens_at_logout"`
	// Origins are the origins at which people may log in, such as
	// https://app.example.com; https://*.example.com is every host below example.com,
	// and not example.com itself. Without any, every host that reaches the gateway is
	// one; the provider then is who refuses redirect URIs that it does not know.
	Origins []string `yaml:"origins"`
	// RedirectOrigin is the origin that the provider sends browsers back to, whichever of
	// origins the login began at: https://example.com. With redirect_path it is the one
	// redirect URI to register. The browser then goes to its page where the login began.
	// It is one of origins, and needs session.cookie_domain with all of them below: the
	// cookie of a login has that domain too, to reach it. By default a login comes back
	// to where it began.
	RedirectOrigin string `yaml:"redirect_origin"`
	// InternalOrigins tell, by public origin, the origins as which its requests arrive
	// behind a proxy that rewrites Host, or that ends TLS and does not say so:
	// {"https://app.example.com": ["http://gateway.internal"]}. Cookies, redirect URIs
	// and logouts are then those of the public origin, which is one of origins; what
	// routes, policies and logs see is what arrived. * stands for any scheme or host, as
	// in *://*, if origins has a single entry. The proxy need not be one of
	// trusted_proxies, whose headers count: whoever gets past it and sends such a Host
	// gains nothing, since the addresses are these here, and browsers neither keep nor
	// send the cookies over plain http.
	InternalOrigins map[string][]string `yaml:"internal_origins"`
	// ConcurrentLogins is how many logins one browser may have under way, each of which
	// is a cookie that travels with every request until it ends: 1 to 5. With more than
	// one, several tabs can log in at once; with one, a login that begins ends the one
	// before.
	ConcurrentLogins int `yaml:"concurrent_logins"`
	// Userinfo asks the provider's userinfo endpoint at each login and renewal; its
	// claims are added to those of the ID token.
	Userinfo bool `yaml:"userinfo"`
	// Algorithms are those that ID and logout tokens may be signed with; RS256, PS256,
	// ES256 and EdDSA by default.
	Algorithms []string `yaml:"algorithms"`
	// Leeway is how far the provider's clock may be off, at most 60s.
	Leeway time.Duration `yaml:"leeway"`
	// CAFile holds the PEM certificates that the provider's server is verified with
	// instead of the system's.
	CAFile string `yaml:"ca_file" sallyport:"path"`
	// InsecureHTTP allows http:// to a provider that is not on loopback. Whoever
	// controls the network can then log in as anybody.
	InsecureHTTP bool `yaml:"insecure_http"`
	// Pages is how the pages look that the gateway shows people. Where they choose
	// between several providers, it is that of the route's first.
	Pages Pages `yaml:"pages"`
	// Session is how logins are kept.
	Session session.Config `yaml:"session"`
}

// Default returns the settings of a Config that leaves them out.
func Default() Config {
	return Config{
		Scopes: []string{"openid", "email"}, RedirectPath: "/oauth2/callback", Leeway: 30 * time.Second,
		PushedAuthorizationRequests: pushAuto, ConcurrentLogins: 1, Session: session.Default(),
	}
}

// filled returns c with the default for each setting whose zero value means nothing.
func (c Config) filled() Config {
	d := Default()
	if c.Scopes == nil {
		c.Scopes = d.Scopes
	}
	if !slices.Contains(c.Scopes, "openid") {
		c.Scopes = append([]string{"openid"}, c.Scopes...)
	}
	if c.RedirectPath == "" {
		c.RedirectPath = d.RedirectPath
	}
	if c.ConcurrentLogins == 0 {
		c.ConcurrentLogins = d.ConcurrentLogins
	}
	if c.PushedAuthorizationRequests == "" {
		c.PushedAuthorizationRequests = d.PushedAuthorizationRequests
	}
	for p, name := range map[*string]string{
		&c.LoginPath: "login", &c.LogoutPath: "logout", &c.FrontChannelLogoutPath: "frontchannel-logout", &c.BackChannelLogoutPath: "backchannel-logout",
	} {
		if *p == "" {
			*p = path.Join(path.Dir(c.RedirectPath), name)
		}
	}
	c.SharedSignals = c.SharedSignals.filled(path.Join(path.Dir(c.RedirectPath), "security-events"), c.ClientID)
	if c.ClientAuth == "" {
		switch {
		case c.ClientSecretFile != "":
			c.ClientAuth = authBasic
		case c.ClientKeyFile != "":
			c.ClientAuth = authKey
		case c.CertFile != "":
			c.ClientAuth = authTLS
		default:
			c.ClientAuth = authNone
		}
	}
	c.Session = c.Session.Filled()
	return c
}

// Insecure returns what weakens the gateway, by key, and what it means.
func (c *Config) Insecure() map[string]string {
	out := map[string]string{}
	for key, means := range c.Session.Insecure() {
		out["session."+key] = means
	}
	if c.InsecureHTTP {
		out["insecure_http"] = "whoever controls the network can log in as anybody"
	}
	return out
}

// Validate reports everything wrong with c.
func (c Config) Validate() error {
	c = c.filled()
	return errors.Join(
		c.validateProvider(), c.validateClient(), c.validatePush(), c.validateRequestObject(), c.validateParameters(), c.validatePaths(), c.validateOrigins(),
		setting.Under("pages", c.Pages.validate()), setting.Under("session", c.Session.Validate()),
	)
}

func (c Config) validateProvider() error {
	if c.Issuer == "" {
		return setting.Problemf("issuer", "is missing: it says who is asked to log people in")
	}
	return errors.Join(setting.Under("issuer", fetch.CheckURL(c.Issuer, c.InsecureHTTP)), c.source().Validate(), c.validateLeeway())
}

func (c Config) validateLeeway() error {
	if c.Leeway < 0 || c.Leeway > time.Minute {
		return setting.Problemf("leeway", "%s is not between 0s and 1m0s", c.Leeway)
	}
	return nil
}

func (c Config) source() jwt.Source {
	return jwt.Source{Issuer: c.Issuer, Algorithms: c.Algorithms, CAFile: c.CAFile, InsecureHTTP: c.InsecureHTTP}
}

func (c Config) validateClient() error {
	var errs []error
	problem := func(key, format string, args ...any) { errs = append(errs, setting.Problemf(key, format, args...)) }
	if c.ClientID == "" {
		problem("client_id", "is missing: it is what the provider calls this gateway")
	}
	switch c.ClientAuth {
	case authBasic, authPost:
		if c.ClientSecretFile == "" {
			problem("client_secret_file", "is missing: %s needs a secret", c.ClientAuth)
		}
	case authKey:
		if c.ClientKeyFile == "" {
			problem("client_key_file", "is missing: %s needs a key", c.ClientAuth)
		}
	case authTLS:
		if c.CertFile == "" {
			problem("cert_file", "is missing: %s needs a certificate", c.ClientAuth)
		}
	case authNone:
	default:
		problem("client_auth", "%q is not one of %s, %s, %s, %s, %s", c.ClientAuth, authBasic, authPost, authKey, authTLS, authNone)
	}
	if c.ClientSecretFile != "" && c.ClientAuth != authBasic && c.ClientAuth != authPost {
		problem("client_secret_file", "is not used with client_auth %s", c.ClientAuth)
	}
	if c.ClientKeyFile != "" && c.ClientAuth != authKey {
		problem("client_key_file", "is not used with client_auth %s", c.ClientAuth)
	}
	if c.ClientCertificateFile != "" && c.ClientAuth != authKey {
		problem("client_certificate_file", "is not used with client_auth %s", c.ClientAuth)
	}
	if c.CertFile != "" && c.ClientAuth != authTLS {
		problem("cert_file", "is not used with client_auth %s", c.ClientAuth)
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		problem("key_file", "and cert_file go together")
	}
	return errors.Join(errs...)
}

// reserved are the parameters of an authorization request that the gateway makes
// itself, each a part of what protects the login.
func reserved() []string {
	return []string{
		"response_type", "response_mode", "client_id", "redirect_uri", "scope", "state", "nonce", "code_challenge", "code_challenge_method",
		"request", "request_uri", "client_secret", "client_assertion", "client_assertion_type",
	}
}

func (c Config) validateParameters() error {
	var errs []error
	if c.ConcurrentLogins < 1 || c.ConcurrentLogins > maxFlows {
		errs = append(errs, setting.Problemf("concurrent_logins", "%d is not between 1 and %d", c.ConcurrentLogins, maxFlows))
	}
	for name := range c.AuthorizationParameters {
		if slices.Contains(reserved(), name) || c.RequestObject && slices.Contains(ofRequestObject(), name) {
			errs = append(errs, setting.Problemf("authorization_parameters."+name, "is for the gateway to set"))
		}
	}
	for _, s := range c.Scopes {
		if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '\\' }) {
			errs = append(errs, setting.Problemf("scopes", "%q is not a scope", s))
		}
	}
	return errors.Join(errs...)
}

func (c Config) validatePaths() error {
	var errs []error
	seen := map[string]string{}
	for _, p := range []struct{ key, path string }{
		{"redirect_path", c.RedirectPath},
		{"login_path", c.LoginPath},
		{"logout_path", c.LogoutPath},
		{"frontchannel_logout_path", c.FrontChannelLogoutPath},
		{"backchannel_logout_path", c.BackChannelLogoutPath},
	} {
		if addr, ok := returnAddress(p.path); !ok || addr != p.path || strings.ContainsAny(p.path, "?%") {
			errs = append(errs, setting.Problemf(p.key, "%q is not a plain path such as /oauth2/callback", p.path))
		}
		if other, twice := seen[p.path]; twice {
			errs = append(errs, setting.Problemf(p.key, "is the same as %s", other))
		}
		seen[p.path] = p.key
	}
	errs = append(errs, setting.Under("shared_signals", c.SharedSignals.validate(slices.Collect(maps.Keys(seen)))))
	if p := c.PostLogoutRedirect; p != "" && !strings.HasPrefix(p, "/") {
		errs = append(errs, setting.Under("post_logout_redirect", fetch.CheckURL(p, false)))
	} else if _, ok := returnAddress(p); p != "" && !ok {
		errs = append(errs, setting.Problemf("post_logout_redirect", "%q is neither a path nor an https URL", p))
	}
	return errors.Join(errs...)
}

func (c Config) validateOrigins() error {
	var errs []error
	for i, o := range c.Origins {
		errs = append(errs, c.validateOrigin(i+1, o))
	}
	return errors.Join(append(errs, c.validateRedirectOrigin(), c.validateInternalOrigins())...)
}

package resource

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/sallyport/sallyport/engine/setting"
)

// Config is what clients are told of one protected resource (RFC 9728 section 2).
type Config struct {
	// Resource is the identifier of the resource, such as https://api.example.com
	// or https://api.example.com/mcp: requests to its host, and to its path and
	// below, belong to it.
	Resource string `yaml:"resource"`
	// AuthorizationServers are the issuers of tokens for it.
	AuthorizationServers []string `yaml:"authorization_servers"`
	// ScopesSupported are the scopes that clients may ask for.
	ScopesSupported []string `yaml:"scopes_supported"`
	// ResourceName is a name for people.
	ResourceName string `yaml:"resource_name"`
	// ResourceDocumentation is the URL of a page for developers.
	ResourceDocumentation string `yaml:"resource_documentation"`
	// DPoPSigningAlgValuesSupported are the algorithms of DPoP proofs that the
	// authenticators of the resource accept.
	DPoPSigningAlgValuesSupported []string `yaml:"dpop_signing_alg_values_supported"`
	// DPoPBoundAccessTokensRequired tells clients that tokens must be bound by
	// DPoP. It is dpop.required of the authenticators that makes it so.
	DPoPBoundAccessTokensRequired bool `yaml:"dpop_bound_access_tokens_required"`
}

// Validate reports everything wrong with c.
func (c Config) Validate() error {
	var errs []error
	if _, err := parse(c.Resource); err != nil {
		errs = append(errs, setting.Under("resource", err))
	}
	if len(c.AuthorizationServers) == 0 {
		errs = append(errs, setting.Problemf("authorization_servers", "is missing: clients would not learn where to get a token"))
	}
	for i, s := range c.AuthorizationServers {
		if _, err := parse(s); err != nil {
			errs = append(errs, setting.Under(fmt.Sprintf("authorization_servers[%d]", i), err))
		}
	}
	if c.ResourceDocumentation != "" {
		if u, err := url.Parse(c.ResourceDocumentation); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			errs = append(errs, setting.Problemf("resource_documentation", "%q is not the URL of a page", c.ResourceDocumentation))
		}
	}
	return errors.Join(errs...)
}

// Validate reports everything wrong with all, two for one place among it.
func Validate(all []Config) error {
	var errs []error
	places := map[string]int{}
	for i, c := range all {
		at := fmt.Sprintf("[%d]", i)
		errs = append(errs, setting.Under(at, c.Validate()))
		u, err := parse(c.Resource)
		if err != nil {
			continue
		}
		place := hostOf(u) + strings.TrimSuffix(u.EscapedPath(), "/")
		if first, twice := places[place]; twice {
			errs = append(errs, setting.Problemf(at+".resource", "is at the same host and path as number %d of the list", first))
		}
		places[place] = i
	}
	return errors.Join(errs...)
}

// parse reads a resource identifier or an issuer: https, or http to a loopback
// address, without query and fragment (RFC 9728 section 1.2, RFC 8414 section 2).
func parse(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, errors.New("is not a URL")
	case u.Host == "" || u.User != nil || strings.ContainsAny(raw, "?#\"\\ "):
		return nil, errors.New("must be an absolute URL with a host, without user, query and fragment")
	case u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname()):
		return u, nil
	}
	return nil, errors.New("must be https")
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// hostOf returns the host as requests are matched by it: lower case, without port.
func hostOf(u *url.URL) string {
	return strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(u.Host), u.Port()), ":")
}

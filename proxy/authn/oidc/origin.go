package oidc

import (
	"errors"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/session"
)

// origins are those at which people may log in. Without any they are all.
type origins struct {
	exact []string
	below []subdomains
}

// subdomains are the origins of all hosts below a domain.
type subdomains struct {
	scheme string // "https://"
	suffix string // ".example.com", with a port that is not the scheme's own
}

// newOrigins reads what Validate has accepted.
func newOrigins(c Config) *origins {
	o := &origins{}
	for _, text := range c.Origins {
		text = canonicalURL(text)
		if scheme, below, ok := strings.Cut(text, "*"); ok {
			o.below = append(o.below, subdomains{scheme, below})
			continue
		}
		o.exact = append(o.exact, text)
	}
	return o
}

// canonicalURL is canonical of an origin in one piece.
func canonicalURL(o string) string {
	scheme, host, _ := strings.Cut(o, "://")
	return canonical(scheme, host)
}

// canonical is an origin as browsers write it: lower case, without the port that the
// scheme has anyway (RFC 6454 section 6.2).
func canonical(scheme, host string) string {
	o := scheme + "://" + strings.ToLower(host)
	if scheme == "https" {
		return strings.TrimSuffix(o, ":443")
	}
	return strings.TrimSuffix(o, ":80")
}

// admit reports whether people may log in at a canonical origin.
func (o *origins) admit(origin string) bool {
	if len(o.exact)+len(o.below) == 0 || slices.Contains(o.exact, origin) {
		return true
	}
	for i := range o.below {
		if o.below[i].has(origin) {
			return true
		}
	}
	return false
}

// has reports whether origin is of a host below the domain. What stands in front of the
// domain has to be labels and nothing else: with userinfo, a slash or another port in it
// the domain would not be where it seems.
func (s *subdomains) has(origin string) bool {
	rest, ok := strings.CutPrefix(origin, s.scheme)
	if ok {
		rest, ok = strings.CutSuffix(rest, s.suffix)
	}
	return ok && labels(rest)
}

// labels reports whether text is one or more labels of a host name, in lower case.
func labels(text string) bool {
	last := byte('.')
	for i := range len(text) {
		c := text[i]
		switch {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_':
		case c == '.' && last != '.':
		default:
			return false
		}
		last = c
	}
	return last != '.'
}

// origin returns the origin that the browser sees, empty if nobody can log in there.
func (a *Authenticator) origin(r *authn.Request) string {
	if !session.Protected(r) {
		return ""
	}
	if o := canonical(r.Scheme, r.Host); a.origins.admit(o) {
		return o
	}
	return ""
}

// redirectURI is where the provider sends somebody back to who began a login at origin.
func (a *Authenticator) redirectURI(origin string) string {
	return a.redirectOrigin(origin) + a.config.RedirectPath
}

func (a *Authenticator) redirectOrigin(origin string) string {
	if o := a.config.RedirectOrigin; o != "" {
		return canonicalURL(o)
	}
	return origin
}

// hosts are the hosts as which requests of the origins arrive, as endpoints name them;
// none for all.
func (c Config) hosts() []string {
	all := slices.Clone(c.Origins)
	for _, public := range slices.Sorted(maps.Keys(c.InternalOrigins)) {
		all = append(all, c.InternalOrigins[public]...)
	}
	var hosts []string
	for _, o := range all {
		_, host, _ := strings.Cut(o, "://")
		if host == "*" {
			return nil
		}
		if name, _, _ := cutPort(host); !slices.Contains(hosts, name) {
			hosts = append(hosts, name)
		}
	}
	return hosts
}

// validateOrigin reports what is wrong with an entry of origins, the number-th.
func (c Config) validateOrigin(number int, o string) error {
	u, ok := parseOrigin(o)
	switch {
	case !ok:
		return setting.Problemf("origins", "%q (number %d) is not an origin such as https://app.example.com, in lower case", o, number)
	case u.Scheme != "https" && !session.Loopback(u.Host):
		return setting.Problemf("origins", "%q is not https: sessions would travel in the open", o)
	case strings.Contains(u.Host, "*") && !wildcard(u.Hostname()):
		return setting.Problemf("origins", "%q: a wildcard stands for the names below a domain with at least two labels, as in https://*.example.com", o)
	case strings.Contains(u.Host, "*") && !validPort(u.Host):
		return setting.Problemf("origins", "%q: a port is a number from 1 to 65535", o)
	case c.Session.CookieDomain != "" && !within(u.Hostname(), c.Session.CookieDomain):
		return setting.Problemf("origins", "%q is not below session.cookie_domain %s", o, c.Session.CookieDomain)
	}
	return nil
}

// parseOrigin is false for what has more than a scheme and a host, or is not in lower case.
func parseOrigin(o string) (*url.URL, bool) {
	u, err := url.Parse(o)
	return u, err == nil && u.Host != "" && u.Scheme+"://"+u.Host == o && o == strings.ToLower(o)
}

func (c Config) validateRedirectOrigin() error {
	o, domain := c.RedirectOrigin, c.Session.CookieDomain
	if o == "" {
		return nil
	}
	var errs []error
	problem := func(format string, args ...any) {
		errs = append(errs, setting.Problemf("redirect_origin", format, args...))
	}
	u, ok := parseOrigin(o)
	switch {
	case !ok || strings.Contains(o, "*"):
		problem("%q is not an origin such as https://example.com, in lower case", o)
	case len(c.Origins) == 0:
		problem("needs origins: they say where logins that come back to it may have begun")
	case !newOrigins(c).admit(canonicalURL(o)):
		problem("%q is not one of origins", o)
	}
	switch {
	case domain == "":
		problem("needs session.cookie_domain, a domain with it and all origins below: the cookie of a login has to reach it")
	case ok && !within(u.Hostname(), domain):
		problem("%q is not below session.cookie_domain %s", o, domain)
	}
	return errors.Join(errs...)
}

func wildcard(host string) bool {
	domain, ok := strings.CutPrefix(host, "*.")
	return ok && session.IsDomain(domain)
}

// validPort reports whether host has a port that there can be, or none.
func validPort(host string) bool {
	_, port, there := cutPort(host)
	n, err := strconv.ParseUint(port, 10, 16)
	return !there || err == nil && n > 0
}

// cutPort takes the port off a host, which may be an IPv6 address in brackets.
func cutPort(host string) (name, port string, there bool) {
	i := strings.LastIndexByte(host, ':')
	if i <= strings.LastIndexByte(host, ']') {
		return host, "", false
	}
	return host[:i], host[i+1:], true
}

func within(host, domain string) bool {
	return host == domain || strings.HasSuffix(host, "."+domain)
}

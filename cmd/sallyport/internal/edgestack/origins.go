package edgestack

import (
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/sallyport/sallyport/proxy/session"
)

// protected is one of a filter's protectedOrigins.
type protected struct {
	section    *section
	origin     string // https://app.example.com
	host       string // without a port
	subdomains bool
	internal   []string
}

// origins are where people may log in. One that cannot be said is left out, and the
// others are all that there are.
func (f *filter) origins(s *section) {
	var all []*protected
	given := s.subs("protectedOrigins")
	for _, o := range given {
		if p := readProtected(o); p != nil {
			all = append(all, p)
		}
		o.rest()
	}
	var origins []string
	for _, p := range all {
		origins = append(origins, p.entries()...)
	}
	if len(origins) > 0 {
		f.auth["origins"] = origins
	} else if len(given) > 0 { // without any, people could log in at every host
		f.closed = "none of the origins of the filter is carried over"
		s.differ("protectedOrigins", "none of them is carried over: until there is one the routes with this filter deny everything")
	}
	if len(origins) > 1 {
		f.share(s, all)
	}
	if internal := internalOrigins(all); len(internal) > 0 {
		f.auth["internal_origins"] = internal
	}
	s.without("name each origin in authenticators."+f.name+".oidc.internal_origins", "allowedInternalOrigins")
}

// readProtected returns nil for what is not an origin at which people may log in.
func readProtected(o *section) *protected {
	text := o.text("origin")
	p := &protected{section: o, subdomains: o.flag("includeSubdomains"), internal: append(o.texts("allowedInternalOrigins"), o.texts("internalOrigin")...)}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		o.differ("origin", "%q is not an origin such as https://app.example.com: it is left out", text)
		return nil
	}
	if u.Scheme == "http" && !session.Loopback(u.Host) {
		o.differ("origin", "%q is not https: it is left out, since sessions would travel in the open", text)
		return nil
	}
	p.origin, p.host = u.Scheme+"://"+strings.ToLower(u.Host), strings.ToLower(u.Hostname())
	if p.subdomains && !session.IsDomain(p.host) {
		o.differ("includeSubdomains", "%q is not a domain with at least two labels: the subdomains are left out", p.host)
		p.subdomains = false
	}
	return p
}

func (p *protected) entries() []string {
	if !p.subdomains {
		return []string{p.origin}
	}
	return []string{p.origin, strings.Replace(p.origin, "://", "://*.", 1)}
}

// share has all origins share a login that comes back to the first, as in Edge Stack.
// Cookies can do that for origins of one site.
func (f *filter) share(s *section, all []*protected) {
	domain := sharedDomain(all)
	if domain == "" {
		s.differ("protectedOrigins", "people log in at each origin by itself: one session is not shared between origins of different sites. The provider has to know the redirect_path at each of them")
		return
	}
	f.auth["redirect_origin"] = all[0].origin
	keep, _ := f.auth["session"].(map[string]any)
	keep["cookie_domain"] = domain
	if !slices.ContainsFunc(all, func(p *protected) bool { return p.subdomains && p.host == domain }) {
		s.differ("protectedOrigins", "one session is for all origins by session.cookie_domain %s: browsers send it to every host below, also to those that are not listed", domain)
	}
}

// sharedDomain is the domain that all origins are at or below, empty if they are not of
// one site: browsers refuse cookies for a public suffix.
func sharedDomain(all []*protected) string {
	domain := all[0].host
	for _, p := range all {
		for domain != "" && p.host != domain && !strings.HasSuffix(p.host, "."+domain) {
			_, domain, _ = strings.Cut(domain, ".")
		}
	}
	if _, err := publicsuffix.EffectiveTLDPlusOne(domain); err != nil || !session.IsDomain(domain) {
		return ""
	}
	return domain
}

// internalOrigins are those as which the requests of origins arrive. What would not say
// which origin a browser is at is left out.
func internalOrigins(all []*protected) map[string][]string {
	out, owner := map[string][]string{}, map[string]string{}
	alone := len(all) == 1 && !all[0].subdomains
	for _, p := range all {
		for _, text := range p.internal {
			entry := internalOrigin(text)
			key := "allowedInternalOrigins"
			if text == p.section.text("internalOrigin") {
				key = "internalOrigin"
			}
			switch {
			case entry == "":
				p.section.differ(key, "%q is not an origin such as http://ambassador.internal: it is left out", text)
			case entry == p.origin || slices.Contains(out[p.origin], entry):
			case strings.Contains(entry, "*") && !alone:
				p.section.differ(key, "%q is left out: with several origins, or subdomains, it does not say at which of them a browser is; write out which host stands for which", text)
			case owner[entry] != "" || public(all, entry):
				p.section.differ(key, "%q is left out: another of the origins is known by it", text)
			default:
				owner[entry] = p.origin
				out[p.origin] = append(out[p.origin], entry)
			}
		}
	}
	return out
}

// public reports whether people may log in at an origin.
func public(all []*protected, origin string) bool {
	scheme, host, _ := strings.Cut(origin, "://")
	host, port, _ := strings.Cut(host, ":")
	return slices.ContainsFunc(all, func(p *protected) bool {
		u, err := url.Parse(p.origin)
		return p.origin == origin || err == nil && p.subdomains && u.Scheme == scheme && u.Port() == port && strings.HasSuffix(host, "."+p.host)
	})
}

// internalOrigin returns scheme and host of a text, each of which may be *, in lower
// case; empty if it has none.
func internalOrigin(text string) string {
	scheme, rest, ok := strings.Cut(strings.ToLower(text), "://")
	host, _, _ := strings.Cut(rest, "/")
	u, err := url.Parse("http://" + host)
	known := scheme == "http" || scheme == "https" || scheme == "*"
	if !ok || !known || err != nil || u.Host == "" || u.Host != host || strings.Contains(host, "*") && host != "*" {
		return ""
	}
	return scheme + "://" + host
}

package mtls

import (
	"crypto/x509"
	"errors"
	"net/url"
	"strings"
)

type nameKind int

const (
	kindURI nameKind = iota
	kindDNS
	kindMail
)

// name is one subject alternative name.
type name struct {
	kind  nameKind
	value string
}

// namesOf lists the alternative names, URIs first. Addresses are left out: who
// holds one changes faster than certificates do.
func namesOf(c *x509.Certificate) []name {
	var names []name
	for _, u := range c.URIs {
		names = append(names, name{kindURI, u.String()})
	}
	for _, d := range c.DNSNames {
		names = append(names, name{kindDNS, d})
	}
	for _, m := range c.EmailAddresses {
		names = append(names, name{kindMail, m})
	}
	return names
}

// pattern is one entry of allowed_sans.
type pattern struct {
	anything bool
	kind     nameKind
	prefix   string   // URI: scheme and authority; mail: local part
	parts    []string // URI: path segments; DNS and mail: labels of the domain
}

func parsePattern(text string) (pattern, error) {
	switch {
	case text == "**":
		return pattern{anything: true}, nil
	case strings.Contains(text, "://"):
		return parseURIPattern(text)
	case strings.Contains(text, "@"):
		return parseMailPattern(text)
	}
	return parseDNSPattern(text)
}

func parseURIPattern(text string) (pattern, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" || u.Host == "" {
		return pattern{}, errors.New("is not a URI with scheme and host")
	}
	if strings.ContainsAny(u.Host, "*") {
		return pattern{}, errors.New("has a wildcard in the host: each trust domain is trusted on its own")
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return pattern{}, errors.New("has more than a host and a path")
	}
	prefix, path := splitURI(text)
	parts := strings.Split(path, "/")
	for i, p := range parts {
		if p == "**" && i != len(parts)-1 || p != "*" && p != "**" && strings.Contains(p, "*") {
			return pattern{}, errors.New("may have * as a whole segment and ** as the last one")
		}
	}
	return pattern{kind: kindURI, prefix: prefix, parts: parts}, nil
}

// splitURI splits a URI before its path.
func splitURI(uri string) (prefix, path string) {
	scheme, rest, ok := strings.Cut(uri, "://")
	if !ok {
		return uri, ""
	}
	host, path, slash := strings.Cut(rest, "/")
	if slash {
		path = "/" + path
	}
	return strings.ToLower(scheme + "://" + host), path
}

func parseMailPattern(text string) (pattern, error) {
	local, domain, ok := cutMail(text)
	if !ok || local != "*" && strings.Contains(local, "*") {
		return pattern{}, errors.New("is not a mail address; * may stand for the whole part before the @")
	}
	p, err := parseDNSPattern(domain)
	p.kind, p.prefix = kindMail, local
	return p, err
}

// cutMail splits an address at its only @: with two, readers disagree about the
// domain.
func cutMail(address string) (local, domain string, ok bool) {
	local, domain, ok = strings.Cut(address, "@")
	return local, domain, ok && local != "" && domain != "" && !strings.Contains(domain, "@")
}

func parseDNSPattern(text string) (pattern, error) {
	labels := strings.Split(strings.ToLower(text), ".")
	for i, l := range labels {
		if l == "" || strings.ContainsAny(l, "/: ") || strings.Contains(l, "*") && (l != "*" || i != 0) {
			return pattern{}, errors.New("is not a DNS name; * may stand for the whole first label")
		}
	}
	if len(labels) == 1 && labels[0] == "*" {
		return pattern{}, errors.New(`matches one label only; "**" is every certificate`)
	}
	return pattern{kind: kindDNS, parts: labels}, nil
}

func (p pattern) matches(n name) bool {
	switch {
	case p.anything:
		return true
	case p.kind != n.kind:
		return false
	}
	switch n.kind {
	case kindURI:
		prefix, path := splitURI(n.value)
		return prefix == p.prefix && matchSegments(p.parts, strings.Split(path, "/"))
	case kindMail:
		local, domain, ok := cutMail(n.value)
		return ok && (p.prefix == "*" || p.prefix == local) && matchLabels(p.parts, domain)
	default:
		return matchLabels(p.parts, n.value)
	}
}

// matchSegments compares path segments. Neither wildcard matches an empty or dot
// segment, which other readers of the URI might resolve.
func matchSegments(pattern, segments []string) bool {
	for i, p := range pattern {
		if p == "**" {
			return len(segments) > i && plain(segments[i:])
		}
		if i >= len(segments) || p != segments[i] && (p != "*" || !plain(segments[i:i+1])) {
			return false
		}
	}
	return len(segments) == len(pattern)
}

func plain(segments []string) bool {
	for _, s := range segments {
		if s == "" || s == "." || s == ".." || strings.ContainsAny(s, "%?#") {
			return false
		}
	}
	return true
}

// matchLabels compares DNS names without regard to case. A certificate's own
// wildcard is no name of a client and never matches a pattern's.
func matchLabels(pattern []string, domain string) bool {
	labels := strings.Split(strings.ToLower(domain), ".")
	if len(labels) != len(pattern) {
		return false
	}
	for i, p := range pattern {
		if labels[i] == "" || labels[i] == "*" || p != "*" && p != labels[i] {
			return false
		}
	}
	return true
}

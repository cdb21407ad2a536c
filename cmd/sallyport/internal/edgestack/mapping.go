package edgestack

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// mapping is a Mapping as far as it is carried over.
type mapping struct {
	name       string
	region     region
	over       bool // region has the path without the slash at its end, which the Mapping has not
	methods    []string
	headers    map[string]string
	strip, add string
	endpoint   string
	connect    time.Duration
	timeout    time.Duration
	context    string // of TLS, by key
	bypass     bool
	precedence int
	prefix     int // length, which Edge Stack orders by
	groups     []group
	spec       *section
}

// inexpressible returns keys that narrow a Mapping, or make something else of it
// than forwarding, in ways that a route cannot.
func inexpressible() []string {
	return []string{
		"host_regex", "prefix_regex", "method_regex", "regex_headers", "query_parameters", "regex_query_parameters",
		"regex_rewrite", "host_redirect", "path_redirect", "prefix_redirect", "regex_redirect", "shadow",
	}
}

// readMapping returns nil if the Mapping is left out.
func readMapping(res *resource, name string) *mapping {
	s := res.spec
	m := &mapping{name: name, spec: s, bypass: s.flag("bypass_auth")}
	for _, key := range inexpressible() {
		if n := s.get(key); n != nil && n.Value != "false" {
			s.differ(key, "a route cannot say this: the whole Mapping is left out, and what it takes goes to the next one or gets 404")
			return nil
		}
	}
	if !m.where(s) || !m.constraints(s) || !m.service(s) {
		return nil
	}
	m.rewrite(s)
	m.timeout = 3 * time.Second // Edge Stack's
	if d, ok := s.millis("timeout_ms"); ok {
		if m.timeout = d; d == 0 {
			s.differ("timeout_ms", "0 is not without an end: the request_timeout of the listener counts")
		}
	}
	m.connect, _ = s.millis("connect_timeout_ms")
	m.tls(s)
	s.without("set them in the policy (upstream.set_headers) or by upstream_headers", "add_request_headers")
	s.without("set them in the policy (upstream.remove_headers, response)", "remove_request_headers", "add_response_headers", "remove_response_headers")
	s.without("there is one service for a route; what it takes goes to the Mapping that was read first", "weight")
	m.groups = readLabels(s)
	s.rest()
	return m
}

func (m *mapping) where(s *section) bool {
	host := s.text("hostname")
	if h := s.text("host"); host == "" {
		host = h
	}
	var ok bool
	if m.region.host, ok = hostPattern(host); !ok {
		s.differ("hostname", "a route cannot say this host: the whole Mapping is left out")
		return false
	}
	prefix := s.text("prefix")
	m.prefix = len(prefix)
	segments, ok := literals(prefix)
	if !ok {
		s.differ("prefix", "a route cannot say this path: the whole Mapping is left out")
		return false
	}
	if s.flag("prefix_exact") {
		m.region.segments = segments
		return true
	}
	m.region.rest = true
	switch last := len(segments) - 1; {
	case segments[last] != "":
		m.region.segments = segments
		s.differ("prefix", "%s takes whole segments: not %sx, which Edge Stack takes too", m.region.pattern(), prefix)
	case last > 0:
		m.region.segments = segments[:last]
		m.over = true
	}
	return true
}

func (m *mapping) constraints(s *section) bool {
	if method := s.text("method"); method != "" {
		m.methods = []string{strings.ToUpper(method)}
	}
	if p := s.text("precedence"); p != "" {
		n, err := strconv.Atoi(p)
		if err != nil {
			s.bad("precedence", s.get("precedence").Line, "a number belongs here")
		}
		m.precedence = n
	}
	h := s.sub("headers")
	if h == nil {
		return true
	}
	m.headers = map[string]string{}
	for i := 0; i+1 < len(h.node.Content); i += 2 {
		name, value := h.node.Content[i].Value, resolved(h.node.Content[i+1])
		if value.Kind != yaml.ScalarNode || value.Tag == "!!bool" {
			h.differ(name, "a route wants a value of a header: the whole Mapping is left out")
			return false
		}
		m.headers[strings.ToLower(name)] = value.Value
	}
	return true
}

func (m *mapping) service(s *section) bool {
	service := s.text("service")
	secure := s.get("tls") != nil && s.get("tls").Value != "false"
	if !strings.Contains(service, "://") {
		service = map[bool]string{true: "https://", false: "http://"}[secure] + service
	}
	u, err := url.Parse(service)
	if err != nil || u.Host == "" || u.Path != "" && u.Path != "/" || u.Scheme != "http" && u.Scheme != "https" {
		s.differ("service", "is not host or host:port: the whole Mapping is left out")
		return false
	}
	if secure {
		u.Scheme = "https"
	}
	m.endpoint = u.Scheme + "://" + u.Host
	return true
}

func (m *mapping) rewrite(s *section) {
	to := "/"
	if n := s.get("rewrite"); n != nil {
		to = n.Value
	}
	prefix := "/" + strings.Join(m.region.segments, "/")
	switch {
	case to == "" || to == s.text("prefix"):
		return
	case strings.ContainsAny(to, special+" \"<>;^`|") || !strings.HasPrefix(to, "/"):
		s.differ("rewrite", "a route cannot say this: paths stay as they are")
		return
	case m.region.rest || !strings.HasSuffix(prefix, "/"):
		m.strip = prefix
	default:
		s.differ("rewrite", "is not carried over for a path that ends in a slash: it stays as it is")
		return
	}
	m.add = strings.TrimSuffix(to, "/")
	if m.strip == "/" {
		m.strip = ""
	}
	if m.add != "" && (!m.region.rest || strings.HasSuffix(to, "/") != strings.HasSuffix(s.text("prefix"), "/")) {
		s.differ("rewrite", "whole segments are replaced: %s becomes %s/", prefix, m.add)
	}
}

func (m *mapping) tls(s *section) {
	name := ""
	switch n := s.get("tls"); {
	case n == nil:
	case n.Tag != "!!bool":
		name = s.text("tls")
	}
	if c := s.sub("tlsContext"); c != nil {
		name = c.text("name")
		c.rest()
	}
	if name != "" {
		if !strings.Contains(name, "/") {
			name = s.res.namespace + "/" + name
		}
		m.context = name
	}
}

// order puts mappings into the order in which Edge Stack tries them: precedence,
// then the longer prefix, then what says more.
func order(all []*mapping) {
	says := func(m *mapping) int {
		n := len(m.headers) + len(m.methods)
		if m.region.host != "" {
			n++
		}
		if !m.region.rest {
			n++
		}
		return n
	}
	slices.SortStableFunc(all, func(a, b *mapping) int {
		return cmp.Or(cmp.Compare(b.precedence, a.precedence), cmp.Compare(b.prefix, a.prefix), cmp.Compare(says(b), says(a)))
	})
}

// Package route finds the route of a request. It owns the path patterns, the
// table that stays fast with thousands of routes, and the rewriting of paths.
//
// It sees paths only as segments that the judge has checked and decoded, so one
// request has one route whatever escapes it is written with. It does not know
// what happens on a route.
package route

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/template"
)

// Route is one compiled route. It is immutable.
type Route struct {
	Config Config
	Index  int // position in the file
	// Errors are the templates of error_response, nil without.
	Errors *template.Errors

	pattern  *pattern
	rewriter rewriter
	headers  []authz.Header
}

// Query is what routes look at.
type Query struct {
	Method   string
	Host     string   // lower case, without port
	Segments []string // of the path, percent-decoded
	Headers  []authz.Header
}

// Params returns the captures of a path that the route matched, nil if it has none.
func (r *Route) Params(segments []string) map[string]string { return r.pattern.capture(segments) }

// Rewrite returns the path to judge and forward for a path that the route matched.
func (r *Route) Rewrite(path string) string { return r.rewriter.apply(path) }

// Rewrites reports whether Rewrite changes paths at all.
func (r *Route) Rewrites() bool { return r.rewriter != (rewriter{}) }

// Table finds routes. It is immutable.
type Table struct {
	routes []*Route
	exact  map[string]*node // by host
	suffix map[string]*node // by what follows "*."
	any    *node
	extra  map[string]bool
}

// New compiles routes, which must be valid.
func New(routes []Config) (*Table, error) {
	if err := Validate(routes, Known{}); err != nil {
		return nil, err
	}
	t := &Table{exact: map[string]*node{}, suffix: map[string]*node{}, any: newNode(), extra: map[string]bool{}}
	for i := range routes {
		r, err := compile(routes[i], i)
		if err != nil {
			return nil, err
		}
		t.routes = append(t.routes, r)
		for _, m := range r.Config.Match.Methods {
			t.extra[m] = true
		}
		for _, n := range t.nodes(r.Config.Match.Hosts) {
			n.insert(r)
		}
	}
	return t, nil
}

func compile(c Config, index int) (*Route, error) {
	p, err := parsePattern(c.Match.Path)
	if err != nil {
		return nil, err
	}
	strip, err := prefixSegments(c.Rewrite.StripPrefix)
	if err != nil {
		return nil, err
	}
	r := &Route{Config: c, Index: index, pattern: p}
	if c.ErrorResponse != nil {
		if r.Errors, err = template.NewErrors(*c.ErrorResponse); err != nil {
			return nil, err
		}
	}
	r.rewriter = rewriter{strip: len(strip), add: strings.TrimSuffix(c.Rewrite.AddPrefix, "/")}
	for _, k := range slices.Sorted(maps.Keys(c.Match.Headers)) {
		r.headers = append(r.headers, authz.Header{Name: strings.ToLower(k), Value: c.Match.Headers[k]})
	}
	return r, nil
}

// nodes returns the roots that a route with these hosts belongs under.
func (t *Table) nodes(hosts []string) []*node {
	if len(hosts) == 0 {
		return []*node{t.any}
	}
	var out []*node
	for _, h := range lowered(hosts) {
		m := t.exact
		if rest, ok := strings.CutPrefix(h, "*."); ok {
			h, m = rest, t.suffix
		}
		if m[h] == nil {
			m[h] = newNode()
		}
		out = append(out, m[h])
	}
	return out
}

// Routes returns all routes in file order.
func (t *Table) Routes() []*Route { return t.routes }

// NamesMethod reports whether some route names this method.
func (t *Table) NamesMethod(method string) bool { return t.extra[method] }

// Match returns the first route in file order that takes q, or nil.
func (t *Table) Match(q *Query) *Route {
	s := search{best: math.MaxInt}
	s.walk(q, t.exact[q.Host], q.Segments)
	if len(t.suffix) > 0 {
		for rest := q.Host; ; {
			_, after, ok := strings.Cut(rest, ".")
			if !ok {
				break
			}
			s.walk(q, t.suffix[after], q.Segments)
			rest = after
		}
	}
	s.walk(q, t.any, q.Segments)
	return s.found
}

// Methods returns the methods of the routes that take q but for its method,
// sorted, for the Allow header of a 405.
func (t *Table) Methods(q *Query) []string {
	set := map[string]bool{}
	for _, r := range t.routes {
		if len(r.Config.Match.Methods) > 0 && r.matchesHost(q.Host) && r.pattern.match(q.Segments) && r.matchesHeaders(q.Headers) {
			for _, m := range r.Config.Match.Methods {
				set[m] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(set))
}

func (r *Route) matchesMethod(method string) bool {
	return len(r.Config.Match.Methods) == 0 || slices.Contains(r.Config.Match.Methods, method)
}

// matchesHeaders wants each header exactly once: the first of two would let a
// client show the gateway one value and the upstream another.
func (r *Route) matchesHeaders(headers []authz.Header) bool {
	for i := range r.headers {
		seen := 0
		for j := range headers {
			if headers[j].Name == r.headers[i].Name {
				if headers[j].Value != r.headers[i].Value {
					return false
				}
				seen++
			}
		}
		if seen != 1 {
			return false
		}
	}
	return true
}

func (r *Route) matchesHost(host string) bool {
	if len(r.Config.Match.Hosts) == 0 {
		return true
	}
	for _, h := range r.Config.Match.Hosts {
		h = strings.ToLower(h)
		if suffix, ok := strings.CutPrefix(h, "*"); ok && len(host) > len(suffix) && strings.HasSuffix(host, suffix) || h == host {
			return true
		}
	}
	return false
}

// node is one segment of a trie of patterns.
type node struct {
	first    int // lowest index of a route at or below the node
	children map[string]*node
	wild     *node
	ends     []*Route // patterns that end here, in file order
	rests    []*Route // patterns that end in ** here, in file order
}

func newNode() *node { return &node{first: math.MaxInt} }

func (n *node) insert(r *Route) {
	n.first = min(n.first, r.Index)
	for _, s := range r.pattern.segments {
		n = n.child(s)
		n.first = min(n.first, r.Index)
	}
	if r.pattern.rest {
		n.rests = appendOnce(n.rests, r)
	} else {
		n.ends = appendOnce(n.ends, r)
	}
}

func appendOnce(routes []*Route, r *Route) []*Route {
	if len(routes) > 0 && routes[len(routes)-1] == r {
		return routes
	}
	routes = append(routes, r)
	slices.SortFunc(routes, func(a, b *Route) int { return cmp.Compare(a.Index, b.Index) })
	return routes
}

func (n *node) child(s segment) *node {
	if s.kind == wildcard {
		if n.wild == nil {
			n.wild = newNode()
		}
		return n.wild
	}
	if n.children == nil {
		n.children = map[string]*node{}
	}
	if n.children[s.literal] == nil {
		n.children[s.literal] = newNode()
	}
	return n.children[s.literal]
}

// search keeps the earliest route found so far and leaves out every part of the
// trie that can only hold later ones. It does not hold the query, which then need
// not be allocated.
type search struct {
	best  int
	found *Route
}

func (s *search) walk(q *Query, n *node, segments []string) {
	if n == nil || n.first >= s.best {
		return
	}
	s.take(q, n.rests)
	if len(segments) == 0 {
		s.take(q, n.ends)
		return
	}
	s.walk(q, n.children[segments[0]], segments[1:])
	if segments[0] != "" {
		s.walk(q, n.wild, segments[1:])
	}
}

func (s *search) take(q *Query, routes []*Route) {
	for _, r := range routes {
		if r.Index >= s.best {
			return
		}
		if r.matchesMethod(q.Method) && r.matchesHeaders(q.Headers) {
			s.best, s.found = r.Index, r
			return
		}
	}
}

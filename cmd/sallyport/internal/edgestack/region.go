package edgestack

import (
	"slices"
	"strings"
)

// region is a set of requests as a route can take it: a host and a path.
type region struct {
	host     string // "" is any, "*.x" is any name below x
	segments []string
	rest     bool // and whatever follows
}

func (r region) equal(o region) bool {
	return r.host == o.host && r.rest == o.rest && slices.Equal(r.segments, o.segments)
}

// pattern returns the path for match.path.
func (r region) pattern() string {
	if r.rest {
		return "/" + strings.Join(append(slices.Clone(r.segments), "**"), "/")
	}
	return "/" + strings.Join(r.segments, "/")
}

// within reports whether all of r is in o.
func (r region) within(o region) bool {
	both, some := r.and(o)
	return some && both.equal(r)
}

// and returns what is in both, and whether there is anything.
func (r region) and(o region) (region, bool) {
	host, ok := bothHosts(r.host, o.host)
	if !ok {
		return region{}, false
	}
	if len(r.segments) < len(o.segments) || len(r.segments) == len(o.segments) && r.rest {
		r, o = o, r
	}
	// r is the longer or, of two of one length, the one without a rest if there is one.
	if len(r.segments) > len(o.segments) && !o.rest || !slices.Equal(r.segments[:len(o.segments)], o.segments) {
		return region{}, false
	}
	return region{host: host, segments: r.segments, rest: r.rest}, true
}

func bothHosts(a, b string) (string, bool) {
	if a == "" || a == b {
		return b, true
	}
	if b == "" || hostIn(a, b) {
		return a, true
	}
	return b, hostIn(b, a)
}

// hostIn reports whether every name of a is one of b.
func hostIn(a, b string) bool {
	suffix, ok := strings.CutPrefix(b, "*")
	return ok && len(strings.TrimPrefix(a, "*")) >= len(suffix) && strings.HasSuffix(a, suffix) && a != suffix
}

// hostPattern reads a glob for hosts; false if a route cannot say it.
func hostPattern(glob string) (host string, ok bool) {
	glob = strings.ToLower(glob)
	if glob == "" || glob == "*" {
		return "", true
	}
	name := strings.TrimPrefix(glob, "*.")
	bad := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
	}
	if name == "" || strings.ContainsFunc(name, bad) {
		return "", false
	}
	return glob, true
}

// special are characters that a glob, or a pattern of ours, does not take literally.
const special = "*?[]{}\\%#"

// literals returns the segments of a path that can stand in a pattern; false if
// they cannot.
func literals(path string) ([]string, bool) {
	body, ok := strings.CutPrefix(path, "/")
	if !ok || strings.ContainsAny(body, special) {
		return nil, false
	}
	segments := strings.Split(body, "/")
	for i, s := range segments {
		if s == "" && i < len(segments)-1 || s == "." || s == ".." {
			return nil, false
		}
	}
	return segments, true
}

// pathPattern reads a glob for paths, in which * is any text. Exact reports whether
// the region is what the glob takes; if not, it takes more. A region that ends in
// a rest takes its own path without the last slash too, which a glob does not.
func pathPattern(glob string) (r region, exact bool) {
	if glob == "" || glob == "*" || glob == "/*" {
		return region{rest: true}, true
	}
	if segments, ok := literals(glob); ok {
		return region{segments: segments}, true
	}
	stem := strings.TrimRight(glob, "*")
	if stem != glob && strings.HasSuffix(stem, "/") {
		if segments, ok := literals(strings.TrimSuffix(stem, "/")); ok {
			return region{segments: segments, rest: true}, true
		}
	}
	// The literal segments before whatever it is that cannot be said.
	r.rest = true
	for part := range strings.SplitSeq(strings.TrimPrefix(glob, "/"), "/") {
		if part == "" || strings.ContainsAny(part, special) || part == "." || part == ".." || !strings.HasPrefix(glob, "/") {
			break
		}
		r.segments = append(r.segments, part)
	}
	return r, false
}

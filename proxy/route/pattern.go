package route

import (
	"fmt"
	"strings"

	"github.com/sallyport/sallyport/engine/setting"
)

type segmentKind uint8

const (
	literal segmentKind = iota
	wildcard
)

type segment struct {
	kind    segmentKind
	literal string
	param   string // name of a {name} segment
}

// pattern is a parsed path pattern. Literals compare with percent-decoded
// segments: an escape cannot reach a route that its plain form would not.
type pattern struct {
	segments []segment
	rest     bool // ends in **
	params   bool
}

func parsePattern(text string) (*pattern, error) {
	if text == "" {
		text = "/**"
	}
	body, ok := strings.CutPrefix(text, "/")
	if !ok {
		return nil, fmt.Errorf("%q does not begin with /", text)
	}
	p := &pattern{}
	if body == "" {
		p.segments = []segment{{}}
		return p, nil
	}
	parts := strings.Split(body, "/")
	names := map[string]bool{}
	for i, part := range parts {
		if part == "**" {
			if i != len(parts)-1 {
				return nil, fmt.Errorf("%q has ** before the end", text)
			}
			p.rest = true
			break
		}
		s, err := parseSegment(part, i == len(parts)-1)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", text, err)
		}
		if s.param != "" {
			if names[s.param] {
				return nil, fmt.Errorf("%q names {%s} twice", text, s.param)
			}
			names[s.param] = true
			p.params = true
		}
		p.segments = append(p.segments, s)
	}
	return p, nil
}

func parseSegment(part string, last bool) (segment, error) {
	switch {
	case part == "*":
		return segment{kind: wildcard}, nil
	case part == "" && !last:
		return segment{}, fmt.Errorf("an empty segment can only be the last")
	case part == "." || part == "..":
		return segment{}, fmt.Errorf("segment %q never arrives", part)
	case strings.HasPrefix(part, "{") && strings.HasSuffix(part, "}"):
		name := part[1 : len(part)-1]
		if name == "" || strings.ContainsFunc(name, func(r rune) bool { return !isNameRune(r) && r != '_' }) {
			return segment{}, fmt.Errorf("%q is not a parameter name", name)
		}
		return segment{kind: wildcard, param: name}, nil
	case strings.ContainsAny(part, "*{}?#%\\"):
		return segment{}, fmt.Errorf("segment %q mixes a literal with a wildcard or a character that has no meaning here", part)
	}
	return segment{literal: part}, nil
}

// match reports whether the decoded segments of a path fit p. A wildcard takes
// exactly one segment, which is not empty.
func (p *pattern) match(segments []string) bool {
	if len(segments) < len(p.segments) || len(segments) > len(p.segments) && !p.rest {
		return len(segments) == 1 && segments[0] == "" && p.rest && len(p.segments) == 0
	}
	for i, s := range p.segments {
		if s.kind == literal && s.literal != segments[i] || s.kind == wildcard && segments[i] == "" {
			return false
		}
	}
	return true
}

func (p *pattern) capture(segments []string) map[string]string {
	if !p.params {
		return nil
	}
	out := make(map[string]string, 2)
	for i, s := range p.segments {
		if s.param != "" {
			out[s.param] = segments[i]
		}
	}
	return out
}

// check refuses a rewrite that could not be applied to every path that p takes.
func (r Rewrite) check(p *pattern) error {
	strip, err := prefixSegments(r.StripPrefix)
	if err != nil {
		return setting.Problemf("rewrite.strip_prefix", "%w", err)
	}
	if len(strip) > len(p.segments) {
		return setting.Problemf("rewrite.strip_prefix", "match.path does not begin with %q", r.StripPrefix)
	}
	for i, s := range strip {
		if p.segments[i].kind != literal || p.segments[i].literal != s {
			return setting.Problemf("rewrite.strip_prefix", "match.path does not begin with %q", r.StripPrefix)
		}
	}
	if _, err := prefixSegments(r.AddPrefix); err != nil {
		return setting.Problemf("rewrite.add_prefix", "%w", err)
	}
	if strings.ContainsFunc(r.AddPrefix, func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune("\"<>;^`|", c) }) {
		return setting.Problemf("rewrite.add_prefix", "%q has a character that a path may not have as it is", r.AddPrefix)
	}
	return nil
}

func prefixSegments(prefix string) ([]string, error) {
	if prefix == "" || prefix == "/" {
		return nil, nil
	}
	p, err := parsePattern(prefix)
	if err != nil {
		return nil, err
	}
	out := make([]string, 0, len(p.segments))
	for _, s := range p.segments {
		if s.kind != literal || s.literal == "" || p.rest {
			return nil, fmt.Errorf("%q is not a prefix such as /v1", prefix)
		}
		out = append(out, s.literal)
	}
	return out, nil
}

// apply rewrites a raw path by whole segments, so that an escaped spelling of
// the prefix is removed as the plain one is.
func (r *rewriter) apply(path string) string {
	for range r.strip {
		next := strings.IndexByte(path[1:], '/')
		if next < 0 {
			path = "/"
			break
		}
		path = path[1+next:]
	}
	if r.add == "" {
		return path
	}
	return r.add + path
}

// rewriter is a checked Rewrite.
type rewriter struct {
	strip int // segments
	add   string
}

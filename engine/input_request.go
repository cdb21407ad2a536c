package engine

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/sallyport/sallyport/engine/analysis"
	"github.com/sallyport/sallyport/engine/authz"
)

func formatInt(n int64) string { return strconv.FormatInt(n, 10) }

func requestFields() []field {
	return []field{
		unkeyed(textField("id", func(in *authz.Input) string { return in.Request.ID })),
		textField("method", func(in *authz.Input) string { return in.Request.Method }),
		textField("scheme", func(in *authz.Input) string { return in.Request.Scheme }),
		textField("host", func(in *authz.Input) string { return in.Request.Host }),
		numberField("port", 1, func(in *authz.Input) int64 { return int64(in.Request.Port) }),
		textField("path", func(in *authz.Input) string { return in.Request.Path }),
		listField("segments", func(in *authz.Input) []string { return in.Request.Segments }),
		{name: "query", build: queryPart, key: queryKey},
		textField("raw_query", func(in *authz.Input) string { return in.Request.RawQuery }),
		{name: "headers", within: headersPart, keyWithin: headersKey},
		textField("protocol", func(in *authz.Input) string { return in.Request.Protocol }),
		numberField("content_length", 0, func(in *authz.Input) int64 { return in.Request.ContentLength }),
		textField("content_type", func(in *authz.Input) string { return in.Request.ContentType }),
		{name: "body", build: bodyPart(func(b *bodyTerms) *ast.Term { return b.value })},
		{name: "raw_body", build: bodyPart(func(b *bodyTerms) *ast.Term { return b.raw })},
		{name: "body_truncated", build: bodyPart(func(b *bodyTerms) *ast.Term { return b.truncated })},
		{name: "body_error", build: bodyPart(func(b *bodyTerms) *ast.Term { return b.problem })},
		{name: "time", build: func(d *document) *ast.Term { return timeTerm(d.in.Request.Time) }},
	}
}

func sourceFields() []field {
	return []field{
		textField("ip", func(in *authz.Input) string { return in.Source.IP }),
		unkeyed(numberField("port", 1, func(in *authz.Input) int64 { return int64(in.Source.Port) })),
		listField("forwarded_for", func(in *authz.Input) []string { return in.Source.ForwardedFor }),
	}
}

func routeFields() []field {
	return []field{
		textField("name", func(in *authz.Input) string { return in.Route.Name }),
		mapField("params", func(in *authz.Input) map[string]string { return in.Route.Params }),
		textField("upstream", func(in *authz.Input) string { return in.Route.Upstream }),
		mapField("labels", func(in *authz.Input) map[string]string { return in.Route.Labels }),
	}
}

func gatewayFields() []field {
	return []field{
		textField("name", func(in *authz.Input) string { return in.Gateway.Name }),
		textField("version", func(in *authz.Input) string { return in.Gateway.Version }),
		textField("listener", func(in *authz.Input) string { return in.Gateway.Listener }),
		mapField("labels", func(in *authz.Input) map[string]string { return in.Gateway.Labels }),
	}
}

// headersPart builds all headers, or only those that are read by name.
func headersPart(reads *analysis.Node) build {
	if reads.Whole {
		return func(d *document) *ast.Term { return grouped(d.in.Request.Headers, nil) }
	}
	return func(d *document) *ast.Term { return grouped(d.in.Request.Headers, reads.Children) }
}

// grouped returns an object of the values of each header in order of arrival. With
// only set, other headers are left out.
func grouped(headers []authz.Header, only map[string]*analysis.Node) *ast.Term {
	g := groups{}
	for _, h := range headers {
		if _, ok := only[h.Name]; ok || only == nil {
			g.add(h.Name, h.Value)
		}
	}
	return g.term()
}

// groups collects values by name, names in order of arrival.
type groups struct {
	names  []string
	values [][]*ast.Term
	index  map[string]int // made when there are many names, lest a client make us scan
}

const scanLimit = 16

func (g *groups) add(name, value string) {
	i := g.find(name)
	if i < 0 {
		i = len(g.names)
		g.names, g.values = append(g.names, name), append(g.values, nil)
		if g.index != nil {
			g.index[name] = i
		}
	}
	g.values[i] = append(g.values[i], ast.StringTerm(value))
}

func (g *groups) find(name string) int {
	if g.index == nil && len(g.names) < scanLimit {
		for i := range g.names {
			if g.names[i] == name {
				return i
			}
		}
		return -1
	}
	if g.index == nil {
		g.index = make(map[string]int, 2*scanLimit)
		for i, n := range g.names {
			g.index[n] = i
		}
	}
	if i, ok := g.index[name]; ok {
		return i
	}
	return -1
}

func (g *groups) term() *ast.Term {
	pairs := make([][2]*ast.Term, len(g.names))
	for i, name := range g.names {
		pairs[i] = [2]*ast.Term{ast.StringTerm(name), ast.ArrayTerm(g.values[i]...)}
	}
	return ast.NewTerm(ast.NewObject(pairs...))
}

func queryPart(d *document) *ast.Term { return queryTerm(d.in.Request.RawQuery) }

// queryTerm splits a query as the WHATWG URL standard does: at "&" only. What
// cannot be decoded stays as it was sent, so that a policy sees that it is there.
func queryTerm(raw string) *ast.Term {
	g := groups{}
	for pair := range strings.SplitSeq(raw, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		g.add(unescape(name), unescape(value))
	}
	return g.term()
}

func unescape(s string) string {
	if out, err := url.QueryUnescape(s); err == nil {
		return out
	}
	return s
}

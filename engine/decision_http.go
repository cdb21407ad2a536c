package engine

import (
	"net/url"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"golang.org/x/net/http/httpguts"

	"github.com/sallyport/sallyport/engine/authz"
)

// What a policy puts on the wire is checked here, so that no data that a policy
// copies from a request can become another header, another response or another
// message framing.

// checkAnswer checks what a decision says about the response as a whole.
func (p *decisionParser) checkAnswer(d *authz.Decision) {
	isRedirect := slices.Contains([]int{301, 302, 303, 307, 308}, d.Status)
	switch {
	case d.Status == 0:
	case d.Status < 100 || d.Status > 599:
		p.refuse("status", "must be a status code from 100 to 599")
	case d.Allow: // the answer is the upstream's
	case d.Redirect != "" && !isRedirect:
		p.refuse("status", "must be 301, 302, 303, 307 or 308 with a redirect")
	case d.Redirect == "" && d.Status < 400:
		p.refuse("status", "of a deny must be 4xx or 5xx, or 3xx with a redirect")
	}
}

// redirect accepts an http or https URL or a path. Control characters, spaces and
// backslashes, which browsers read as something else, are refused.
func (p *decisionParser) redirect(path string, v ast.Value) string {
	s := p.text(path, v)
	if p.fault != nil {
		return s
	}
	u, err := url.Parse(s)
	switch {
	case s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '\\' }):
		p.refuse(path, "must be a URL of visible ASCII characters")
	case err != nil || u.Opaque != "" || u.Scheme != "" && u.Scheme != "http" && u.Scheme != "https":
		p.refuse(path, "must be an http or https URL, or a path")
	case (u.Scheme == "") != (u.Host == ""):
		p.refuse(path, "must have both scheme and host, or neither")
	}
	return s
}

// headers reads an object of header names and values.
func (p *decisionParser) headers(path string, v ast.Value) map[string]string {
	out := map[string]string{}
	seen := map[string]struct{}{}
	p.members(path, v, func(name string, v ast.Value) bool {
		value := p.text(path+"."+name, v)
		p.headerName(path, name)
		if !httpguts.ValidHeaderFieldValue(value) {
			p.refuse(path+"."+name, "has a character that a header value cannot have")
		}
		folded := fold(name)
		if _, dup := seen[folded]; dup {
			p.refuse(path, "names "+folded+" twice")
		}
		seen[folded] = struct{}{}
		out[name] = value
		return true
	})
	return out
}

// fold returns the name that servers make of a header's: without case, and with
// "_" and "." as "-". Of two spellings only one could be set.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r == '.' {
			return '-'
		}
		return r
	}, strings.ToLower(name))
}

// headerNames reads an array (or set) of header names.
func (p *decisionParser) headerNames(path string, v ast.Value) []string {
	var out []string
	each := func(t *ast.Term) {
		name := p.text(path, t.Value)
		p.headerName(path, name)
		out = append(out, name)
	}
	switch v := v.(type) {
	case *ast.Array:
		v.Foreach(each)
	case ast.Set:
		v.Foreach(each)
	default:
		p.wrongType(path, v, "array")
	}
	return out
}

// headerName refuses what is no token (RFC 9110 section 5.1), and the fields that
// frame a message or belong to one connection: those are the gateway's.
func (p *decisionParser) headerName(path, name string) {
	switch {
	case p.fault != nil:
	case !httpguts.ValidHeaderFieldName(name):
		p.refuse(path, "has a name that is no header name")
	case framing(name):
		p.refuse(path, "cannot change "+strings.ToLower(name))
	}
}

func framing(name string) bool {
	switch strings.ToLower(name) {
	case "connection", "content-length", "host", "keep-alive", "proxy-connection",
		"te", "trailer", "transfer-encoding", "upgrade":
		return true
	}
	return false
}

// quotable reads a text for a parameter of WWW-Authenticate: the characters of
// RFC 6750 section 3, which need no escapes.
func (p *decisionParser) quotable(path string, v ast.Value) string {
	s := p.text(path, v)
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) {
		p.refuse(path, "has a character that a challenge cannot have")
	}
	return s
}

package oidc

import (
	"net/url"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/proxy/authn"
)

// maxReturn bounds a return address in bytes; it travels in a cookie.
const maxReturn = 2048

// returnAddress returns where a browser may be sent after a login: a path of the
// same origin, with its query. It is false for everything that a browser, or a server
// on the way, could read as another place: others had four rounds of open redirects
// here, by backslashes, escapes, white space and dots.
func returnAddress(raw string) (string, bool) {
	if len(raw) > maxReturn || len(raw) == 0 || raw[0] != '/' {
		return "", false
	}
	for i := range len(raw) {
		if c := raw[i]; c <= ' ' || c >= 0x7f || c == '\\' || c == '#' || c == '"' || c == '<' || c == '>' || c == '`' {
			return "", false
		}
	}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || u.Opaque != "" || u.Fragment != "" {
		return "", false
	}
	plain, query, _ := strings.Cut(raw, "?")
	return raw, plainPath(plain) && plainQuery(query)
}

// plainPath refuses paths with a second reading: empty and dot segments, and escaped
// separators, dots, percents and control characters.
func plainPath(p string) bool {
	for i, segment := range strings.Split(p[1:], "/") {
		decoded, err := url.PathUnescape(segment)
		if err != nil || decoded == "." || decoded == ".." || strings.ContainsAny(decoded, "/\\%") || strings.ContainsFunc(decoded, control) {
			return false
		}
		if last := i == strings.Count(p[1:], "/"); segment == "" && !last {
			return false
		}
		if i == 0 && strings.TrimSpace(decoded) != decoded {
			return false
		}
	}
	return true
}

// plainQuery refuses escapes of line breaks and other control characters, which
// would be decoded somewhere.
func plainQuery(q string) bool {
	decoded, err := url.QueryUnescape(q)
	return err == nil && !strings.ContainsFunc(decoded, control)
}

func control(r rune) bool { return r < ' ' || r == 0x7f }

// asked is where the browser wanted to go, the root if that is nowhere to return to.
func (a *Authenticator) asked(r *authn.Request) string {
	raw := r.Path
	if r.RawQuery != "" {
		raw += "?" + r.RawQuery
	}
	addr, ok := returnAddress(raw)
	if !ok || slices.Contains(a.paths(), r.Path) {
		return "/"
	}
	return addr
}

// person reports whether somebody at a browser looks at the answer: it asks for a
// page, and no script does. An API client that got a redirect to a login page would
// take the page for its answer.
func person(r *authn.Request) bool {
	if r.Method != "GET" || r.Authorization != "" || r.Header("x-requested-with") != "" {
		return false
	}
	if mode := r.Header("sec-fetch-mode"); mode != "" && mode != "navigate" {
		return false
	}
	return acceptsHTML(r.Header("accept"))
}

// acceptsHTML reports whether an Accept header names text/html and does not weigh it 0.
func acceptsHTML(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		media, params, _ := strings.Cut(strings.ToLower(strings.TrimSpace(part)), ";")
		if strings.TrimSpace(media) != "text/html" {
			continue
		}
		zero := false
		for p := range strings.SplitSeq(params, ";") {
			name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
			zero = zero || name == "q" && strings.Trim(value, "0.") == ""
		}
		return !zero
	}
	return false
}

// ownForm reports whether a request comes from a page of the same origin, by what
// the browser says of it. Scripts of other sites cannot set these headers. A page with
// Referrer-Policy: no-referrer has forms whose Origin is null, as has a page of nowhere:
// Sec-Fetch-Site tells them apart (Fetch, section 3.2.2).
func ownForm(r *authn.Request, origin string) bool {
	from := r.Header("origin")
	switch r.Header("sec-fetch-site") {
	case "same-origin":
		return from == "" || from == "null" || strings.EqualFold(from, origin)
	case "":
		return from != "" && strings.EqualFold(from, origin)
	}
	return false
}

// otherSite reports whether a browser says that a page of another origin had it send the
// request. Senders that say nothing are no browsers.
func otherSite(r *authn.Request, origin string) bool {
	return (r.Header("origin") != "" || r.Header("sec-fetch-site") != "") && !ownForm(r, origin)
}

// foreign reports whether another site had the browser send a request that may
// change something. SameSite keeps our cookie out of most of these already.
func foreign(r *authn.Request) bool {
	switch r.Method {
	case "GET", "HEAD", "OPTIONS":
		return false
	}
	return r.Header("sec-fetch-site") == "cross-site"
}

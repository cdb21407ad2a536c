package judge

import (
	"slices"
	"strings"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
)

// class says what becomes of a client's header.
type class uint8

const (
	ordinary   class = iota
	hop              // ends at this hop (RFC 9110 section 7.6.1), or frames the message
	forwarded        // counts from trusted peers only
	identity         // only the gateway or the policy sets it
	credential       // not in the input document unless the route asks for it
)

var hopHeaders = []string{
	"connection", "proxy-connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
	"proxy-authenticate", "http2-settings", "content-length", "host", "expect",
}

// identityHeaders are those that upstreams take as the word of a gateway, and
// those that make an upstream see another path or method than was judged.
var identityHeaders = []string{
	"x-user", "remote-user", "x-remote-user", "x-remote-group", "x-auth-request-user", "x-auth-request-email",
	"x-auth-request-groups", "x-auth-request-preferred-username", "x-auth-request-access-token",
	"x-original-url", "x-original-uri", "x-original-method", "x-original-host", "x-rewrite-url",
	"x-envoy-original-path", "x-envoy-external-address", "x-envoy-internal",
	"x-http-method", "x-http-method-override", "x-method-override", "x-request-id",
}

var forwardedHeaders = []string{"forwarded", "x-real-ip", "true-client-ip", "x-client-ip", "x-cluster-client-ip", "client-cert", "client-cert-chain"}

var credentialHeaders = []string{
	"authorization", "proxy-authorization", "cookie", "x-api-key", "api-key", "x-auth-token", "x-access-token",
	"dpop", "x-amz-security-token", "x-csrf-token", "x-xsrf-token",
}

// classes maps folded names.
type classes map[string]class

func newClasses(identityNames, credentialNames []string) classes {
	c := classes{}
	for _, set := range []struct {
		names []string
		class class
	}{
		{hopHeaders, hop},
		{forwardedHeaders, forwarded},
		{credentialHeaders, credential},
		{credentialNames, credential},
		{identityHeaders, identity},
		{identityNames, identity},
	} {
		for _, n := range set.names {
			c[fold(n)] = set.class
		}
	}
	return c
}

// of classifies a lower-case name. Names that upstreams fold into each other
// are one name here.
func (c classes) of(name string) class {
	name = fold(name)
	if cl, ok := c[name]; ok {
		return cl
	}
	if strings.HasPrefix(name, "x-forwarded-") {
		return forwarded
	}
	return ordinary
}

// Absent returns what tells why no request has a header of some name when its route is
// chosen, and empty where one may. IdentityNames are those of Config; trusted says that
// some listener has peers that it trusts.
func Absent(identityNames []string, trusted bool) func(name string) string {
	all := newClasses(identityNames, nil)
	return func(name string) string {
		switch c := all.of(strings.ToLower(name)); {
		case c == identity:
			return "clients cannot send it: only the gateway or the policy sets it"
		case c == forwarded && !trusted:
			return "it counts from trusted_proxies alone, and no listener has any"
		}
		return ""
	}
}

// Unseen returns what tells why no policy sees a header of some name while no route asks
// for it, and empty where one may. The names are those of Config.
func Unseen(identityNames, credentialNames []string) func(name string) string {
	all := newClasses(identityNames, credentialNames)
	return func(name string) string {
		switch all.of(strings.ToLower(name)) {
		case ordinary:
			return ""
		case identity:
			return "clients cannot send it: only the gateway or the policy sets it"
		case credential:
			return "it is a credential"
		}
		return "it is between the client, proxies and the gateway"
	}
}

// everyday reports whether clients send a header for reasons of their own, so that
// it cannot be taken from requests that go elsewhere.
func everyday(name string) bool {
	switch name {
	case "user-agent", "origin", "referer", "range", "date", "from", "via", "pragma", "cache-control", "traceparent", "tracestate", "baggage":
		return true
	}
	for _, prefix := range [...]string{"accept", "content-", "if-", "sec-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// fold returns the name that CGI-like upstreams make of n: without case, and
// with "_" and "." as "-". It allocates only for names that change.
func fold(n string) string {
	for i := range len(n) {
		if c := n[i]; c == '_' || c == '.' || c >= 'A' && c <= 'Z' {
			return strings.Map(foldRune, n)
		}
	}
	return n
}

func foldRune(r rune) rune {
	switch {
	case r == '_' || r == '.':
		return '-'
	case r >= 'A' && r <= 'Z':
		return r + 'a' - 'A'
	}
	return r
}

// admissible returns the arrival without the fields that the client has no right
// to send (identity, and forwarding ones unless the peer is trusted) and those
// that its Connection headers name, which end here (RFC 9110 section 7.6.1).
// They go before anything is judged, so that neither route nor identity nor
// policy rests on what the upstream does not get, and before ours are added, so
// that they can never name ours.
func (a *Arrival) admissible(c classes, trusted bool) *Arrival {
	names := a.nominated()
	drop := func(name string) bool {
		switch c.of(name) {
		case hop:
			return false // not forwarded, and needed to know what the client asks for
		case identity:
			return true
		case forwarded:
			return !trusted || containsFold(names, name) || certifies(fold(name)) && !a.verified()
		}
		return containsFold(names, name)
	}
	first := slices.IndexFunc(a.Headers, func(h authz.Header) bool { return drop(h.Name) })
	if first < 0 {
		return a
	}
	out := *a
	out.Headers = append(make([]authz.Header, 0, len(a.Headers)), a.Headers[:first]...)
	for _, h := range a.Headers[first:] {
		if !drop(h.Name) {
			out.Headers = append(out.Headers, h)
		}
	}
	return &out
}

// certifies reports whether a folded name is one of a forwarded certificate (Envoy's,
// and RFC 9440). They count only from a peer that has itself shown a certificate:
// whoever can reach the port of a plain one could write anything.
func certifies(name string) bool {
	return name == "x-forwarded-client-cert" || name == "client-cert" || name == "client-cert-chain"
}

// verified reports whether the peer of the connection has shown a certificate.
func (a *Arrival) verified() bool { return a.TLS != nil && len(a.TLS.VerifiedChains) > 0 }

// nominated returns the names in Connection headers.
func (a *Arrival) nominated() []string {
	var out []string
	for i := range a.Headers {
		if a.Headers[i].Name != "connection" {
			continue
		}
		for t := range strings.SplitSeq(a.Headers[i].Value, ",") {
			switch t = strings.ToLower(strings.Trim(t, " \t")); t {
			case "", "close", "keep-alive", "upgrade", "te":
			default:
				out = append(out, t)
			}
		}
	}
	return out
}

// added is how many headers forwarding adds, and room for what a policy sets.
const added = 8

// visible selects the headers that the policy may read. Behind them is room for
// those that are forwarded, so that one allocation serves both.
func (j *Judge) visible(a *Arrival, asked []string) (visible, room []authz.Header) {
	n := len(a.Headers)
	all := make([]authz.Header, 2*n+added)
	out := all[:0:n]
	for i := range a.Headers {
		h := a.Headers[i]
		switch j.classes.of(h.Name) {
		case ordinary:
		case credential:
			if !containsFold(asked, h.Name) {
				continue
			}
			if h.Name == "cookie" { // a session is for nobody to log or to pass on
				if h.Value = authn.WithoutCookies(h.Value, nil); h.Value == "" {
					continue
				}
			}
		default:
			continue
		}
		out = append(out, h)
	}
	return out, all[n:n]
}

func containsFold(names []string, name string) bool {
	return len(names) > 0 && slices.ContainsFunc(names, func(n string) bool { return fold(n) == fold(name) })
}

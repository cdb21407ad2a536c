// Package authz holds the vocabulary that the whole gateway speaks: the
// request to judge, the identity behind it, the input document made of both,
// the decision with its obligations, and the record that an auditor reads.
//
// It is a leaf: standard library only. The proxy fills these types and never
// reaches OPA; the engine reads them and never reaches the HTTP server. It owns
// no behaviour beyond what keeps the types honest.
package authz

import (
	"context"
	"sync/atomic"
	"time"
)

// InputVersion is the value of input.version. A policy may rely on every name
// of that version; names are added within it and never renamed or dropped.
const InputVersion = "v1"

// Input is all that one decision is made of.
type Input struct {
	Request  Request
	Source   Source
	TLS      *TLS      // nil on a connection without TLS
	Identity *Identity // shared between requests and immutable; nil before authentication
	Route    Route
	Gateway  *Gateway
}

// Request is the request as it will be forwarded. Its strings do not alias a
// connection buffer: a record that outlives the handler may keep them.
type Request struct {
	ID            string    // X-Request-Id of the response and of every log line
	Method        string    // upper case
	Scheme        string    // http or https, as the client used it
	Host          string    // lower case, without port
	Port          int       // the port the client named, or the scheme's default
	Path          string    // the very string that is forwarded; ambiguous paths never get here
	Segments      []string  // Path split at "/", each percent-decoded
	RawQuery      string    // without "?", still encoded
	Headers       []Header  // lower-case names in order of arrival; no credentials unless the route asks for them by name
	Protocol      string    // "HTTP/1.1"
	ContentLength int64     // bytes; negative when the client did not say
	ContentType   string    // as sent
	Body          Body      // nil when there is no body to read
	Time          time.Time // when the request head had been read
}

// Header is one header field line.
type Header struct {
	Name  string // lower case
	Value string
}

// Body gives the engine the request body, and only when the policy can read it:
// a route whose policy never looks at the body streams it without buffering.
type Body interface {
	// Buffer reads the body up to the configured cap, and reports whether it was
	// longer. What was read is still forwarded. Calling it again returns the
	// same bytes. The error is the client's: too slow, cut off, or over the
	// listener's limit.
	Buffer(ctx context.Context) (data []byte, truncated bool, err error)
}

// Source is where the connection came from.
type Source struct {
	IP           string   // the client: from trusted proxies' headers if the peer is listed, else the peer
	Port         int      // 0 when IP was taken from a forwarded header
	ForwardedFor []string // the chain that trusted peers reported, client first
}

// TLS describes the client's connection.
type TLS struct {
	Version           string // "TLS 1.3"
	Cipher            string
	ServerName        string
	ClientCertificate *Certificate // nil unless the client presented one that verified
}

// Certificate is the part of a verified client certificate that policies use.
type Certificate struct {
	Subject   string // RFC 2253 form
	Issuer    string
	Serial    string // lower-case hexadecimal
	SHA256    string // fingerprint of the DER, lower-case hexadecimal
	DNSNames  []string
	URIs      []string
	Emails    []string
	SPIFFEID  string
	NotBefore time.Time
	NotAfter  time.Time
}

// Identity is who sends the request, as one authenticator established it. It is
// immutable once built, and cached tokens share one value between requests.
type Identity struct {
	Authenticated bool
	Authenticator string // the name in the configuration
	Kind          string // jwt, mtls, anonymous
	Subject       string
	Issuer        string
	Audiences     []string
	Scopes        []string
	Claims        map[string]any // JSON values; numbers are json.Number
	TokenHeader   map[string]any // protected JOSE header
	ExpiresAt     time.Time      // zero: does not expire
	Actor         map[string]any // the "act" claim of RFC 8693

	memo atomic.Value
}

// Memo returns what build made of the identity, and builds it at most a few
// times: the engine keeps its own form of an identity with the identity, so that
// requests with the same token share it. All callers must use one result type.
func (i *Identity) Memo(build func(*Identity) any) any {
	if v := i.memo.Load(); v != nil {
		return v
	}
	v := build(i)
	i.memo.Store(v)
	return v
}

// Route is the route that matched.
type Route struct {
	Name       string
	Params     map[string]string // captures of {name} segments, percent-decoded
	Upstream   string
	Labels     map[string]string
	Entrypoint string // rule to ask, as "gateway/decision"; not part of the input document
	Uncached   bool   // decide anew for each request; not part of the input document
}

// Gateway is the gateway that judges.
type Gateway struct {
	Name     string
	Version  string
	Listener string
	Labels   map[string]string
}

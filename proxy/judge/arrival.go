package judge

import (
	"crypto/tls"
	"net/netip"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/certs"
)

// Listener is what judging depends on where a request arrived.
type Listener struct {
	// Trusted are the peers whose X-Forwarded-*, Forwarded, X-Real-IP and X-Request-Id count.
	Trusted []netip.Prefix
	// PathParameters lets paths have ";" (RFC 3986 section 3.3). Servers disagree on what it means.
	PathParameters bool
	// TLSOptions tell which TLS settings belong to a host; nil: all have the same.
	TLSOptions *certs.Names
	// Gateway is input.gateway, with the listener's name.
	Gateway *authz.Gateway
}

func (l *Listener) trusts(ip netip.Addr) bool {
	for _, p := range l.Trusted {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// Arrival is one request as a front received it. Its strings do not alias a
// connection buffer: the input document and the decision log keep them.
type Arrival struct {
	Listener *Listener
	Method   string
	Target   string         // request target as sent (RFC 9112 section 3.2)
	Protocol string         // "HTTP/1.1"
	Headers  []authz.Header // all of them, in order, with lower-case names
	Peer     netip.AddrPort // the other end of the connection
	// PeerText is Peer's address as text; empty: made from Peer. A front that
	// keeps it with the connection saves the work.
	PeerText      string
	TLS           *tls.ConnectionState // nil without TLS
	TLSInfo       *authz.TLS           // certs.TLSOf(TLS); nil: made from TLS
	TLSOptions    string               // certs.Conn.Options of the connection
	ContentLength int64                // bytes; negative when the client did not say
	Body          authz.Body           // nil when there is none
	Time          time.Time            // when the head had been read
}

// header returns the value of the first header of that name. The shape check
// has refused repeated ones where it matters.
func (a *Arrival) header(name string) string {
	for i := range a.Headers {
		if a.Headers[i].Name == name {
			return a.Headers[i].Value
		}
	}
	return ""
}

// hasToken reports whether a comma-separated header has the token, in any of
// its lines and without case.
func (a *Arrival) hasToken(name, token string) bool {
	for i := range a.Headers {
		if a.Headers[i].Name != name {
			continue
		}
		for t := range strings.SplitSeq(a.Headers[i].Value, ",") {
			if strings.EqualFold(strings.Trim(t, " \t"), token) {
				return true
			}
		}
	}
	return false
}

// WebSocket reports whether the request asks for the one upgrade that the
// gateway makes (RFC 6455 section 4.1). Others, h2c above all, are dropped: the
// tunnel would carry requests that nobody judges.
func (a *Arrival) webSocket() bool {
	return a.Method == "GET" && a.Protocol == "HTTP/1.1" && a.Body == nil &&
		a.hasToken("connection", "upgrade") && strings.EqualFold(a.header("upgrade"), "websocket")
}

package judge

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/route"
)

// Forward is what to send to which upstream.
type Forward struct {
	Upstream  string
	Target    string         // path and query, the very path that was judged
	Host      string         // Host header
	Headers   []authz.Header // all others but framing; lower-case names
	WebSocket bool           // ask for the upgrade and tunnel after a 101
	Timeout   time.Duration  // the route's own; 0: the listener's
	Outbound  []authz.Header // those of Headers that say who the caller is
	Response  authz.ResponseObligation
}

// forward builds what is sent, but for what the decision changes. Headers of f is
// empty and has room.
func (j *Judge) forward(c *judged, a *Arrival, trusted bool) {
	f, s, r, in := &c.forward, &c.shape, c.Route, c.Input
	spent, cookies := c.who.Spent()
	*f = Forward{
		Upstream: r.Config.Upstream, Host: s.hostport, Target: in.Request.Path, Timeout: r.Config.Timeout, WebSocket: a.webSocket(),
		Headers: f.Headers,
	}
	if s.query != "" {
		f.Target += "?" + s.query
	}
	owned := j.ownedOn(r)
	for i := range a.Headers {
		h := a.Headers[i]
		if containsFold(owned, h.Name) {
			continue
		}
		switch j.classes.of(h.Name) {
		case ordinary:
		case credential:
			if h.Name == "proxy-authorization" || !r.Config.ForwardsCredentials() && j.ends(h.Name) {
				continue
			}
			if h.Name == "cookie" {
				if h.Value = authn.WithoutCookies(h.Value, cookies); h.Value == "" {
					continue
				}
			}
		case forwarded:
			if rebuilt(h.Name) || certifies(fold(h.Name)) && !j.believed(&c.who) {
				continue
			}
		default:
			continue
		}
		taken := len(spent) > 0 && slices.Contains(spent, h.Name)
		if taken && !r.Config.ForwardsCredentials() || !taken && containsFold(j.cfg.AssertedHeaders, h.Name) {
			continue
		}
		f.Headers = append(f.Headers, h)
	}
	f.addForwarded(a, s, in, trusted)
}

// believed reports whether what the peer says of its client's certificate may be passed on.
func (j *Judge) believed(r *authn.Request) bool {
	return len(j.cfg.Vouchers) == 0 || slices.ContainsFunc(j.cfg.Vouchers, func(vouches func(*authn.Request) bool) bool { return vouches(r) })
}

// ends reports whether a header carries credentials for the gateway. It does so on every
// route, also where nobody has looked at it: an upstream that got one could use it here.
func (j *Judge) ends(name string) bool {
	return name == "authorization" || containsFold(j.cfg.CredentialHeaders, name)
}

// ownedOn returns the names that a route's outbound headers take from its clients.
func (j *Judge) ownedOn(r *route.Route) []string {
	if r.Index < len(j.owned) {
		return j.owned[r.Index]
	}
	return nil
}

func rebuilt(name string) bool {
	switch name {
	case "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded":
		return true
	}
	return false
}

// addForwarded tells the upstream who asked for what: this hop alone, or
// appended to what a trusted peer reported.
func (f *Forward) addForwarded(a *Arrival, s *shape, in *authz.Input, trusted bool) {
	peer := a.peerText()
	xff, host, chain := peer, s.hostport, ""
	if trusted {
		if v := joined(a, "x-forwarded-for"); v != "" {
			xff = v + ", " + peer
		}
		if v := a.header("x-forwarded-host"); v != "" {
			host = v
		}
		if v := joined(a, "forwarded"); v != "" {
			chain = v + ", "
		}
	}
	f.Headers = append(
		f.Headers,
		authz.Header{Name: "x-forwarded-for", Value: xff},
		authz.Header{Name: "x-forwarded-proto", Value: in.Request.Scheme},
		authz.Header{Name: "x-forwarded-host", Value: host},
		authz.Header{Name: "forwarded", Value: chain + "for=" + forwardedNode(peer) + ";host=" + forwardedHost(s.hostport) + ";proto=" + scheme(a)},
		authz.Header{Name: "x-request-id", Value: in.Request.ID},
	)
}

// forwardedNode quotes an IPv6 address (RFC 7239 section 6).
func forwardedNode(ip string) string {
	if strings.IndexByte(ip, ':') >= 0 {
		return `"[` + ip + `]"`
	}
	return ip
}

func forwardedHost(h string) string {
	if strings.IndexByte(h, ':') >= 0 {
		return `"` + h + `"`
	}
	return h
}

func joined(a *Arrival, name string) string {
	out := ""
	for i := range a.Headers {
		if a.Headers[i].Name == name && a.Headers[i].Value != "" {
			if out != "" {
				out += ", "
			}
			out += a.Headers[i].Value
		}
	}
	return out
}

func (a *Arrival) peerText() string {
	if a.PeerText != "" {
		return a.PeerText
	}
	return a.Peer.Addr().Unmap().WithZone("").String()
}

func scheme(a *Arrival) string {
	if a.TLS != nil {
		return "https"
	}
	return "http"
}

// clientScheme is the scheme that the client used, as far as trusted peers say.
func clientScheme(a *Arrival, trusted bool) string {
	if trusted {
		switch v := strings.ToLower(a.header("x-forwarded-proto")); v {
		case "http", "https":
			return v
		}
	}
	return scheme(a)
}

// clientHost is the host that the client asked for, with its port if it named one, as far
// as trusted peers say. Of several proxies that added theirs, the last is the one that we
// trust. Routes, the policy and the upstream go by Host nevertheless: it is what the
// proxy asks for.
func (s *shape) clientHost(a *Arrival, trusted bool) string {
	if trusted {
		v := a.header("x-forwarded-host")
		v = strings.Trim(v[strings.LastIndexByte(v, ',')+1:], " \t")
		if _, _, err := splitHost(v); err == nil {
			return v
		}
	}
	return s.hostport
}

// source finds the client: from the end of the chain that trusted peers
// reported, the first address that is not trusted itself.
func source(a *Arrival, trusted bool) authz.Source {
	src := authz.Source{IP: a.peerText(), Port: int(a.Peer.Port())}
	if !trusted {
		return src
	}
	chain := joined(a, "x-forwarded-for")
	if chain == "" {
		return src
	}
	for part := range strings.SplitSeq(chain, ",") {
		src.ForwardedFor = append(src.ForwardedFor, strings.Trim(part, " \t"))
	}
	for _, node := range slices.Backward(src.ForwardedFor) {
		ip, err := parseNode(node)
		if err != nil {
			break // what stands before it cannot be told from a client's invention
		}
		src.IP, src.Port = ip.String(), 0
		if !a.Listener.trusts(ip) {
			break
		}
	}
	return src
}

func parseNode(s string) (netip.Addr, error) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap(), nil
	}
	ip, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return ip.Unmap().WithZone(""), err
}

// port is the one the client named, or its scheme's default.
func (s *shape) portFor(scheme string) int {
	switch {
	case s.port != 0:
		return s.port
	case scheme == "https":
		return 443
	}
	return 80
}

// redirectToHTTPS returns the https URL of the request, for listeners that do
// nothing else.
func (s *shape) redirectToHTTPS(port int) string {
	host := s.host
	if port != 0 && port != 443 {
		host += ":" + strconv.Itoa(port)
	}
	u := "https://" + host + s.path
	if s.query != "" {
		u += "?" + s.query
	}
	return u
}

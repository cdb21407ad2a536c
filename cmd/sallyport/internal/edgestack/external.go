package edgestack

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/proxy/judge"
)

// service is what a filter of type External asks, as the policy reads it.
type service struct {
	URL      string            `json:"url"`      // with the prefix of paths
	Timeout  string            `json:"timeout"`  // a duration
	Bodies   bool              `json:"bodies"`   // requests with a body may pass
	Request  []string          `json:"request"`  // headers of the client that it gets
	Always   map[string]string `json:"always"`   // headers that it gets in any case
	Upstream []string          `json:"upstream"` // of its headers, those that the upstream gets
	Remove   []string          `json:"remove"`   // headers that the upstream has of nobody else
	Client   []string          `json:"client"`   // of its headers, those that a denied client gets
	Failed   int               `json:"failed"`   // status where it does not decide

	host    string
	timeout time.Duration
}

// question is what a route asks a service. The policy sees the path that is forwarded;
// the service gets the one that was asked for.
type question struct {
	Service string `json:"service"`
	Strip   string `json:"strip"` // the route's strip_prefix, which is put back
	Add     string `json:"add"`   // the route's add_prefix, which is taken away
}

// externalEntrypoint decides the routes with a service: what http.send can reach is never
// cached, and the other routes' decisions are.
const externalEntrypoint = "edge_stack/external"

const externalClosed = "a filter of type External is not carried over"

// external reads a filter whose service decides, which the policy asks.
func (f *filter) external(s *section) {
	x := &service{Bodies: true, Always: map[string]string{"user-agent": ""}, Failed: http.StatusForbidden}
	if !x.address(f, s) {
		return
	}
	x.timeout = 5 * time.Second
	if d, _ := s.millis("timeout_ms"); d > 0 {
		x.timeout = d
	}
	x.Timeout = x.timeout.String()
	x.request(s)
	x.answer(s)
	x.failures(s)
	if s.get("include_body") != nil {
		x.Bodies = false
		s.differ("include_body", "the service is not shown bodies, and what it has not seen does not pass: requests with a body are denied")
	}
	s.without("it has no meaning without include_body", "allow_partial")
	if s.flag("add_linkerd_headers") {
		x.Always["l5d-dst-override"] = strings.TrimPrefix(strings.TrimPrefix(x.origin(), "http://"), "https://")
	}
	s.differ("", "only 200 lets a request pass; Host is the service's own, X-Forwarded-For the client alone, and of the answer a client gets a JSON body only and one Set-Cookie")
	f.service, f.owned = x, slices.Clone(x.Upstream)
}

// origin is the URL without the prefix of paths.
func (x *service) origin() string {
	u, err := url.Parse(x.URL)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// address reads where the service is, and closes the filter if a policy cannot ask there.
func (x *service) address(f *filter, s *section) bool {
	closed := func(key, why string) bool {
		f.shut(s, key, externalClosed+": "+why)
		f.closed = externalClosed
		return false
	}
	if proto := s.text("proto"); proto != "" && !strings.EqualFold(proto, "http") {
		return closed("proto", "a policy asks over HTTP, and not over "+proto+"; write what the service decides in Rego")
	}
	for _, key := range []string{"tlsConfig", "tls_config"} {
		if s.get(key) != nil {
			return closed(key, "the certificates of the service cannot be said; ask it by http.send with tls_ca_cert_file in Rego")
		}
	}
	secure := false
	if n := s.get("tls"); n != nil {
		var err error
		if secure, err = strconv.ParseBool(n.Value); err != nil {
			return closed("tls", "a TLSContext cannot be said; ask the service by http.send with tls_ca_cert_file in Rego")
		}
	}
	address := s.text("auth_service")
	if !strings.Contains(address, "://") {
		address = map[bool]string{true: "https://", false: "http://"}[secure] + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" || strings.Contains(u.Hostname(), ":") || u.User != nil || strings.TrimSuffix(u.Path, "/") != "" ||
		u.RawQuery != "" || u.Fragment != "" || u.Scheme != "http" && u.Scheme != "https" {
		return closed("auth_service", "it is not host:port, or http or https with them (an address of IPv6 needs a name)")
	}
	if secure {
		u.Scheme = "https"
	}
	if u.Scheme == "https" {
		s.differ("auth_service", "the certificate of the service is verified with the authorities of the system")
	}
	prefix := s.text("path_prefix")
	if p, err := url.Parse(prefix); err != nil || prefix != "" && (!strings.HasPrefix(prefix, "/") || strings.HasPrefix(prefix, "//") || p.Path != prefix || p.EscapedPath() != prefix) {
		return closed("path_prefix", "it is no path that begins with a slash")
	}
	x.URL, x.host = u.Scheme+"://"+u.Host+prefix, u.Hostname()
	return true
}

// request reads which headers of the client the service gets. X-Forwarded ones are the gateway's word.
func (x *service) request(s *section) {
	x.Request = []string{"authorization", "cookie", "from", "proxy-authorization", "user-agent"}
	unseen := judge.Unseen(nil, nil)
	for _, name := range names(s, "allowed_request_headers") {
		why := unseen(name)
		switch {
		case slices.Contains(x.Request, name), slices.Contains([]string{"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"}, name):
		case name == "accept-encoding":
			s.differ("allowed_request_headers", "%s is not sent: the gateway reads the answer", name)
		case why != "" && why != unseen("authorization"):
			s.differ("allowed_request_headers", "%s is not sent: %s", name, why)
		default:
			x.Request = append(x.Request, name)
		}
	}
}

// answer reads which headers of the service go on.
func (x *service) answer(s *section) {
	x.Upstream, x.Remove = []string{"authorization"}, []string{}
	x.Client = []string{"set-cookie", "www-authenticate"}
	for _, name := range names(s, "allowed_authorization_headers") {
		if slices.Contains([]string{
			"connection", "content-length", "content-type", "expect", "host", "http2-settings", "keep-alive", "location", "proxy-authenticate",
			"proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "x-request-id",
		}, name) {
			s.differ("allowed_authorization_headers", "%s is not taken from the service: it is the message's own, or only the gateway sets it", name)
			continue
		}
		if !slices.Contains(x.Client, name) {
			x.Client = append(x.Client, name)
		}
		if !slices.Contains(x.Upstream, name) {
			x.Upstream = append(x.Upstream, name)
		}
		if name != "authorization" && name != "cookie" && !slices.Contains(x.Remove, name) {
			x.Remove = append(x.Remove, name)
		}
	}
	if len(x.Remove) > 0 {
		s.differ("allowed_authorization_headers", "what clients send under these names never reaches the upstream; the policy's limits, and what other filters set, do not see the service's values")
	}
}

// failures reads what there is where the service does not decide.
func (x *service) failures(s *section) {
	if s.flag("failure_mode_allow") {
		s.differ("failure_mode_allow", "is not carried over: it would let everything through while the service is away; then requests are denied")
	}
	below := s.sub("status_on_error")
	if below == nil {
		return
	}
	defer below.rest()
	code, err := strconv.Atoi(cmp.Or(below.text("code"), "403"))
	if err != nil || code < 400 || code > 599 {
		below.differ("code", "must be from 400 to 599 for a denial: it is 403")
		return
	}
	x.Failed = code
}

// names reads a list of names of headers, in lower case.
func names(s *section, key string) (out []string) {
	for _, name := range s.texts(key) {
		name = strings.ToLower(name)
		if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') }) {
			s.differ(key, "%q is left out: it is no name of letters, digits and dashes", name)
			continue
		}
		out = append(out, name)
	}
	return out
}

// asks has the service decide a route. Nobody but the service looks at credentials.
func (o *output) asks(r *route, f *filter) {
	f.used = true
	r.ForwardCredentials, r.Entrypoint, r.InputHeaders = true, externalEntrypoint, f.service.Request
	if o.services == nil {
		o.services, o.asked = map[string]*service{}, map[string]question{}
	}
	q := question{Service: f.name, Strip: r.Rewrite["strip_prefix"], Add: r.Rewrite["add_prefix"]}
	if q.Strip == r.Match.Path {
		q.Add += "/" // all of the path was stripped
	}
	o.services[f.name], o.asked[r.Name] = f.service, q
	p := &o.config.Policy
	if p.Builtins == nil {
		p.Builtins = &builtins{Allow: []string{"http.send"}}
	}
	if !slices.Contains(p.Builtins.AllowNet, f.service.host) {
		p.Builtins.AllowNet = append(p.Builtins.AllowNet, f.service.host)
		slices.Sort(p.Builtins.AllowNet)
	}
	// The policy has to see that the service does not answer.
	o.longest = max(o.longest, f.service.timeout+time.Second)
	p.DecisionTimeout = o.longest.String()
}

const externalRules = `
# Only what the service answers is an answer: 5xx is none, and neither are other successes,
# or redirects to nowhere. Quotes in URLs are escaped, since http.send trims them.
default external := {"allow": false, "reason": "no imported rule is for this route"}

external := %s if {
	_answer.status_code == 200
} else := object.union(_denial, {"status": _answer.status_code}) if {
	_answer.status_code >= 400
	_answer.status_code < 500
} else := object.union(_denial, {"status": _answer.status_code, "redirect": _answer.headers.location[0]}) if {
	_answer.status_code in {301, 302, 303, 307, 308}
} else := {"allow": false, "reason": "the service of the filter did not decide", "status": _service.failed}

_passed := {"allow": true, "reason": "the service of the filter let it through", "upstream": {
	"remove_headers": _service.remove,
	"set_headers": {name: concat(",", values) | some name in _service.upstream; values := _answer.headers[name]},
}}

_denial := object.union({"allow": false, "reason": "the service of the filter denies it", "headers": _told}, _body)

_told[name] := concat(", ", values) if {
	some name in _service.client
	name != "set-cookie"
	values := _answer.headers[name]
}

_told["set-cookie"] := _answer.headers["set-cookie"][0]

_told["content-type"] := _answer.headers["content-type"][0] if _body.body

default _body := {}

_body := {"body": _answer.body} if _answer.body != null

_answer := http.send({
	"method": input.request.method,
	"url": strings.replace_n({"\"": "%%22", "#": "%%23"}, concat("", [_service.url, _question.strip, trim_prefix(input.request.path, _question.add), _query])),
	"headers": object.union(_service.always, _sent),
	"timeout": _service.timeout,
	"enable_redirect": false,
	"raise_error": false,
}) if _askable

default _query := ""

_query := concat("", ["?", input.request.raw_query]) if input.request.raw_query != ""

_askable if _service.bodies

_askable if input.request.content_length == 0

_separators := {"cookie": "; "}

_sent[name] := concat(object.get(_separators, name, ","), values) if {
	some name in _service.request
	values := input.request.headers[name]
}

_sent["x-forwarded-for"] := input.source.ip

_sent["x-forwarded-host"] := input.request.host

_sent["x-forwarded-proto"] := input.request.scheme

# The policy sees the path that is forwarded, and the service the one that was asked for.
_question := _asked[input.route.name]

_service := _services[_question.service]
`

// externalRules are the rules of the policy for routes that a service decides.
func (o *output) externalRules() string {
	if len(o.services) == 0 {
		return ""
	}
	letting := "_passed"
	if len(o.counted) > 0 {
		letting = "object.union(_passed, _limit)"
	}
	var b strings.Builder
	fmt.Fprintf(&b, externalRules, letting)
	table(&b, "_asked", o.asked)
	table(&b, "_services", o.services)
	return b.String()
}

// table writes an object of objects, whose members always have a JSON form.
func table[T any](b *strings.Builder, name string, rows map[string]T) {
	fmt.Fprintf(b, "\n%s := {\n", name)
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		text, _ := json.Marshal(rows[key])
		fmt.Fprintf(b, "\t%s: %s,\n", quoted([]string{key}), text)
	}
	b.WriteString("}\n")
}

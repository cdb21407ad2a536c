package decisionlog

import (
	"strings"

	"github.com/sallyport/sallyport/engine/authz"
)

// input writes the input document, version 1, masked and without the body: a body
// may be large and hold anything, and is not the log's to keep.
//
// The engine builds the same document as terms for the evaluator; a test keeps the
// two alike.
func (enc *encoder) input(w *buffer, in *authz.Input) {
	enc.params = sortedPairs(enc.params[:0], in.Route.Params)
	w.open('{')
	w.member("version", authz.InputVersion)
	enc.request(w, &in.Request)
	w.key("source")
	w.open('{')
	w.member("ip", in.Source.IP)
	w.number("port", int64(in.Source.Port), 1)
	w.list("forwarded_for", in.Source.ForwardedFor)
	w.close('}')
	if in.TLS != nil {
		w.key("tls")
		remembered(w, &enc.tlss, in.TLS, enc.tls)
	}
	if in.Identity != nil {
		w.key("identity")
		remembered(w, &enc.identities, in.Identity, enc.identity)
	}
	enc.route(w, &in.Route)
	if in.Gateway != nil {
		w.key("gateway")
		remembered(w, &enc.gateways, in.Gateway, enc.gateway)
	}
	w.close('}')
}

// remembered writes v, which is not to change any more, as it was written before.
func remembered[V any](w *buffer, k *kept[*V], v *V, write func(*buffer, *V)) {
	if text := k.get(v); text != nil {
		w.b = append(w.b, text...)
		return
	}
	start := len(w.b)
	write(w, v)
	k.put(v, w.b[start:])
}

func (enc *encoder) gateway(w *buffer, g *authz.Gateway) {
	w.open('{')
	w.member("name", g.Name)
	w.member("version", g.Version)
	w.member("listener", g.Listener)
	w.stringMap("labels", g.Labels, clearText)
	w.close('}')
}

func (enc *encoder) request(w *buffer, r *authz.Request) {
	captured := enc.mask.captured(enc.params)
	w.key("request")
	w.open('{')
	w.member("id", r.ID)
	w.member("method", r.Method)
	w.member("scheme", r.Scheme)
	w.member("host", r.Host)
	w.number("port", int64(r.Port), 1)
	w.member("path", enc.mask.path(r.Path, captured))
	enc.segments(w, r.Segments, captured)
	enc.query(w, r.RawQuery)
	w.member("raw_query", enc.mask.rawQuery(r.RawQuery))
	enc.headers(w, r.Headers)
	w.member("protocol", r.Protocol)
	w.number("content_length", r.ContentLength, 0)
	w.member("content_type", r.ContentType)
	w.time("time", r.Time)
	w.close('}')
}

func (enc *encoder) segments(w *buffer, segments []string, captured []pair) {
	w.key("segments")
	w.open('[')
	for _, s := range segments {
		w.comma()
		w.quote(enc.mask.segment(s, captured))
	}
	w.close(']')
}

func (enc *encoder) headers(w *buffer, headers []authz.Header) {
	m := enc.multimap()
	for _, h := range headers {
		m.add(h.Name, enc.mask.header(h.Name, h.Value))
	}
	enc.write(w, "headers", &m)
}

func (enc *encoder) query(w *buffer, raw string) {
	m := enc.multimap()
	for pair := range strings.SplitSeq(raw, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name, value = unescape(name), unescape(value)
		m.add(enc.mask.text(name), enc.mask.parameter(name, value))
	}
	enc.write(w, "query", &m)
}

func (enc *encoder) tls(w *buffer, t *authz.TLS) {
	w.open('{')
	w.member("version", t.Version)
	w.member("cipher", t.Cipher)
	w.member("server_name", t.ServerName)
	if c := t.ClientCertificate; c != nil {
		w.key("client_certificate")
		w.open('{')
		w.member("subject", c.Subject)
		w.member("issuer", c.Issuer)
		w.member("serial", c.Serial)
		w.member("sha256", c.SHA256)
		w.list("dns_names", c.DNSNames)
		w.list("uris", c.URIs)
		w.list("emails", c.Emails)
		w.member("spiffe_id", c.SPIFFEID)
		w.time("not_before", c.NotBefore)
		w.time("not_after", c.NotAfter)
		w.close('}')
	}
	w.close('}')
}

func (enc *encoder) identity(w *buffer, id *authz.Identity) {
	w.open('{')
	w.boolean("authenticated", id.Authenticated)
	w.member("authenticator", id.Authenticator)
	w.member("kind", id.Kind)
	w.member("subject", id.Subject)
	w.member("issuer", id.Issuer)
	list(w, "audiences", id.Audiences)
	list(w, "scopes", id.Scopes)
	enc.claimsMember(w, "claims", id.Claims)
	if id.TokenHeader != nil {
		w.key("token")
		w.open('{')
		enc.claimsMember(w, "header", id.TokenHeader)
		w.close('}')
	}
	if !id.ExpiresAt.IsZero() {
		w.number("expires_at", id.ExpiresAt.Unix(), id.ExpiresAt.Unix())
	}
	enc.claimsMember(w, "actor", id.Actor)
	w.close('}')
}

func (enc *encoder) claimsMember(w *buffer, name literal, claims map[string]any) {
	if claims != nil {
		w.key(name)
		enc.claims(w, claims, 0, false)
	}
}

func (enc *encoder) route(w *buffer, r *authz.Route) {
	w.key("route")
	w.open('{')
	w.member("name", r.Name)
	w.pairs("params", enc.params, enc.mask.parameter)
	w.member("upstream", r.Upstream)
	w.stringMap("labels", r.Labels, clearText)
	w.close('}')
}

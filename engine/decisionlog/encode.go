package decisionlog

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
)

// encoder makes events of records. It belongs to the worker alone.
type encoder struct {
	mask       *masker
	maxInput   int // bytes; 0: no limit
	entrypoint string
	fields     []field // of the last multimap, for the next
}

// event encodes r. A record without the time of its request gets that of now.
func (enc *encoder) event(r *authz.Record, now func() time.Time) *Event {
	e := &Event{Outcome: r.Outcome, TraceID: r.TraceID, SpanID: r.SpanID}
	if r.Decision != nil {
		e.DecisionID, e.Revision, e.Bundles = r.Decision.ID, r.Decision.Revision, r.Decision.Bundles
		e.Decision = enc.decision(r.Decision)
		e.Entrypoint = enc.entrypoint
	}
	if r.Input != nil {
		e.RequestID = r.Input.Request.ID
		e.Time = r.Input.Request.Time
		if r.Decision != nil && r.Input.Route.Entrypoint != "" {
			e.Entrypoint = r.Input.Route.Entrypoint
		}
		e.Input = enc.input(r.Input)
	}
	if e.Time.IsZero() {
		e.Time = now()
	}
	omitted := enc.maxInput > 0 && len(e.Input) > enc.maxInput
	if omitted {
		e.Input = nil
	}
	e.JSON = enc.record(e, r, omitted)
	return e
}

func (enc *encoder) record(e *Event, r *authz.Record, omitted bool) []byte {
	w := &buffer{b: make([]byte, 0, 512+len(e.Input)+len(e.Decision))}
	w.open('{')
	w.time("timestamp", e.Time)
	w.member("request_id", e.RequestID)
	w.member("decision_id", e.DecisionID)
	w.member("outcome", string(e.Outcome))
	w.number("status", int64(r.Status), 1)
	w.member("error", enc.mask.text(r.Error))
	if r.Decision != nil {
		w.member("reason", enc.mask.text(r.Decision.Reason))
		if len(r.Decision.Labels) > 0 {
			w.stringMap("labels", r.Decision.Labels, func(_, v string) string { return enc.mask.text(v) })
		}
	}
	w.member("revision", e.Revision)
	bundles(w, e.Bundles)
	w.member("entrypoint", e.Entrypoint)
	if r.Decision != nil && r.Decision.Cached {
		w.boolean("cached", true)
	}
	w.raw("decision", e.Decision)
	w.raw("input", e.Input)
	if omitted {
		w.boolean("input_omitted", true)
	}
	w.member("upstream", r.Upstream)
	enc.timings(w, r)
	w.member("trace_id", e.TraceID)
	w.member("span_id", e.SpanID)
	w.close('}')
	return w.b
}

// bundles writes the revision of each bundle as OPA's decision log does.
func bundles(w *buffer, revisions map[string]string) {
	if len(revisions) == 0 {
		return
	}
	w.key("bundles")
	w.open('{')
	for _, name := range slices.Sorted(maps.Keys(revisions)) {
		w.key(name)
		w.open('{')
		w.member("revision", revisions[name])
		w.close('}')
	}
	w.close('}')
}

// timings are in microseconds: whole numbers that a reader need not round.
func (enc *encoder) timings(w *buffer, r *authz.Record) {
	w.key("timings_us")
	w.open('{')
	w.number("authenticate", r.Authenticate.Microseconds(), 0)
	w.number("decide", r.Decide.Microseconds(), 0)
	w.number("forward", r.Forward.Microseconds(), 0)
	w.close('}')
}

// decision writes the decision in the form of the contract, section 4, without
// what stands at the top of the record. A response body is the policy's to choose
// and may hold anything, so only its size is written.
func (enc *encoder) decision(d *authz.Decision) []byte {
	w := &buffer{b: make([]byte, 0, 256)}
	w.open('{')
	w.boolean("allow", d.Allow)
	w.number("status", int64(d.Status), 1)
	enc.headerMap(w, "headers", d.Headers)
	w.number("body_bytes", int64(len(d.Body)), 1)
	w.member("redirect", enc.mask.url(d.Redirect))
	enc.upstream(w, &d.Upstream)
	if r := d.Response; r.SetHeaders != nil || r.RemoveHeaders != nil {
		w.key("response")
		w.open('{')
		enc.headerMap(w, "set_headers", r.SetHeaders)
		names(w, "remove_headers", r.RemoveHeaders)
		w.close('}')
	}
	enc.conditions(w, d)
	if f := d.Fault; f != nil {
		w.key("fault")
		w.open('{')
		w.member("kind", string(f.Kind))
		w.member("detail", enc.mask.text(f.Detail))
		w.close('}')
	}
	w.close('}')
	return w.b
}

func (enc *encoder) upstream(w *buffer, u *authz.UpstreamObligation) {
	if u.Name == "" && u.SetHeaders == nil && u.RemoveHeaders == nil && u.TokenExchange == nil {
		return
	}
	w.key("upstream")
	w.open('{')
	w.member("name", u.Name)
	enc.headerMap(w, "set_headers", u.SetHeaders)
	names(w, "remove_headers", u.RemoveHeaders)
	if t := u.TokenExchange; t != nil {
		w.key("token_exchange")
		w.open('{')
		w.member("audience", t.Audience)
		w.member("scope", t.Scope)
		w.close('}')
	}
	w.close('}')
}

func (enc *encoder) conditions(w *buffer, d *authz.Decision) {
	if c := d.Challenge; c != nil {
		w.key("challenge")
		w.open('{')
		w.member("error", c.Error)
		w.member("scope", c.Scope)
		w.member("acr_values", c.ACRValues)
		w.number("max_age", int64(c.MaxAge), 0)
		w.close('}')
	}
	if r := d.RateLimit; r != nil {
		w.key("rate_limit")
		w.open('{')
		w.member("key", enc.mask.text(r.Key))
		w.member("rate", r.Rate)
		w.number("burst", int64(r.Burst), 1)
		w.close('}')
	}
}

func (enc *encoder) headerMap(w *buffer, name string, headers map[string]string) {
	if headers != nil {
		w.stringMap(name, headers, enc.headerValue)
	}
}

func (enc *encoder) headerValue(name, value string) string {
	return enc.mask.header(strings.ToLower(name), value)
}

func names(w *buffer, name string, list []string) {
	if list != nil {
		w.list(name, list)
	}
}

// maxDepth bounds the nesting of a claim that is written.
const maxDepth = 32

// claim writes a claim's value. Everything below a claim that is a secret is one.
func (enc *encoder) claim(w *buffer, name string, v any, depth int, secret bool) {
	if _, named := enc.mask.claims[fold(name)]; named {
		secret = true
	}
	switch v := v.(type) {
	case string:
		if secret {
			w.quote(enc.mask.hash(v))
			return
		}
		w.quote(enc.mask.text(v))
	case map[string]any:
		enc.claims(w, v, depth+1, secret)
	case []any:
		w.open('[')
		for _, element := range v {
			w.comma()
			enc.claim(w, name, element, depth+1, secret || depth > maxDepth)
		}
		w.close(']')
	default:
		enc.scalar(w, v, secret)
	}
}

func (enc *encoder) claims(w *buffer, m map[string]any, depth int, secret bool) {
	var scratch [16]string // most objects fit, and need no allocation
	w.open('{')
	for _, name := range sortedNames(scratch[:0], m) {
		if depth > maxDepth {
			break
		}
		w.key(name)
		enc.claim(w, name, m[name], depth, secret)
	}
	w.close('}')
}

// scalar writes what is neither string, object nor array. A number or a boolean
// has too few values for a hash to hide it. Types that a JSON decoder does not
// make are written as encoding/json would.
func (enc *encoder) scalar(w *buffer, v any, secret bool) {
	if secret && v != nil {
		w.quote("***")
		return
	}
	text, err := json.Marshal(v)
	if err != nil {
		w.quote("?")
		return
	}
	w.b = append(w.b, text...)
}

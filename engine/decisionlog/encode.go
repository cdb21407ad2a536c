package decisionlog

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
)

// encoder makes lines of records. It belongs to the worker alone.
type encoder struct {
	mask       *masker
	maxInput   int // bytes; 0: no limit
	entrypoint string

	out    buffer  // lines that are not written yet
	event  Event   // of the last line, for sinks
	fields []field // of the last multimap, for the next
	params []pair  // of the route, sorted

	decisions  kept[*authz.Decision] // of the decision cache
	identities kept[*authz.Identity]
	tlss       kept[*authz.TLS]
	gateways   kept[*authz.Gateway]
	bundles    encodedBundles
}

// line appends the line of r, with its end, to out. The event that it returns
// refers to that memory. A record without the time of its request gets that of now.
func (enc *encoder) line(r *authz.Record, now func() time.Time) *Event {
	e, w := &enc.event, &enc.out
	*e = Event{Outcome: r.Outcome, TraceID: r.TraceID, SpanID: r.SpanID}
	if r.Decision != nil {
		e.DecisionID, e.Revision, e.Bundles = r.DecisionID, r.Decision.Revision, r.Decision.Bundles
		e.Entrypoint = enc.entrypoint
	}
	if r.Input != nil {
		e.RequestID, e.Time = r.Input.Request.ID, r.Input.Request.Time
		if r.Decision != nil && r.Input.Route.Entrypoint != "" {
			e.Entrypoint = r.Input.Route.Entrypoint
		}
	}
	if e.Time.IsZero() {
		e.Time = now()
	}
	start := len(w.b)
	w.open('{')
	enc.head(w, e, r)
	decision := enc.decisionMember(w, r.Decision)
	input := enc.boundedInput(w, r.Input)
	w.member("upstream", r.Upstream)
	timings(w, r)
	w.member("trace_id", e.TraceID)
	w.member("span_id", e.SpanID)
	w.close('}')
	// Only now does the memory stay where it is.
	e.JSON, e.Decision, e.Input = w.b[start:len(w.b):len(w.b)], decision.of(w), input.of(w)
	w.b = append(w.b, '\n')
	return e
}

// part is where a part of a line stands in the buffer; the zero value is none.
type part struct{ start, end int }

func (p part) of(w *buffer) []byte {
	if p.end == 0 {
		return nil
	}
	return w.b[p.start:p.end:p.end]
}

// head writes what stands before decision and input.
func (enc *encoder) head(w *buffer, e *Event, r *authz.Record) {
	w.time("timestamp", e.Time)
	w.member("request_id", e.RequestID)
	w.member("decision_id", e.DecisionID)
	w.member("outcome", string(e.Outcome))
	w.number("status", int64(r.Status), 1)
	w.member("error", enc.mask.text(r.Error))
	if r.Decision != nil {
		enc.reason(w, r.Decision)
	}
	w.member("revision", e.Revision)
	if len(e.Bundles) > 0 {
		w.key("bundles")
		enc.bundles.write(w, e.Bundles)
	}
	w.member("entrypoint", e.Entrypoint)
	if r.Decision != nil && r.Decision.Cached {
		w.boolean("cached", true)
	}
}

// reason writes reason and labels, which stand at the top of the record.
func (enc *encoder) reason(w *buffer, d *authz.Decision) {
	w.member("reason", enc.mask.text(d.Reason))
	if len(d.Labels) > 0 {
		w.stringMap("labels", d.Labels, func(_, v string) string { return enc.mask.text(v) })
	}
}

// boundedInput writes the input document, or that it was too large.
func (enc *encoder) boundedInput(w *buffer, in *authz.Input) part {
	if in == nil {
		return part{}
	}
	before := len(w.b)
	w.key("input")
	start := len(w.b)
	enc.input(w, in)
	if enc.maxInput > 0 && len(w.b)-start > enc.maxInput {
		w.b = w.b[:before]
		w.boolean("input_omitted", true)
		return part{}
	}
	return part{start, len(w.b)}
}

// encodedBundles keeps the encoding of the last revisions: all decisions of a
// revision of the policy share one map.
type encodedBundles struct {
	of   map[string]string // held, so that no other map can take its place in memory
	text []byte
}

// write writes the revision of each bundle as OPA's decision log does.
func (k *encodedBundles) write(w *buffer, revisions map[string]string) {
	if reflect.ValueOf(k.of).Pointer() == reflect.ValueOf(revisions).Pointer() {
		w.b = append(w.b, k.text...)
		return
	}
	start := len(w.b)
	w.open('{')
	for _, name := range slices.Sorted(maps.Keys(revisions)) {
		w.anyKey(name)
		w.open('{')
		w.member("revision", revisions[name])
		w.close('}')
	}
	w.close('}')
	k.of, k.text = revisions, append(k.text[:0], w.b[start:]...)
}

// timings are in microseconds: whole numbers that a reader need not round.
func timings(w *buffer, r *authz.Record) {
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
func (enc *encoder) decision(w *buffer, d *authz.Decision) {
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
		list(w, "remove_headers", r.RemoveHeaders)
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
}

func (enc *encoder) decisionMember(w *buffer, d *authz.Decision) part {
	if d == nil {
		return part{}
	}
	w.key("decision")
	start := len(w.b)
	if d.Cached {
		remembered(w, &enc.decisions, d, enc.decision)
	} else {
		enc.decision(w, d)
	}
	return part{start, len(w.b)}
}

func (enc *encoder) upstream(w *buffer, u *authz.UpstreamObligation) {
	if u.Name == "" && u.SetHeaders == nil && u.RemoveHeaders == nil && u.TokenExchange == nil {
		return
	}
	w.key("upstream")
	w.open('{')
	w.member("name", u.Name)
	enc.headerMap(w, "set_headers", u.SetHeaders)
	list(w, "remove_headers", u.RemoveHeaders)
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

func (enc *encoder) headerMap(w *buffer, name literal, headers map[string]string) {
	if headers != nil {
		w.stringMap(name, headers, enc.mask.header)
	}
}

func list(w *buffer, name literal, values []string) {
	if values != nil {
		w.list(name, values)
	}
}

// maxDepth bounds the nesting of a claim that is written.
const maxDepth = 32

// claim writes a claim's value. Everything below a claim that is a secret is one.
func (enc *encoder) claim(w *buffer, name string, v any, depth int, hidden bool) {
	hidden = hidden || enc.mask.claims.class(name) == secret
	switch v := v.(type) {
	case string:
		if hidden {
			w.quote(enc.mask.hash(v))
			return
		}
		w.quote(enc.mask.text(v))
	case map[string]any:
		enc.claims(w, v, depth+1, hidden)
	case []any:
		w.open('[')
		for _, element := range v {
			w.comma()
			enc.claim(w, name, element, depth+1, hidden || depth > maxDepth)
		}
		w.close(']')
	default:
		scalar(w, v, hidden)
	}
}

func (enc *encoder) claims(w *buffer, m map[string]any, depth int, hidden bool) {
	var scratch [16]string // most objects fit, and need no allocation
	w.open('{')
	for _, name := range sortedNames(scratch[:0], m) {
		if depth > maxDepth {
			break
		}
		w.anyKey(name)
		enc.claim(w, name, m[name], depth, hidden)
	}
	w.close('}')
}

// scalar writes what is neither string, object nor array. A number or a boolean
// has too few values for a hash to hide it. Types that a JSON decoder does not
// make are written as encoding/json would.
func scalar(w *buffer, v any, hidden bool) {
	if hidden && v != nil {
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

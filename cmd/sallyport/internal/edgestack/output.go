package edgestack

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/sallyport/sallyport/proxy/template"
)

// output is the configuration and the policy while they are made.
type output struct {
	opts   Options
	report *report
	config document
	files  []Needed

	written []Written

	taken []placed
	names []string // of routes

	open, filtered []string          // routes
	closed         map[string]string // routes and why
	claims         map[string][]string

	limits  []*limit // the strictest first
	counted []counted

	services map[string]*service // that routes ask, by filter
	asked    map[string]question // by route
	longest  time.Duration       // that a decision may take
}

// document is the configuration in the order in which it is written. Its keys are
// those of the configuration, which the tests hold it to.
type document struct {
	Version         string                    `yaml:"version"`
	Listeners       []listener                `yaml:"listeners"`
	Authenticators  map[string]map[string]any `yaml:"authenticators"`
	Upstreams       map[string]upstream       `yaml:"upstreams"`
	Routes          []route                   `yaml:"routes"`
	IdentityHeaders []string                  `yaml:"identity_headers,omitempty,flow"`
	Policy          policy                    `yaml:"policy"`
}

type listener struct {
	Name    string         `yaml:"name"`
	Address string         `yaml:"address"`
	TLS     map[string]any `yaml:"tls,omitempty"`
}

type upstream struct {
	Endpoints      []string          `yaml:"endpoints,flow"`
	ConnectTimeout string            `yaml:"connect_timeout,omitempty"`
	TLS            map[string]string `yaml:"tls,omitempty"`
}

type route struct {
	Name               string                  `yaml:"name"`
	Match              match                   `yaml:"match,flow"`
	Authenticate       []string                `yaml:"authenticate,flow"`
	Require            map[string][]string     `yaml:"require,omitempty,flow"`
	Entrypoint         string                  `yaml:"entrypoint,omitempty"`
	InputHeaders       []string                `yaml:"input_headers,omitempty,flow"`
	Upstream           string                  `yaml:"upstream"`
	Rewrite            map[string]string       `yaml:"rewrite,omitempty,flow"`
	Timeout            string                  `yaml:"timeout,omitempty"`
	ForwardCredentials bool                    `yaml:"forward_credentials,omitempty"`
	Authorization      string                  `yaml:"upstream_authorization,omitempty"`
	UpstreamHeaders    []template.Header       `yaml:"upstream_headers,omitempty"`
	ErrorResponse      *template.ErrorResponse `yaml:"error_response,omitempty"`
	Labels             map[string]string       `yaml:"labels,omitempty,flow"`
}

type match struct {
	Hosts   []string          `yaml:"hosts,omitempty"`
	Path    string            `yaml:"path"`
	Methods []string          `yaml:"methods,omitempty"`
	Headers map[string]string `yaml:"headers,omitempty"`
}

type policy struct {
	Entrypoint      string    `yaml:"entrypoint"`
	Paths           []string  `yaml:"paths,flow"`
	DecisionTimeout string    `yaml:"decision_timeout,omitempty"`
	Builtins        *builtins `yaml:"builtins,omitempty,flow"`
}

type builtins struct {
	Allow    []string `yaml:"allow"`
	AllowNet []string `yaml:"allow_net"`
}

// anyone is the name of the authenticator for routes without a filter. No filter
// is called so: names are made of letters, digits and dashes.
const anyone = "_anyone"

func (o *output) build(in inputs) {
	o.closed, o.claims = map[string]string{}, map[string][]string{}
	o.config = document{
		Version: "v1", Authenticators: map[string]map[string]any{}, Upstreams: map[string]upstream{}, Routes: []route{},
		Policy: policy{Entrypoint: "edge_stack/decision", Paths: []string{PolicyFile}},
	}
	o.routes(in)
	apart(slices.DeleteFunc(in.logins, func(f *filter) bool { return o.config.Authenticators[f.name] == nil }))
	o.limited(in)
	for _, m := range in.mappings {
		if slices.ContainsFunc(o.config.Routes, func(r route) bool { return r.Upstream == m.name }) {
			o.upstream(m, in.contexts)
		}
	}
	o.listener(in.contexts)
	slices.Sort(o.config.IdentityHeaders)
	o.config.IdentityHeaders = slices.Compact(o.config.IdentityHeaders)
}

// need notes a file that has to be there and returns its path.
func (o *output) need(path, content string) string {
	if !slices.ContainsFunc(o.files, func(n Needed) bool { return n.Path == path }) {
		o.files = append(o.files, Needed{path, content})
	}
	return path
}

func (o *output) route(name string, at region, m *mapping, g *guard, closed, label string) {
	r := route{
		Name: name, Match: match{Path: at.pattern(), Methods: m.methods, Headers: m.headers}, Upstream: m.name,
		Labels: map[string]string{"mapping": m.spec.res.key()},
	}
	if at.host != "" {
		r.Match.Hosts = []string{at.host}
	}
	if label != "" {
		r.Labels["rule"] = label
	}
	if m.timeout > 0 {
		r.Timeout = m.timeout.String()
	}
	if m.strip+m.add != "" {
		r.Rewrite = map[string]string{}
		for key, value := range map[string]string{"strip_prefix": m.strip, "add_prefix": m.add} {
			if value != "" {
				r.Rewrite[key] = value
			}
		}
	}
	switch {
	case closed != "":
		o.closed[name] = closed
	case g == nil:
		o.open = append(o.open, name)
		r.ForwardCredentials = true // nobody but the service looks at them
	case g.filters[0].service != nil:
		o.asks(&r, g.filters[0])
	default:
		o.filtered = append(o.filtered, name)
		o.guard(&r, g)
	}
	if len(r.Authenticate) == 0 {
		r.Authenticate = []string{anyone}
		o.config.Authenticators[anyone] = map[string]any{"anonymous": map[string]any{}}
	}
	o.config.Routes = append(o.config.Routes, r)
}

func (o *output) guard(r *route, g *guard) {
	for _, f := range g.filters {
		if !f.used {
			o.files, o.written = append(o.files, f.needed...), append(o.written, f.written...)
		}
		f.used = true
		r.Authenticate = append(r.Authenticate, f.name)
		o.config.Authenticators[f.name] = map[string]any{f.kind: f.auth}
		o.config.IdentityHeaders = append(o.config.IdentityHeaders, f.owned...)
		if file, ok := f.auth["client_secret_file"].(string); ok {
			o.need(file, "the OAuth client's secret")
		}
		f.ask(g.scopes)
		if f.upstreamToken {
			r.Authorization = "token"
		}
		if len(f.claims) > 0 {
			o.claims[f.name] = f.claims
		}
	}
	r.UpstreamHeaders, r.ErrorResponse = g.filters[0].headers, g.filters[0].errors
	if len(g.scopes) > 0 {
		r.Require = map[string][]string{"scopes": g.scopes}
	}
}

// ask has a filter that gets tokens ask for the scopes that a route demands.
func (f *filter) ask(scopes []string) {
	switch f.kind {
	case "oidc":
		scopes = append([]string{"openid"}, scopes...)
	case "client_credentials":
	default:
		return
	}
	asked, _ := f.auth["scopes"].([]string)
	for _, scope := range scopes {
		if !slices.Contains(asked, scope) {
			asked = append(asked, scope)
		}
	}
	if len(asked) > 0 {
		f.auth["scopes"] = asked
	}
}

func (o *output) upstream(m *mapping, contexts map[string]*tlsContext) {
	u := upstream{Endpoints: []string{m.endpoint}}
	if m.connect > 0 {
		u.ConnectTimeout = m.connect.String()
	}
	c := contextOf(m.context, contexts)
	if m.context != "" && c == nil {
		m.spec.differ("tls", "there is no TLSContext %s in these files: the gateway shows the service no certificate", m.context)
	}
	if strings.HasPrefix(m.endpoint, "https:") {
		u.TLS = map[string]string{}
		ca := ""
		if c != nil {
			c.used = true
			var cert, key string
			if cert, key, ca = c.files(o); cert != "" {
				u.TLS["cert_file"], u.TLS["key_file"] = cert, key
			}
			if c.sni != "" {
				u.TLS["server_name"] = c.sni
			}
		}
		if ca != "" {
			u.TLS["ca_file"] = ca
		} else {
			m.spec.differ("service", "the certificate of the service is verified with the authorities of the system, which Edge Stack does only with ca_secret; put another authority into upstreams.%s.tls.ca_file", m.name)
		}
	}
	o.config.Upstreams[m.name] = u
}

// contextOf finds a TLSContext. Mappings name one without its namespace, and Edge
// Stack takes it from any.
func contextOf(key string, contexts map[string]*tlsContext) *tlsContext {
	if c := contexts[key]; c != nil || key == "" {
		return c
	}
	_, name, _ := strings.Cut(key, "/")
	for _, other := range slices.Sorted(maps.Keys(contexts)) {
		if strings.HasSuffix(other, "/"+name) {
			return contexts[other]
		}
	}
	return nil
}

// listener gives the one listener the certificates of the first TLSContext that
// has hosts.
func (o *output) listener(contexts map[string]*tlsContext) {
	l := listener{Name: "public", Address: "127.0.0.1:8080"}
	for _, key := range slices.Sorted(maps.Keys(contexts)) {
		c := contexts[key]
		switch {
		case len(c.hosts) == 0 && !c.used:
			c.spec.differ("", "is used by no upstream and not written")
		case len(c.hosts) == 0:
		case l.TLS != nil:
			c.spec.differ("hosts", "a listener has one certificate: this one is not carried over; write a listener of its own")
		case c.secret == "":
			c.spec.differ("secret", "is missing: the listener speaks no TLS")
		default:
			o.listen(&l, c)
		}
	}
	o.config.Listeners = []listener{l}
}

func (o *output) listen(l *listener, c *tlsContext) {
	cert, key, ca := c.files(o)
	l.TLS = map[string]any{"cert_file": cert, "key_file": key}
	if ca != "" {
		l.TLS["client_ca_file"] = ca
		l.TLS["client_auth"] = map[bool]string{true: "required", false: "optional"}[c.required]
	} else if c.required {
		c.spec.differ("cert_required", "there is no ca_secret to verify certificates with: none is asked for")
	}
	if c.min != "" {
		l.TLS["min_version"] = c.min
	}
	if c.crl != "" {
		l.TLS["crl_files"] = []string{o.need("secrets/"+clean(c.crl)+"/crl.pem", "the revocation list in the secret "+c.crl)}
	}
	if !slices.Contains(c.hosts, "*") {
		c.spec.differ("hosts", "the certificate is shown for every name, not only for %s", strings.Join(c.hosts, ", "))
	}
}

const configHead = `# Written by "sallyport import edge-stack". Read what it said about differences
# before you use it. The address of the listener is not in Edge Stack's resources.
`

func (o *output) yaml() ([]byte, error) {
	var n yaml.Node
	if err := n.Encode(o.config); err != nil {
		return nil, err
	}
	literal(&n)
	var b bytes.Buffer
	b.WriteString(configHead)
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(&n); err != nil {
		return nil, err
	}
	return b.Bytes(), enc.Close()
}

// literal keeps ${ in values from standing for environment variables.
func literal(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
		n.Value = strings.ReplaceAll(n.Value, "${", "$${")
	}
	for _, c := range n.Content {
		literal(c)
	}
}

// rego returns the policy: what Edge Stack does once the filters are done.
func (o *output) rego() []byte {
	var b strings.Builder
	b.WriteString(`# Written by "sallyport import edge-stack". Authenticators and the scopes of the
# routes did what the filters did; this allows what came through them, route by
# route. A route that is not named here is denied.
package edge_stack

default decision := {"allow": false, "reason": "no imported rule is for this route"}
`)
	if len(o.filtered) > 0 {
		fmt.Fprintf(&b, "\ndecision := %s if {\n\tinput.route.name in _filtered\n\tinput.identity.authenticated\n", o.allowing("the filters of the route let it through"))
		if len(o.claims) > 0 {
			b.WriteString("\tevery claim in object.get(_claims, input.identity.authenticator, []) {\n\t\tclaim in object.keys(input.identity.claims)\n\t}\n")
		}
		fmt.Fprintf(&b, "}\n\n_filtered := {%s}\n", quoted(o.filtered))
	}
	if len(o.claims) > 0 {
		b.WriteString("\n# Claims that must be in the tokens of an authenticator.\n_claims := {\n")
		for _, name := range slices.Sorted(maps.Keys(o.claims)) {
			fmt.Fprintf(&b, "\t%s: [%s],\n", quoted([]string{name}), quoted(o.claims[name]))
		}
		b.WriteString("}\n")
	}
	if len(o.open) > 0 {
		fmt.Fprintf(&b, "\ndecision := %s if input.route.name in _open\n\n_open := {%s}\n", o.allowing("the route has no filter"), quoted(o.open))
	}
	if len(o.closed) > 0 {
		b.WriteString("\n# Routes whose filters could not be carried over.\ndecision := {\"allow\": false, \"reason\": why} if why := _closed[input.route.name]\n\n_closed := {\n")
		for _, name := range slices.Sorted(maps.Keys(o.closed)) {
			fmt.Fprintf(&b, "\t%s: %s,\n", quoted([]string{name}), quoted([]string{o.closed[name]}))
		}
		b.WriteString("}\n")
	}
	b.WriteString(o.externalRules())
	b.WriteString(o.limitRules())
	return []byte(b.String())
}

// allowing is a decision that allows, with the limit if there can be one.
func (o *output) allowing(reason string) string {
	decision := fmt.Sprintf(`{"allow": true, "reason": %q}`, reason)
	if len(o.counted) > 0 {
		return "object.union(" + decision + ", _limit)"
	}
	return decision
}

func quoted(texts []string) string {
	out := make([]string, len(texts))
	for i, t := range texts {
		text, _ := json.Marshal(t) // a string always has a JSON form
		out[i] = string(text)
	}
	return strings.Join(out, ", ")
}

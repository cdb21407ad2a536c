package edgestack

import (
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/proxy/template"
)

// filter is a Filter as far as it is carried over.
type filter struct {
	name   string // of the authenticator
	kind   string // of the authenticator
	closed string // why it is not carried over; empty if it is
	auth   map[string]any

	headers []template.Header
	owned   []string // names of headers that are taken from clients and not set
	errors  *template.ErrorResponse
	claims  []string // that must be in the token

	upstreamToken bool // the service gets the access token
	needed        []Needed
	written       []Written

	service *service // that decides; nil: an authenticator does

	spec *section
	used bool
}

// readFilter reads the one type that a Filter has.
func readFilter(res *resource, name string, opts Options, secrets map[string]*secret) *filter {
	f := &filter{name: name, spec: res.spec}
	types := 0
	for kind, read := range map[string]func(*section, Options){
		"JWT": f.jwt, "OAuth2": f.oauth2, "APIKey": func(s *section, opts Options) { f.apiKeys(s, opts, secrets) },
		"External": func(s *section, _ Options) { f.external(s) },
	} {
		// v1alpha1 of gateway.getambassador.io writes type: jwt and jwt: {...}.
		for _, key := range []string{kind, strings.ToLower(kind)} {
			if s := res.spec.sub(key); s != nil {
				types++
				read(s, opts)
				s.rest()
			}
		}
	}
	for _, key := range []string{"Plugin", "plugin"} {
		if res.spec.get(key) != nil {
			types++
			f.closed = "a filter of type Plugin is not carried over"
			res.spec.differ(key, "is not carried over: write what the plugin does in Rego; until then the routes with this filter deny everything")
		}
	}
	res.spec.text("type")
	res.spec.rest()
	if types != 1 && f.closed == "" {
		f.closed = "a filter without exactly one known type is not carried over"
		res.spec.differ("", "has %d types that are known; the routes with this filter deny everything", types)
	}
	return f
}

func (f *filter) jwt(s *section, opts Options) {
	f.kind = "jwt"
	f.auth = map[string]any{"realm": f.spec.res.name + "." + f.spec.res.namespace}
	f.issuer(s, opts)
	f.audience(s, opts)
	f.algorithms(s, opts)
	if url := s.text("jwksURI"); url != "" {
		f.auth["jwks_url"] = url
		if strings.HasPrefix(url, "http://") {
			s.differ("jwksURI", "keys are fetched by https, or by http from loopback: whoever controls the network could replace them")
		}
	}
	f.times(s)
	f.inject(s)
	f.errorResponse(s.sub("errorResponse"))
	s.without("the certificate of the key server is always verified; put its authority into ca_file", "insecureTLS")
	s.without("TLS renegotiation is never done", "renegotiateTLS")
	s.without("the key set is fetched every refresh_interval, whatever its headers say", "maxStale")
	s.differ("", "the Authorization header ends at the gateway; set forward_credentials: true on the routes whose service reads it")
}

func (f *filter) issuer(s *section, opts Options) {
	issuer := s.text("issuer")
	if !s.flag("requireIssuer") && issuer != "" {
		s.differ("issuer", "a signed token without iss is refused")
	}
	if issuer == "" {
		if issuer = given(opts.Issuers, f.name); issuer == "" {
			s.differ("issuer", "is missing, and tokens of just anybody are not accepted: fill in authenticators.%s.jwt.issuer with the iss of the tokens, or give --issuer %s=URL", f.name, f.name)
		} else {
			s.differ("issuer", "only tokens with the issuer %s are accepted, as --issuer says", issuer)
		}
	}
	f.auth["issuer"] = issuer
}

func (f *filter) audience(s *section, opts Options) {
	audience := s.text("audience")
	if !s.flag("requireAudience") && audience != "" {
		s.differ("requireAudience", "a signed token without aud is refused: one made for another service must not enter here")
	}
	if audience == "" {
		if audience = given(opts.Audiences, f.name); audience == "" {
			s.differ("audience", "is missing, and tokens for another service are not accepted: fill in authenticators.%s.jwt.audiences, or give --audience %s=VALUE", f.name, f.name)
			f.auth["audiences"] = []string{}
			return
		}
		s.differ("audience", "only tokens for the audience %s are accepted, as --audience says", audience)
	}
	f.auth["audiences"] = []string{audience}
}

func given(values map[string]string, name string) string {
	if v, ok := values[name]; ok {
		return v
	}
	return values[""]
}

func (f *filter) algorithms(s *section, opts Options) {
	algorithms := s.texts("validAlgorithms")
	if slices.Contains(algorithms, "none") {
		algorithms = slices.DeleteFunc(slices.Clone(algorithms), func(a string) bool { return a == "none" })
		if opts.AllowUnsigned {
			f.auth["insecure_allow_unsigned"] = true
			var optional []string
			for _, c := range [][2]string{{"requireIssuer", "iss"}, {"requireAudience", "aud"}, {"requireExpiresAt", "exp"}} {
				if !s.flag(c[0]) {
					optional = append(optional, c[1])
				}
			}
			if optional != nil {
				f.auth["insecure_optional_claims"] = optional
			}
			s.differ("validAlgorithms", "INSECURE: tokens that nobody signed are accepted, so that anybody can be anybody")
		} else {
			s.differ("validAlgorithms", "none is refused: anybody could write a token and be anybody; tokens must be signed (--insecure-allow-unsigned accepts the others too)")
		}
	} else if len(algorithms) == 0 {
		s.differ("validAlgorithms", "is missing: RS256, PS256, ES256 and EdDSA are accepted, and not every algorithm")
	}
	var kept []string
	for _, a := range algorithms {
		switch {
		case strings.HasPrefix(a, "HS"):
			s.differ("validAlgorithms", "%s is left out: a secret that is fetched is none; put it into jwks_file and add the algorithm", a)
		case slices.Contains([]string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}, a):
			kept = append(kept, a)
		default:
			s.differ("validAlgorithms", "%s is left out: this algorithm is not known", a)
		}
	}
	if len(kept) > 0 {
		f.auth["algorithms"] = kept
	}
}

func (f *filter) times(s *section) {
	const most = time.Minute
	if !s.flag("requireExpiresAt") {
		s.differ("requireExpiresAt", "a signed token without exp is refused: it could never be taken back")
	}
	for key, claim := range map[string]string{"requireIssuedAt": "iat", "requireNotBefore": "nbf"} {
		if s.flag(key) {
			f.claims = append(f.claims, claim) // the policy asks for it
		}
	}
	slices.Sort(f.claims)
	var leeway time.Duration
	keys := []string{"leewayForExpiresAt", "leewayForIssuedAt", "leewayForNotBefore"}
	for _, key := range keys {
		d := s.duration(key)
		if d > most {
			s.differ(key, "%s is cut to %s, the most that a clock may be off", d, most)
			d = most
		}
		leeway = max(leeway, d)
	}
	for _, key := range keys {
		if d := min(s.duration(key), most); d != leeway {
			s.differ(key, "there is one leeway for exp, iat and nbf, which is the longest: %s", leeway)
		}
	}
	f.auth["leeway"] = leeway.String()
}

// inject takes the templates over, one by one.
func (f *filter) inject(s *section) {
	for _, h := range s.subs("injectRequestHeaders") {
		header := template.Header{Name: h.text("name"), Value: h.text("value")}
		h.rest()
		if _, err := template.NewHeaders([]template.Header{header}); err != nil {
			h.differ("value", "the header %q is not set, and what clients send under it is dropped: %s", header.Name, err)
			if _, bad := template.NewHeaders([]template.Header{{Name: header.Name}}); bad == nil {
				f.owned = append(f.owned, strings.ToLower(header.Name))
			}
			continue
		}
		i := slices.IndexFunc(f.headers, func(o template.Header) bool { return strings.EqualFold(o.Name, header.Name) })
		if i >= 0 {
			h.differ("name", "%q stands here twice; the last counts", header.Name)
			f.headers[i] = header
			continue
		}
		f.headers = append(f.headers, header)
	}
	if len(f.headers) > 0 {
		s.differ("injectRequestHeaders", "what clients send under these names is always dropped, and a claim that is missing prints nothing rather than <no value>")
	}
}

func (f *filter) errorResponse(s *section) {
	if s == nil {
		return
	}
	e := &template.ErrorResponse{BodyTemplate: s.text("bodyTemplate")}
	if realm := s.text("realm"); realm != "" {
		f.auth["realm"] = realm
	}
	for _, h := range s.subs("headers") {
		e.Headers = append(e.Headers, template.Header{Name: h.text("name"), Value: h.text("value")})
		h.rest()
	}
	if t := s.text("contentType"); t != "" && !slices.ContainsFunc(e.Headers, func(h template.Header) bool { return strings.EqualFold(h.Name, "content-type") }) {
		e.Headers = append(e.Headers, template.Header{Name: "Content-Type", Value: t})
	}
	s.rest()
	if _, err := template.NewErrors(*e); err != nil {
		s.differ("", "is not carried over, answers are application/problem+json: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
		return
	}
	s.differ("", "it shapes every answer of the gateway on its routes, a denial by the policy too, and not only this filter's")
	f.errors = e
}

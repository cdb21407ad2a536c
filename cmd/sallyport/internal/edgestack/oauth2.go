package edgestack

import (
	"path"
	"slices"
	"strings"
)

// redirectPath is where Edge Stack has browsers come back to. Providers know it.
const redirectPath = "/.ambassador/oauth2/redirection-endpoint"

// oauth2 reads a filter that gets tokens: for people by a login, for machines by the
// credentials that they send.
func (f *filter) oauth2(s *section, opts Options) {
	grant := s.text("grantType")
	switch grant {
	case "", "AuthorizationCode":
		f.kind = "oidc"
	case "ClientCredentials":
		f.kind = "client_credentials"
	case "Password", "ResourceOwner":
		f.shut(s, "grantType", "the grant "+grant+" is not carried over: nobody but the provider should see people's passwords (RFC 9700 section 2.4); "+
			"have people log in (AuthorizationCode), and machines send credentials of their own (ClientCredentials)")
		f.closed = "the grant " + grant + " is not carried over"
		return
	default:
		f.shut(s, "grantType", "the grant "+grant+" is not carried over")
		return
	}
	if !slices.Contains(opts.Kinds, f.kind) {
		f.shut(s, "", "a filter of type OAuth2 is not carried over: this build has no authenticator of kind "+f.kind)
		return
	}
	f.upstreamToken = true // Edge Stack shows the service the access token
	f.auth = map[string]any{"issuer": s.text("authorizationURL")}
	if f.kind == "oidc" {
		f.login(s)
	} else {
		f.machines(s, opts)
	}
	f.clientAuthentication(s.sub("clientAuthentication"))
	f.inject(s)
	f.errorResponse(s.sub("errorResponse"))
	s.without("the certificate of the provider is always verified; put its authority into ca_file", "insecureTLS")
	s.without("TLS renegotiation is never done", "renegotiateTLS")
	s.without("the key set and the metadata are fetched anew in intervals of their own", "maxStale")
}

// shut closes a filter of which all is said in one line.
func (f *filter) shut(s *section, key, why string) {
	f.closed = why
	s.differ(key, "%s; until then the routes with this filter deny everything", why)
	for i := 0; i+1 < len(s.node.Content); i += 2 {
		s.used[s.node.Content[i].Value] = true
	}
}

func (f *filter) login(s *section) {
	f.auth["client_id"], f.auth["redirect_path"] = s.text("clientID"), redirectPath
	f.auth["client_secret_file"] = "secrets/" + f.name + "/oauth2-client-secret"
	// Edge Stack's sessions, in Redis, outlive a restart.
	key := "secrets/" + f.name + "/session-key"
	f.auth["session"] = map[string]any{"keys_files": []string{key}}
	f.needed = append(f.needed, Needed{key, "a key that sessions are sealed with: openssl rand -hex 32"})
	if s.get("secret") != nil {
		s.differ("secret", "secrets do not stand in the configuration: write it into secrets/%s/oauth2-client-secret", f.name)
	}
	s.text("secretName")
	s.text("secretNamespace")
	params := s.pairs("extraAuthorizationParameters")
	if audience := s.text("audience"); audience != "" {
		params["audience"] = audience
	}
	if len(params) > 0 {
		f.auth["authorization_parameters"] = params
	}
	f.origins(s)
	f.somewhere(s)
	s.without("requests without a login are told apart by Accept and X-Requested-With", "insteadOfRedirect")
}

// apart gives each login but the first paths of its own. Edge Stack has one path for all
// filters; of authenticators one path can have only one, at whatever hosts.
func apart(logins []*filter) {
	for i, f := range logins {
		if i == 0 {
			continue
		}
		dir := path.Join(path.Dir(redirectPath), f.name) // other paths are beside this one
		own := path.Join(dir, path.Base(redirectPath))
		f.auth["redirect_path"] = own
		f.spec.differ("", "logins come back to %s, and no more to %s, which the filter %s keeps: register %s at the provider. People log out at %s",
			own, redirectPath, logins[0].spec.res.key(), f.redirectURIs(own), path.Join(dir, "logout"))
	}
}

// redirectURIs is what the provider has to know, for a person.
func (f *filter) redirectURIs(redirectPath string) string {
	if origin, ok := f.auth["redirect_origin"].(string); ok {
		return origin + redirectPath
	}
	origins, _ := f.auth["origins"].([]string)
	if len(origins) == 0 {
		return redirectPath + " of every host at which people log in"
	}
	out := make([]string, len(origins))
	for i, origin := range origins {
		out[i] = origin + redirectPath
	}
	return strings.Join(out, ", ")
}

// machines send the headers that they sent to Edge Stack.
func (f *filter) machines(s *section, opts Options) {
	f.auth["client_id_header"], f.auth["client_secret_header"] = "x-ambassador-client-id", "x-ambassador-client-secret"
	audience := s.text("audience")
	if audience != "" {
		f.auth["parameters"] = map[string]string{"audience": audience}
	}
	if more := given(opts.Audiences, f.name); more != "" {
		audience = more
		s.differ("audience", "only tokens for the audience %s are accepted, as --audience says", audience)
	}
	f.auth["audiences"] = []string{}
	if audience != "" {
		f.auth["audiences"] = []string{audience}
	} else {
		s.differ("audience", "is missing, and tokens for another service are not accepted: fill in authenticators.%s.client_credentials.audiences, or give --audience %s=VALUE", f.name, f.name)
	}
	if v := s.text("accessTokenValidation"); v != "" && v != "auto" && v != "jwt" {
		s.differ("accessTokenValidation", "%s is not carried over: the access token must be a JWT, whose signature, iss, aud and exp must hold, or give authenticators.%s.client_credentials.introspection", v, f.name)
	}
	s.without("the access token is verified by the rules of this authenticator; add what the filter asks for", "accessTokenJWTFilter")
	s.without("there is no login to redirect to", "insteadOfRedirect", "protectedOrigins", "allowedInternalOrigins", "extraAuthorizationParameters")
	s.without("callers send their own", "clientID", "secret", "secretName", "secretNamespace")
}

func (f *filter) clientAuthentication(s *section) {
	if s == nil {
		return
	}
	assertions := "it is made as RFC 7523 says"
	switch method := s.text("method"); {
	case method == "", method == "HeaderPassword":
	case method == "BodyPassword":
		f.auth["client_auth"] = "client_secret_post"
	case method == "JWTAssertion" && f.kind == "client_credentials":
		f.auth["client_assertion_header"] = "x-ambassador-client-assertion"
		s.differ("method", "callers with an identifier and a secret are taken too, where the provider takes them")
		assertions = "callers sign their assertions themselves"
	default:
		f.closed = "the client authentication " + method + " is not carried over"
		advice := "callers must send a secret"
		if f.kind == "oidc" {
			advice = "give authenticators." + f.name + ".oidc.client_key_file a private key"
		}
		s.differ("method", "%s is not carried over: %s; until then the routes with this filter deny everything", method, advice)
	}
	s.without(assertions, "jwtAssertion")
	s.rest()
}

// somewhere closes a filter with origins none of which is carried over: without any,
// people could log in at every host.
func (f *filter) somewhere(s *section) {
	if _, some := f.auth["origins"]; !some && len(s.subs("protectedOrigins")) > 0 {
		f.closed = "none of the origins of the filter is carried over"
		s.differ("protectedOrigins", "none of them is carried over: until there is one the routes with this filter deny everything")
	}
}

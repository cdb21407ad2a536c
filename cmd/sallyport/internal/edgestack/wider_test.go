package edgestack_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/edgestack"
	"github.com/sallyport/sallyport/proxy/route"
)

// parts of resources that the tests put together.
const (
	head    = "---\napiVersion: getambassador.io/v3alpha1\n"
	jwtF    = head + "kind: Filter\nmetadata: {name: f}\nspec: {JWT: {issuer: \"https://idp.example\", audience: a}}\n"
	mapping = head + "kind: Mapping\nmetadata: {name: m}\nspec: {prefix: /, service: s}\n"
)

// met is what guards a request in what was imported: the authenticators of its route,
// "open", "closed", or nothing without a route.
func met(t *testing.T, res *edgestack.Result, host, path string) string {
	t.Helper()
	cfg, err := config.Parse("c", res.Config, func(string) (string, bool) { return "", false })
	if err != nil && !strings.Contains(err.Error(), "no such file") {
		t.Fatalf("%v\n%s", err, res.Config)
	}
	table, err := route.New(cfg.Routes)
	if err != nil {
		t.Fatal(err)
	}
	r := table.Match(&route.Query{Method: "GET", Host: host, Segments: strings.Split(path[1:], "/")})
	switch {
	case r == nil:
		return ""
	case strings.Contains(section(string(res.Policy), "_closed := {"), fmt.Sprintf("%q:", r.Config.Name)):
		return "closed"
	case slices.Contains(r.Config.Authenticate, "_anyone"):
		return "open"
	}
	return strings.Join(r.Config.Authenticate, " ")
}

func imported(t *testing.T, text string) *edgestack.Result {
	t.Helper()
	res, err := edgestack.Import([]edgestack.File{{Name: "f.yaml", Data: []byte(text)}}, edgestack.Options{Kinds: []string{"jwt", "oidc"}})
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return res
}

func said(res *edgestack.Result, key, text string) bool {
	return slices.ContainsFunc(res.Differences, func(d edgestack.Difference) bool {
		return strings.Contains(d.Key, key) && strings.Contains(d.Text, text)
	})
}

// TestKeysThatStandTwice: Kubernetes takes the last of two, or neither. The first may
// be the one that opens.
func TestKeysThatStandTwice(t *testing.T) {
	const policy = "kind: FilterPolicy\nmetadata: {name: p}\nspec:\n  rules:\n  - "
	for _, text := range []string{
		head + policy + "{host: \"*\", path: \"*\", filters: null, filters: [{name: f}]}\n",
		head + policy + "{host: \"*\", path: /a, path: \"*\", filters: [{name: f}]}\n",
		head + policy + "{host: \"*\", path: \"*\", filters: [{name: g, name: f}]}\n",
		head + "kind: Mapping\nmetadata: {name: n}\nspec: {prefix: /, service: s, bypass_auth: true, bypass_auth: false}\n",
		head + "kind: Mapping\nmetadata: {name: n}\nspec: {prefix: /, service: s}\nspec: {prefix: /x/, service: s}\n",
		head + "kind: Filter\nkind: Mapping\nmetadata: {name: n}\nspec: {prefix: /x/, service: s}\n",
	} {
		res, err := edgestack.Import([]edgestack.File{{Name: "f.yaml", Data: []byte(jwtF + mapping + text)}}, edgestack.Options{})
		if err == nil || res != nil || !strings.Contains(err.Error(), "stands twice") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestOriginsThatCannotBeSaid: without one that can, people could log in at any host.
func TestOriginsThatCannotBeSaid(t *testing.T) {
	for origins, want := range map[string]string{
		`[{origin: "https://app.example"}]`:                            "f",
		`[{origin: "https://app.example"}, {origin: "app.example"}]`:   "f",
		`[{origin: "app.example"}]`:                                    "closed",
		`[{origin: "ftp://app.example"}, {origin: "https:///nobody"}]`: "closed",
		`[{includeSubdomains: true}]`:                                  "closed",
		`[]`:                                                           "f", // Edge Stack does not take it
	} {
		res := imported(t, mapping+head+"kind: Filter\nmetadata: {name: f}\nspec: {OAuth2: {authorizationURL: \"https://idp.example\", clientID: web, secret: x, protectedOrigins: "+origins+"}}\n"+
			head+"kind: FilterPolicy\nmetadata: {name: p}\nspec: {rules: [{host: \"*\", path: \"*\", filters: [{name: f}]}]}\n")
		if got := met(t, res, "app.example", "/x"); got != want {
			t.Errorf("%s: %q, want %q", origins, got, want)
		}
		if want == "closed" && !said(res, "protectedOrigins", "deny everything") {
			t.Errorf("%s: not said: %v", origins, res.Differences)
		}
	}
}

// TestCertificatesThatAreNotAskedFor: a host whose clients had to show a certificate
// is not open to those without one.
func TestCertificatesThatAreNotAskedFor(t *testing.T) {
	tlsContext := func(name, spec string) string {
		return head + "kind: TLSContext\nmetadata: {name: " + name + "}\nspec: {" + spec + "}\n"
	}
	const strict = "cert_required: true"
	for _, tc := range []struct {
		name, contexts string
		want           map[string]string // by host
	}{
		{"none", "", map[string]string{"a.example": "open"}},
		{"the one of the listener", tlsContext("a", "hosts: [a.example], secret: s, ca_secret: c, "+strict), map[string]string{"a.example": "open", "b.example": "open"}},
		{"another", tlsContext("a", "hosts: [a.example], secret: s") + tlsContext("b", "hosts: [b.example], secret: s, ca_secret: c, "+strict), map[string]string{
			"a.example": "open", "b.example": "closed", "c.example": "open",
		}},
		{"another that does not insist", tlsContext("a", "hosts: [a.example], secret: s") + tlsContext("b", "hosts: [b.example], secret: s, ca_secret: c"), map[string]string{"b.example": "open"}},
		{"without an authority", tlsContext("a", "hosts: [a.example], secret: s, "+strict), map[string]string{"a.example": "closed", "b.example": "open"}},
		{"without a certificate", tlsContext("a", "hosts: [a.example], ca_secret: c, "+strict), map[string]string{"a.example": "closed", "b.example": "open"}},
		{"of all names below", tlsContext("a", "hosts: [x.example], secret: s") + tlsContext("b", "hosts: [\"*.b.example\"], secret: s, ca_secret: c, "+strict), map[string]string{
			"a.b.example": "closed", "b.example": "open",
		}},
		{"of every name", tlsContext("a", "hosts: [\"*\"], "+strict), map[string]string{"a.example": "closed"}},
		{"of a name that cannot be said", tlsContext("a", "hosts: [\"a*.example\"], "+strict), map[string]string{"a.example": "closed", "b.example": "closed"}},
	} {
		res := imported(t, mapping+tc.contexts)
		for host, want := range tc.want {
			if got := met(t, res, host, "/x"); got != want {
				t.Errorf("%s: %s is %q, want %q\n%s", tc.name, host, got, want, res.Config)
			}
			if want == "closed" && !said(res, "", "without a client certificate") {
				t.Errorf("%s: not said: %v", tc.name, res.Differences)
			}
			// Mappings that go around the filters do not go around the handshake.
			around := imported(t, strings.Replace(mapping, "service: s", "service: s, bypass_auth: true", 1)+tc.contexts)
			if got := met(t, around, host, "/x"); got != want {
				t.Errorf("%s: around the filters %s is %q, want %q", tc.name, host, got, want)
			}
		}
	}
}

// TestPoliciesInAnyOrder: nobody knows which of two FilterPolicies Edge Stack asks
// first, so that what one of them filters the other does not open.
func TestPoliciesInAnyOrder(t *testing.T) {
	policy := func(name, rules string) string {
		return head + "kind: FilterPolicy\nmetadata: {name: " + name + "}\nspec: {rules: [" + rules + "]}\n"
	}
	const (
		filters  = `{host: "*", path: "/admin/*", filters: [{name: f}]}`
		opens    = `{host: "*", path: "*", filters: null}`
		pictures = `{host: "*", path: "/pictures/*", filters: null}`
		all      = `{host: "*", path: "*", filters: [{name: f}]}`
	)
	for _, tc := range []struct {
		name, policies string
		want           map[string]string // by path
	}{
		{"the one that opens first", policy("a", opens) + policy("b", filters), map[string]string{"/admin/x": "f", "/x": "open"}},
		{"the one that filters first", policy("a", filters) + policy("b", opens), map[string]string{"/admin/x": "f", "/x": "open"}},
		{"within one the order is known", policy("a", opens+", "+filters), map[string]string{"/admin/x": "open", "/x": "open"}},
		{"its own exceptions stay", policy("a", pictures+", "+all) + policy("b", filters), map[string]string{"/pictures/x": "open", "/x": "f", "/admin/x": "f"}},
		{"exceptions of others do not", policy("a", pictures) + policy("b", all), map[string]string{"/pictures/x": "f", "/x": "f"}},
		{"what does not meet stays", policy("a", pictures) + policy("b", filters), map[string]string{"/pictures/x": "open", "/admin/x": "f", "/x": "open"}},
	} {
		res := imported(t, jwtF+mapping+tc.policies)
		for path, want := range tc.want {
			if got := met(t, res, "a.example", path); got != want {
				t.Errorf("%s: %s is %q, want %q\n%s", tc.name, path, got, want, res.Config)
			}
		}
	}
}

// TestResourcesOfOtherGateways: Edge Stack has one cluster serve several gateways, by
// ambassador_id. What is for another one is not served here.
func TestResourcesOfOtherGateways(t *testing.T) {
	of := func(kind, name, id, spec string) string {
		if id != "" {
			spec = "ambassador_id: " + id + ", " + spec
		}
		return head + "kind: " + kind + "\nmetadata: {name: " + name + "}\nspec: {" + spec + "}\n"
	}
	shop := func(id string) string { return of("Mapping", "shop", id, "prefix: /shop/, service: s") }
	admin := func(id string) string { return of("Mapping", "admin", id, "prefix: /admin/, service: s") }
	opens := func(id string) string {
		return of("FilterPolicy", "opens", id, `rules: [{host: "*", path: "*", filters: null}]`)
	}
	filters := of("FilterPolicy", "filters", "", `rules: [{host: "*", path: "*", filters: [{name: f}]}]`)
	for _, tc := range []struct {
		name, text, id string
		want           map[string]string
	}{
		{"nobody says", shop("") + admin(""), "", map[string]string{"/shop/x": "open", "/admin/x": "open"}},
		{"all are for the default", shop("default") + admin("[default]"), "", map[string]string{"/shop/x": "open", "/admin/x": "open"}},
		{"all are for one", shop("public") + admin("[public]"), "", map[string]string{"/shop/x": "open", "/admin/x": "open"}},
		{"one is for another", shop("") + admin("[internal]"), "", map[string]string{"/shop/x": "open", "/admin/x": ""}},
		{"one is for several", shop("") + admin("[internal, default]"), "", map[string]string{"/shop/x": "open", "/admin/x": "open"}},
		{"that one is named", shop("") + admin("[internal]"), "internal", map[string]string{"/shop/x": "", "/admin/x": "open"}},
		{"a rule of another opens nothing", shop("") + jwtF + opens("[internal]") + filters, "", map[string]string{"/shop/x": "f"}},
		{"a filter of another is none", shop("") + strings.Replace(jwtF, "spec: {", "spec: {ambassador_id: [internal], ", 1) + filters, "", map[string]string{"/shop/x": "closed"}},
	} {
		res, err := edgestack.Import([]edgestack.File{{Name: "f.yaml", Data: []byte(tc.text)}}, edgestack.Options{ID: tc.id})
		if err != nil {
			t.Fatal(err)
		}
		for path, want := range tc.want {
			if got := met(t, res, "a.example", path); got != want {
				t.Errorf("%s: %s is %q, want %q\n%s", tc.name, path, got, want, res.Config)
			}
			if want == "" && !said(res, "ambassador_id", "--ambassador-id") {
				t.Errorf("%s: not said: %v", tc.name, res.Differences)
			}
		}
	}
}

// TestListsWithoutEnd: a List is no item of a List, least of all of itself.
func TestListsWithoutEnd(t *testing.T) {
	for _, text := range []string{
		"&a {apiVersion: v1, kind: List, items: [*a]}\n",
		"{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: List, items: []}]}\n",
	} {
		res, err := edgestack.Import([]edgestack.File{{Name: "f.yaml", Data: []byte(text)}}, edgestack.Options{})
		if err == nil || res != nil || !strings.Contains(err.Error(), "no item of a List") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestSeveralLogins: an authenticator's paths are its own. The provider knows those of the
// first; whoever reads the differences learns what to register for the others.
func TestSeveralLogins(t *testing.T) {
	login := func(name, more string) string {
		return head + "kind: Filter\nmetadata: {name: " + name + "}\nspec: {OAuth2: {authorizationURL: \"https://idp.example\", clientID: web, secret: x" + more + "}}\n"
	}
	rules := func(names ...string) string {
		out := head + "kind: FilterPolicy\nmetadata: {name: p}\nspec:\n  rules:\n"
		for _, name := range names {
			out += "  - {host: \"*\", path: /" + name + "/*, filters: [{name: " + name + "}]}\n"
		}
		return out
	}
	const (
		known  = "/.ambassador/oauth2/redirection-endpoint"
		ofB    = "/.ambassador/oauth2/b/redirection-endpoint"
		logout = "People log out at /.ambassador/oauth2/b/logout"
	)
	for _, tc := range []struct {
		name, text string
		paths      map[string]string // by filter
		register   string            // for b; empty: nothing
	}{
		{"one", login("b", "") + rules("b"), map[string]string{"b": known}, ""},
		{"the first read keeps it", login("b", "") + login("a", "") + rules("a", "b"), map[string]string{"b": known, "a": "/.ambassador/oauth2/a/redirection-endpoint"}, ""},
		{"one that no route uses has none", login("a", "") + login("b", "") + rules("b"), map[string]string{"b": known}, ""},
		{"at every host", login("a", "") + login("b", "") + rules("a", "b"), map[string]string{"a": known, "b": ofB}, ofB + " of every host"},
		{
			"at other origins", login("a", `, protectedOrigins: [{origin: "https://a.test"}]`) + login("b", `, protectedOrigins: [{origin: "https://b.test"}, {origin: "https://c.test"}]`) + rules("a", "b"),
			map[string]string{"a": known, "b": ofB},
			"register https://b.test" + ofB + ", https://c.test" + ofB + " at",
		},
		{
			"with one login for several", login("a", "") + login("b", `, protectedOrigins: [{origin: "https://b.example.com"}, {origin: "https://example.com"}]`) + rules("a", "b"),
			map[string]string{"a": known, "b": ofB},
			"register https://b.example.com" + ofB + " at",
		},
	} {
		res := imported(t, mapping+tc.text)
		cfg, err := config.Parse("c", res.Config, func(string) (string, bool) { return "", false })
		if err != nil && !strings.Contains(err.Error(), "no such file") {
			t.Fatalf("%s: %v", tc.name, err)
		}
		got := map[string]string{}
		for name, c := range cfg.Authenticators {
			if c.OIDC != nil {
				got[name] = c.OIDC.RedirectPath
			}
		}
		if !maps.Equal(got, tc.paths) {
			t.Errorf("%s: the paths are %v, want %v", tc.name, got, tc.paths)
		}
		if tc.register != "" && (!said(res, "", tc.register) || !said(res, "", logout)) || tc.register == "" && said(res, "", logout) {
			t.Errorf("%s: want %q said: %v", tc.name, tc.register, res.Differences)
		}
	}
}

// TestResourcesThatStandTwice: Kubernetes has one of each kind, namespace and name. Which
// of two is meant nobody knows, and the last may be the one that lets more through.
func TestResourcesThatStandTwice(t *testing.T) {
	of := func(kind, meta, spec string) string {
		return head + "kind: " + kind + "\nmetadata: {" + meta + "}\nspec: {" + spec + "}\n"
	}
	two := func(kind, spec string) string { return of(kind, "name: x", spec) + of(kind, "name: x", spec) }
	const secret = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: x}\nstringData: {}\n"
	for name, tc := range map[string]struct {
		files []string
		want  []string // in the error; none: no error
	}{
		"filters":          {[]string{two("Filter", "JWT: {issuer: a}")}, []string{"f0.yaml:7: Filter default/x: stands twice, before at f0.yaml:2"}},
		"policies":         {[]string{two("FilterPolicy", "rules: []")}, []string{"FilterPolicy default/x: stands twice"}},
		"limits":           {[]string{two("RateLimit", "domain: a")}, []string{"RateLimit default/x: stands twice"}},
		"contexts":         {[]string{two("TLSContext", "hosts: [a]")}, []string{"TLSContext default/x: stands twice"}},
		"mappings":         {[]string{two("Mapping", "prefix: /, service: s")}, []string{"Mapping default/x: stands twice"}},
		"secrets":          {[]string{secret + secret}, []string{"Secret default/x: stands twice"}},
		"in two files":     {[]string{of("Filter", "name: x", "JWT: {}"), of("Filter", "name: x, namespace: default", "JWT: {}")}, []string{"f1.yaml:2: Filter default/x: stands twice, before at f0.yaml:2"}},
		"in two groups":    {[]string{of("Filter", "name: x", "JWT: {}"), strings.Replace(of("Filter", "name: x", "jwt: {}"), "getambassador.io/v3alpha1", "gateway.getambassador.io/v1alpha1", 1)}, []string{"f1.yaml:2: Filter default/x: stands twice"}},
		"three times":      {[]string{two("Filter", "JWT: {}"), of("Filter", "name: x", "JWT: {}")}, []string{"f0.yaml:7: ", "f1.yaml:2: "}},
		"other namespaces": {[]string{of("Filter", "name: x", "JWT: {}") + of("Filter", "name: x, namespace: y", "JWT: {}")}, nil},
		"other kinds":      {[]string{of("Filter", "name: x", "JWT: {}") + of("FilterPolicy", "name: x", "rules: []")}, nil},
		"other gateways":   {[]string{of("Filter", "name: x", "JWT: {}") + of("Filter", "name: x", "ambassador_id: [other], JWT: {}")}, nil},
	} {
		var files []edgestack.File
		for i, text := range tc.files {
			files = append(files, edgestack.File{Name: fmt.Sprintf("f%d.yaml", i), Data: []byte(text)})
		}
		res, err := edgestack.Import(files, edgestack.Options{})
		if (res == nil) != (tc.want != nil) {
			t.Errorf("%s: %v", name, err)
		}
		for _, want := range tc.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", name, err, want)
			}
		}
	}
}

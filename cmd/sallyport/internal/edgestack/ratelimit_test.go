package edgestack_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/edgestack"
	"github.com/sallyport/sallyport/engine/authz"
)

// asked is a request as far as limits count by it.
type asked struct {
	route, mapping, ip, method, host, tenant string
}

// decide is what the imported policy says of a request. The limit is one that the gateway
// takes.
func decide(t *testing.T, res *edgestack.Result, a asked) (allow bool, limit authz.RateLimit) {
	t.Helper()
	headers := map[string][]string{}
	if a.tenant != "" {
		headers["x-tenant"] = []string{a.tenant, "another"}
	}
	rs, err := rego.New(rego.Query("data.edge_stack.decision"), rego.Module("edge_stack.rego", string(res.Policy)), rego.StrictBuiltinErrors(true), rego.Input(map[string]any{
		"route":    map[string]any{"name": a.route, "labels": map[string]string{"mapping": a.mapping}},
		"source":   map[string]string{"ip": a.ip},
		"identity": map[string]any{"authenticated": true, "authenticator": "corp"},
		"request":  map[string]any{"method": a.method, "host": a.host, "headers": headers},
	})).Eval(t.Context())
	if err != nil || len(rs) != 1 {
		t.Fatalf("%+v: %v %v\n%s", a, rs, err, res.Policy)
	}
	text, err := json.Marshal(rs[0].Expressions[0].Value)
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Allow bool             `json:"allow"`
		Limit *authz.RateLimit `json:"rate_limit"`
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	if d.Limit == nil {
		return d.Allow, authz.RateLimit{}
	}
	if _, err := d.Limit.Bucket(); err != nil {
		t.Errorf("%+v: %v", a, err)
	}
	return d.Allow, *d.Limit
}

// TestLimits: which limit a request meets, by the labels that its Mapping gives it.
func TestLimits(t *testing.T) {
	res := load(t, "limits.yaml", edgestack.Options{Kinds: []string{"jwt"}})
	shop := asked{route: "shop-2", mapping: "shop/shop", ip: "192.0.2.1", method: "GET", host: "shop.example"}
	quote := asked{route: "quote-2", mapping: "shop/quote", ip: "192.0.2.1", method: "GET", host: "shop.example"}
	for name, tc := range map[string]struct {
		asked asked
		with  func(*asked)
		want  string // key, rate, burst; empty: no limit
	}{
		"by address":                         {shop, func(*asked) {}, `["ambassador","per-client","generic_key","shop","remote_address","192.0.2.1"] 5/m 20`},
		"another address has its own":        {shop, func(a *asked) { a.ip = "2001:db8::1" }, `["ambassador","per-client","generic_key","shop","remote_address","2001:db8::1"] 5/m 20`},
		"any tenant: the strictest of two":   {shop, func(a *asked) { a.tenant = "beta" }, `["ambassador","tenants","what","tenant","tenant","beta"] 100/h 100`},
		"a named tenant has another":         {shop, func(a *asked) { a.tenant = "acme" }, `["ambassador","per-client","generic_key","shop","remote_address","192.0.2.1"] 5/m 20`},
		"the longest pattern":                {shop, func(a *asked) { a.tenant, a.method = "acme", "POST" }, `["ambassador","acme-writes","what","tenant","tenant","acme","method","POST"] 2/m 2`},
		"any tenant's writes":                {shop, func(a *asked) { a.tenant, a.method = "beta", "POST" }, `["ambassador","tenants","what","tenant","tenant","beta"] 100/h 100`},
		"a quote for a named address":        {quote, func(a *asked) { a.ip, a.tenant = "192.0.2.7", "acme" }, `["ambassador","quotes.shop-0","generic_key","quote","remote_address","192.0.2.7"] 7/d 7`},
		"a quote for another":                {quote, func(a *asked) { a.tenant = "acme" }, `["ambassador","quotes.shop-1","generic_key","quote","remote_address","192.0.2.1"] 10000000/s 10000000`},
		"without a header there is no group": {quote, func(a *asked) { a.ip = "192.0.2.7" }, ""},
		"by host":                            {shop, func(a *asked) { a.route, a.mapping = "lost-2", "shop/lost" }, `["ambassador","hosts","host","shop.example"] 3/s 3`},
		"without labels":                     {shop, func(a *asked) { a.route, a.mapping = "free-2", "shop/free" }, ""},
	} {
		tc.with(&tc.asked)
		allow, limit := decide(t, res, tc.asked)
		if !allow {
			t.Errorf("%s: denied", name)
		}
		if got := shown(limit); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
	if !said(res, "limits[4].pattern", "each value of the header x-tenant") || said(res, "limits[3].pattern", "each value") || said(res, "limits[0].pattern", "each value") {
		t.Errorf("buckets that clients choose: %v", res.Differences)
	}
	closed := shop
	closed.route = "shop"
	if allow, limit := decide(t, res, closed); allow || limit.Key != "" {
		t.Errorf("a closed route: allowed %v, limit %v", allow, limit)
	}
}

func shown(l authz.RateLimit) string {
	if l.Key == "" {
		return ""
	}
	text, _ := json.Marshal(l.Burst) // a number always has a JSON form
	return l.Key + " " + l.Rate + " " + string(text)
}

// TestLongLabels: clients choose what is in their headers; the gateway would refuse a key
// that is too long, and with it the request.
func TestLongLabels(t *testing.T) {
	res := load(t, "limits.yaml", edgestack.Options{Kinds: []string{"jwt"}})
	keys := map[string]string{}
	for _, tenant := range []string{"a", "é", strings.Repeat("a", 10_000), strings.Repeat("a", 10_001), strings.Repeat("\x01", 100), strings.Repeat("😀", 90), strings.Repeat("😀", 500)} {
		a := asked{route: "shop-2", mapping: "shop/shop", ip: "192.0.2.1", method: "GET", tenant: tenant}
		_, limit := decide(t, res, a)
		if other, taken := keys[limit.Key]; taken || limit.Key == "" {
			t.Errorf("%.20q and %.20q have the bucket %q", tenant, other, limit.Key)
		}
		keys[limit.Key] = tenant
	}
}

// TestDefaultLabels: those of the Module stand before those of every label group, and
// alone where a Mapping has none of their domain.
func TestDefaultLabels(t *testing.T) {
	module := head + "kind: Module\nmetadata: {name: ambassador}\nspec: {config: {default_labels: {ambassador: {defaults: [{generic_key: {value: all}}]}}}}\n"
	labels := strings.Replace(mapping, "service: s", "service: s, labels: {ambassador: [{g: [{remote_address: {key: remote_address}}]}]}", 1)
	limits := func(pattern string) string {
		return head + "kind: RateLimit\nmetadata: {name: l}\nspec: {domain: ambassador, limits: [{pattern: " + pattern + ", rate: 3, unit: day}]}\n"
	}
	const (
		address = `[{remote_address: "*"}]`
		both    = `[{generic_key: all}, {remote_address: "*"}]`
		global  = `[{generic_key: all}]`
	)
	for _, tc := range []struct{ name, text, want string }{
		{"no defaults", labels + limits(address), `["ambassador","l.default-0","remote_address","192.0.2.1"] 3/d 3`},
		{"defaults stand before", module + labels + limits(address), ""},
		{"both", module + labels + limits(both), `["ambassador","l.default-0","generic_key","all","remote_address","192.0.2.1"] 3/d 3`},
		{"the first alone", module + labels + limits(global), `["ambassador","l.default-0","generic_key","all"] 3/d 3`},
		{"without labels", module + mapping + limits(global), `["ambassador","l.default-0","generic_key","all"] 3/d 3`},
		{"without labels, longer", module + mapping + limits(both), ""},
		{"another domain", module + labels + strings.Replace(limits(global), "domain: ambassador", "domain: other", 1), ""},
	} {
		res := imported(t, tc.text)
		allow, limit := decide(t, res, asked{route: "m", mapping: "default/m", ip: "192.0.2.1"})
		if got := shown(limit); !allow || got != tc.want {
			t.Errorf("%s: allowed %v, limit %s, want %s", tc.name, allow, got, tc.want)
		}
		if nothing := said(res, "limits[0]", "limits nothing"); nothing != (tc.want == "") {
			t.Errorf("%s: said that it limits nothing: %v\n%v", tc.name, nothing, res.Differences)
		}
	}
}

// TestLabelsOutOfSight: a limit by something that the policy does not see is left out with
// a word, and not carried over so that it never counts.
func TestLabelsOutOfSight(t *testing.T) {
	for label, why := range map[string]string{
		"{request_headers: {key: k, header_name: X-Set}}":         "only the gateway or the policy sets it",
		"{request_headers: {key: k, header_name: X_Set}}":         "only the gateway or the policy sets it",
		"{k: {header: x-user}}":                                   "only the gateway or the policy sets it",
		"{k: {header: Authorization}}":                            "is a credential",
		"{k: {header: X-Shop-Key}}":                               "is a credential",
		"{k: {header: X-Ambassador-Client-ID}}":                   "is a credential",
		"{k: {header: X-Forwarded-For}}":                          "between the client, proxies and the gateway",
		"{k: {header: \":path\"}}":                                "no label here",
		"{destination_cluster: {key: k}}":                         "no clusters of Envoy",
		"{k: {headers: x-a}}":                                     "kind is not known",
		"{k: {header: x-a}}, {other: {header: cookie}}":           "label other is not to be had",
		"{k: {header: x-a}}":                                      "",
		"{k: {header: x-a}}, destination_cluster":                 "", // which is there, whatever it is
		"{generic_key: v, v3Key: k}":                              "",
		"{generic_key: {key: k, value: v}}, {other: {header: y}}": "",
	} {
		filter := func(name, spec string) string {
			return head + "kind: Filter\nmetadata: {name: " + name + "}\nspec: {" + spec + "}\n"
		}
		text := strings.Replace(mapping, "service: s", "service: s, labels: {d: [{g: ["+label+"]}]}", 1) +
			filter("f", `JWT: {issuer: "https://idp.example", audience: a, injectRequestHeaders: [{name: X-Set, value: a}]}`) +
			filter("keys", `APIKey: {httpHeader: X-Shop-Key, keys: [{secretName: s}]}`) +
			filter("machines", `OAuth2: {authorizationURL: "https://idp.example", grantType: ClientCredentials, audience: a}`) +
			head + "kind: RateLimit\nmetadata: {name: l}\nspec: {domain: d, limits: [{pattern: [{k: \"*\"}], rate: 3, unit: day}]}\n"
		res, err := edgestack.Import([]edgestack.File{{Name: "f.yaml", Data: []byte(text)}}, edgestack.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if limits := strings.Contains(string(res.Policy), `"3/d"`); limits != (why == "") {
			t.Errorf("%s: limits: %v\n%s", label, limits, res.Policy)
		}
		if left := said(res, "pattern", "is left out for Mapping default/m"); left != (why != "") || !said(res, "", why) {
			t.Errorf("%s: want %q said: %v", label, why, res.Differences)
		}
	}
}

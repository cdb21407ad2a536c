package route

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/setting"
)

func route(name string, m Match) Config {
	return Config{Name: name, Match: m, Upstream: "u", Authenticate: []string{"anyone"}}
}

func query(method, host, path string, headers ...authz.Header) *Query {
	return &Query{Method: method, Host: host, Segments: strings.Split(path[1:], "/"), Headers: headers}
}

func TestFirstMatchInFileOrder(t *testing.T) {
	table, err := New([]Config{
		route("exact", Match{Path: "/v1/orders/42"}),
		route("get", Match{Path: "/v1/orders/{id}", Methods: []string{"GET"}}),
		route("acme", Match{Path: "/v1/orders/**", Headers: map[string]string{"X-Tenant": "acme"}}),
		route("orders", Match{Path: "/v1/orders/**", Methods: []string{"POST", "GET"}}),
		route("one", Match{Path: "/v1/*"}),
		route("slash", Match{Path: "/v1/"}),
		route("root", Match{Path: "/"}),
		route("sub", Match{Hosts: []string{"*.example.com"}, Path: "/x"}),
		route("host", Match{Hosts: []string{"API.example.com"}, Path: "/**"}),
		route("v6", Match{Hosts: []string{"[::1]"}, Path: "/**"}),
	})
	if err != nil {
		t.Fatal(err)
	}
	acme := authz.Header{Name: "x-tenant", Value: "acme"}
	tests := []struct {
		q    *Query
		want string
	}{
		{query("GET", "a", "/v1/orders/42"), "exact"},
		{query("GET", "a", "/v1/orders/43"), "get"},
		{query("POST", "a", "/v1/orders/43"), "orders"},
		{query("POST", "a", "/v1/orders/43", acme), "acme"},
		{query("POST", "a", "/v1/orders/43", acme, acme), "orders"},
		{query("POST", "a", "/v1/orders"), "orders"},
		{query("GET", "a", "/v1/orders/"), "orders"},
		{query("GET", "a", "/v1/orders/1/2"), "orders"},
		{query("GET", "a", "/v1/other"), "one"},
		{query("GET", "a", "/v1/"), "slash"},
		{query("GET", "a", "/"), "root"},
		{query("GET", "a", "/V1/other"), ""},
		{query("GET", "b.example.com", "/x"), "sub"},
		{query("GET", "c.b.example.com", "/x"), "sub"},
		{query("GET", "example.com", "/x"), ""},
		{query("GET", "evilexample.com", "/x"), ""},
		{query("GET", "api.example.com", "/any"), "host"},
		{query("GET", "[::1]", "/any"), "v6"},
		{query("DELETE", "a", "/v1/orders/43"), ""},
	}
	for _, tc := range tests {
		got := ""
		if r := table.Match(tc.q); r != nil {
			got = r.Config.Name
		}
		if got != tc.want {
			t.Errorf("%s %s %v: got %q, want %q", tc.q.Method, tc.q.Host, tc.q.Segments, got, tc.want)
		}
	}
	if diff := cmp.Diff([]string{"GET", "POST"}, table.Methods(query("DELETE", "a", "/v1/orders/43"))); diff != "" {
		t.Error(diff)
	}
}

func TestParamsAndRewrite(t *testing.T) {
	tests := []struct {
		pattern, strip, add, path string
		params                    map[string]string
		want                      string
	}{
		{"/v1/orders/{id}", "/v1", "", "/v1/orders/42", map[string]string{"id": "42"}, "/orders/42"},
		{"/v1/**", "/v1", "", "/v1", nil, "/"},
		{"/v1/**", "/v1", "", "/v1/", nil, "/"},
		{"/v1/**", "/v1", "/api", "/v1/a/", nil, "/api/a/"},
		{"/v1/v2/**", "/v1/v2", "/", "/v1/v2/x", nil, "/x"},
		{"/{a}/{b}", "", "/z", "/1/2", map[string]string{"a": "1", "b": "2"}, "/z/1/2"},
	}
	for _, tc := range tests {
		c := route("r", Match{Path: tc.pattern})
		c.Rewrite = Rewrite{StripPrefix: tc.strip, AddPrefix: tc.add}
		table, err := New([]Config{c})
		if err != nil {
			t.Fatal(err)
		}
		q := query("GET", "h", tc.path)
		r := table.Match(q)
		if r == nil {
			t.Errorf("%s does not match %s", tc.pattern, tc.path)
			continue
		}
		if diff := cmp.Diff(tc.params, r.Params(q.Segments)); diff != "" {
			t.Errorf("%s: %s", tc.pattern, diff)
		}
		if got := r.Rewrite(tc.path); got != tc.want {
			t.Errorf("%s strip %q add %q: %s became %s, want %s", tc.pattern, tc.strip, tc.add, tc.path, got, tc.want)
		}
	}
}

func TestValidateReportsEveryProblem(t *testing.T) {
	good := route("a", Match{Path: "/a"})
	tests := []struct {
		name   string
		change func(*Config)
		key    string
	}{
		{"no name", func(c *Config) { c.Name = "" }, "[0].name"},
		{"no slash", func(c *Config) { c.Match.Path = "a" }, "[0].match.path"},
		{"** inside", func(c *Config) { c.Match.Path = "/**/a" }, "[0].match.path"},
		{"mixed", func(c *Config) { c.Match.Path = "/a*" }, "[0].match.path"},
		{"empty segment", func(c *Config) { c.Match.Path = "/a//b" }, "[0].match.path"},
		{"dots", func(c *Config) { c.Match.Path = "/a/.." }, "[0].match.path"},
		{"escape", func(c *Config) { c.Match.Path = "/a%2f" }, "[0].match.path"},
		{"param twice", func(c *Config) { c.Match.Path = "/{a}/{a}" }, "[0].match.path"},
		{"param name", func(c *Config) { c.Match.Path = "/{}" }, "[0].match.path"},
		{"method", func(c *Config) { c.Match.Methods = []string{"get"} }, "[0].match.methods[0]"},
		{"connect", func(c *Config) { c.Match.Methods = []string{"CONNECT"} }, "[0].match.methods[0]"},
		{"host port", func(c *Config) { c.Match.Hosts = []string{"a:80"} }, "[0].match.hosts[0]"},
		{"host star", func(c *Config) { c.Match.Hosts = []string{"a.*"} }, "[0].match.hosts[0]"},
		{"header", func(c *Config) { c.Match.Headers = map[string]string{"a b": "c"} }, "[0].match.headers"},
		{"upstream", func(c *Config) { c.Upstream = "gone" }, "[0].upstream"},
		{"no upstream", func(c *Config) { c.Upstream = "" }, "[0].upstream"},
		{"no authenticator", func(c *Config) { c.Authenticate = nil }, "[0].authenticate"},
		{"authenticator", func(c *Config) { c.Authenticate = []string{"anyone", "gone"} }, "[0].authenticate[1]"},
		{"strip", func(c *Config) { c.Rewrite.StripPrefix = "/b" }, "[0].rewrite.strip_prefix"},
		{"strip too much", func(c *Config) { c.Rewrite.StripPrefix = "/a/b" }, "[0].rewrite.strip_prefix"},
		{"add", func(c *Config) { c.Rewrite.AddPrefix = "/{x}" }, "[0].rewrite.add_prefix"},
		{"timeout", func(c *Config) { c.Timeout = -1 }, "[0].timeout"},
		{"input header", func(c *Config) { c.InputHeaders = []string{"x_y"} }, "[0].input_headers"},
	}
	known := Known{
		Upstream:      func(n string) bool { return n == "u" },
		Authenticator: func(n string) bool { return n == "anyone" },
	}
	if err := Validate([]Config{good}, known); err != nil {
		t.Fatal(err)
	}
	for _, tc := range tests {
		c := good
		tc.change(&c)
		problems := setting.Problems(Validate([]Config{c}, known))
		if len(problems) != 1 || problems[0].Key != tc.key {
			t.Errorf("%s: got %v, want one problem at %s", tc.name, problems, tc.key)
		}
	}
}

func TestValidateFindsUnreachableRoutes(t *testing.T) {
	err := Validate([]Config{
		route("a", Match{Path: "/a/{x}"}), route("b", Match{Path: "/a/*"}),
		route("all", Match{}), route("a", Match{Path: "/z"}),
	}, Known{})
	var keys []string
	for _, p := range setting.Problems(err) {
		keys = append(keys, p.Key)
	}
	if diff := cmp.Diff([]string{"[1].match", "[3].name", "[3].match"}, keys); diff != "" {
		t.Error(diff)
	}
}

// naive is the definition that the table must agree with.
func naive(routes []*Route, q *Query) *Route {
	for _, r := range routes {
		if r.matchesHost(q.Host) && r.pattern.match(q.Segments) && r.matchesMethod(q.Method) && r.matchesHeaders(q.Headers) {
			return r
		}
	}
	return nil
}

func TestTableAgreesWithNaiveSearch(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	pick := func(of ...string) string { return of[rng.IntN(len(of))] }
	found := 0
	for range 300 {
		var routes []Config
		seen := map[string]bool{}
		for i := range 40 {
			path := ""
			for range rng.IntN(4) + 1 {
				path += "/" + pick("a", "b", "c", "*", "{x}")
			}
			path = strings.Replace(path, "{x}/", "{y}/", 1)
			path += pick("", "", "/", "/**")
			m := Match{Path: path}
			if rng.IntN(2) == 0 {
				m.Hosts = []string{pick("a.test", "*.test", "b.a.test", "*.a.test")}
			}
			if rng.IntN(2) == 0 {
				m.Methods = []string{pick("GET", "POST")}
			}
			c := route(fmt.Sprint("r", i), m)
			if _, err := parsePattern(path); err != nil || seen[c.shape()] {
				continue
			}
			seen[c.shape()] = true
			routes = append(routes, c)
		}
		table, err := New(routes)
		if err != nil {
			t.Fatal(err)
		}
		for range 200 {
			path := ""
			for range rng.IntN(5) + 1 {
				path += "/" + pick("a", "b", "c", "d")
			}
			q := query(pick("GET", "POST", "PUT"), pick("a.test", "b.a.test", "c.test", "test"), path+pick("", "", "/"))
			want, got := naive(table.routes, q), table.Match(q)
			if want != got {
				t.Fatalf("%+v: table found %+v, naive search %+v", q, got, want)
			}
			if got != nil {
				found++
			}
		}
	}
	if found < 1000 {
		t.Errorf("only %d queries matched: the test compares nothing", found)
	}
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{10, 1000, 10000} {
		var routes []Config
		for i := range n {
			routes = append(routes, route(fmt.Sprint("r", i), Match{Path: fmt.Sprintf("/v1/s%d/{id}", i), Methods: []string{"GET"}}))
		}
		table, err := New(routes)
		if err != nil {
			b.Fatal(err)
		}
		q := query("GET", "h", fmt.Sprintf("/v1/s%d/42", n-1))
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if table.Match(q) == nil {
					b.Fatal("no match")
				}
			}
		})
	}
}

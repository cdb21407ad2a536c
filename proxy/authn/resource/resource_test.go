package resource

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/proxy/authn"
)

func newSet(t *testing.T, resources ...string) *Set {
	t.Helper()
	var all []Config
	for _, r := range resources {
		all = append(all, Config{Resource: r, AuthorizationServers: []string{"https://idp.example"}})
	}
	s, err := New(all)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestMetadata: which resource a request belongs to, and where its metadata is
// (RFC 9728 sections 3.1 and 5.1).
func TestMetadata(t *testing.T) {
	s := newSet(t, "https://api.example.com", "https://api.example.com/mcp", "https://other.example:8443/a/", "http://[::1]:8080/x")
	const root = "https://api.example.com/.well-known/oauth-protected-resource"
	for _, tt := range []struct{ host, path, want string }{
		{"api.example.com", "/", root},
		{"api.example.com", "/orders", root},
		{"api.example.com", "/mcp", root + "/mcp"},
		{"api.example.com", "/mcp/tools", root + "/mcp"},
		{"api.example.com", "/mcpx", root},
		{"other.example", "/a", "https://other.example:8443/.well-known/oauth-protected-resource/a/"},
		{"other.example", "/a/b", "https://other.example:8443/.well-known/oauth-protected-resource/a/"},
		{"other.example", "/b", ""},
		{"[::1]", "/x", "http://[::1]:8080/.well-known/oauth-protected-resource/x"},
		{"example.com", "/", ""},
	} {
		if got := s.Metadata(tt.host, tt.path); got != tt.want {
			t.Errorf("%s%s: got %q, want %q", tt.host, tt.path, got, tt.want)
		}
	}
	if got := (*Set)(nil).Metadata("api.example.com", "/"); got != "" {
		t.Errorf("without resources: %q", got)
	}
}

func TestServe(t *testing.T) {
	s, err := New([]Config{{
		Resource: "https://api.example.com/mcp", AuthorizationServers: []string{"https://idp.example"}, ScopesSupported: []string{"orders.read"},
		ResourceName: "Orders", ResourceDocumentation: "https://docs.example.com", DPoPBoundAccessTokensRequired: true,
		DPoPSigningAlgValuesSupported: []string{"ES256"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	e := s.Endpoints()
	if len(e) != 1 || e[0].Path != "/.well-known/oauth-protected-resource/mcp" || !cmp.Equal(e[0].Hosts, []string{"api.example.com"}) {
		t.Fatalf("endpoints %+v", e)
	}
	for method, status := range map[string]int{"GET": 200, "HEAD": 200, "OPTIONS": 204, "POST": 405} {
		a := e[0].Serve(t.Context(), &authn.Request{Method: method})
		if a.Status != status || a.Headers[0].Name != "access-control-allow-origin" || a.Headers[0].Value != "*" {
			t.Errorf("%s: %+v", method, a)
		}
	}
	var got map[string]any
	if err := json.Unmarshal(e[0].Serve(t.Context(), &authn.Request{Method: "GET"}).Body, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"resource": "https://api.example.com/mcp", "authorization_servers": []any{"https://idp.example"},
		"scopes_supported": []any{"orders.read"}, "bearer_methods_supported": []any{"header"}, "resource_name": "Orders",
		"resource_documentation": "https://docs.example.com", "dpop_signing_alg_values_supported": []any{"ES256"},
		"dpop_bound_access_tokens_required": true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
}

func TestValidate(t *testing.T) {
	good := func(change func(*Config)) []Config {
		c := Config{Resource: "https://api.example.com", AuthorizationServers: []string{"https://idp.example"}}
		change(&c)
		return []Config{c}
	}
	if err := Validate(good(func(*Config) {})); err != nil {
		t.Errorf("the good one: %v", err)
	}
	for name, tt := range map[string]struct {
		all []Config
		key string
	}{
		"no resource":      {good(func(c *Config) { c.Resource = "" }), "[0].resource"},
		"http":             {good(func(c *Config) { c.Resource = "http://api.example.com" }), "[0].resource"},
		"query":            {good(func(c *Config) { c.Resource += "?x" }), "[0].resource"},
		"fragment":         {good(func(c *Config) { c.Resource += "#" }), "[0].resource"},
		"quote":            {good(func(c *Config) { c.Resource += `/"` }), "[0].resource"},
		"user":             {good(func(c *Config) { c.Resource = "https://u@api.example.com" }), "[0].resource"},
		"no server":        {good(func(c *Config) { c.AuthorizationServers = nil }), "[0].authorization_servers"},
		"server by name":   {good(func(c *Config) { c.AuthorizationServers = []string{"idp"} }), "[0].authorization_servers[0]"},
		"documentation":    {good(func(c *Config) { c.ResourceDocumentation = "javascript:alert(1)" }), "[0].resource_documentation"},
		"twice":            {append(good(func(*Config) {}), good(func(c *Config) { c.Resource += "/" })...), "[1].resource"},
		"on another port":  {append(good(func(*Config) {}), good(func(c *Config) { c.Resource += ":8443" })...), "[1].resource"},
		"in other letters": {append(good(func(*Config) {}), good(func(c *Config) { c.Resource = "https://API.example.com" })...), "[1].resource"},
	} {
		if err := Validate(tt.all); err == nil || !strings.Contains(err.Error(), tt.key+":") && !strings.Contains(err.Error(), tt.key+" ") {
			t.Errorf("%s: got %v, want a problem at %s", name, err, tt.key)
		}
	}
}

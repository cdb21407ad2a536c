package engine

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"
	"golang.org/x/net/http/httpguts"

	"github.com/sallyport/sallyport/engine/authz"
)

func parse(t *testing.T, text string) (*authz.Decision, *authz.Fault) {
	t.Helper()
	return parseDecision(ast.MustParseTerm(text).Value)
}

func TestParseDecision(t *testing.T) {
	for _, tc := range []struct {
		text string
		want authz.Decision
	}{
		{`true`, authz.Decision{Allow: true}},
		{`false`, authz.Decision{}},
		{`{}`, authz.Decision{}},
		{`{"allow": true}`, authz.Decision{Allow: true}},
		{`{"reason": "r", "labels": {"a": "b"}}`, authz.Decision{Reason: "r", Labels: map[string]string{"a": "b"}}},
		{`{"status": 404, "headers": {"X-Why": "because"}, "body": {"a": [1, null, "<"]}}`, authz.Decision{
			Status: 404, Headers: map[string]string{"X-Why": "because"}, Body: json.RawMessage(`{"a":[1,null,"\u003c"]}`),
		}},
		{`{"body": null}`, authz.Decision{Body: json.RawMessage(`null`)}},
		{`{"body": {1, 2}}`, authz.Decision{Body: json.RawMessage(`[1,2]`)}},
		{`{"redirect": "https://example.com/a?b=c#d"}`, authz.Decision{Redirect: "https://example.com/a?b=c#d"}},
		{`{"redirect": "/login", "status": 303}`, authz.Decision{Redirect: "/login", Status: 303}},
		{`{"allow": true, "status": 200}`, authz.Decision{Allow: true, Status: 200}},
		{`{"upstream": {"name": "canary", "set_headers": {"x-user": "alice", "x-empty": ""}, "remove_headers": ["x-debug"]}}`, authz.Decision{
			Upstream: authz.UpstreamObligation{
				Name: "canary", SetHeaders: map[string]string{"x-user": "alice", "x-empty": ""}, RemoveHeaders: []string{"x-debug"},
			},
		}},
		{`{"upstream": {"remove_headers": {"x-b", "x-a"}, "token_exchange": {"audience": "a", "scope": "s"}}}`, authz.Decision{
			Upstream: authz.UpstreamObligation{RemoveHeaders: []string{"x-a", "x-b"}, TokenExchange: &authz.TokenExchange{Audience: "a", Scope: "s"}},
		}},
		{`{"response": {"set_headers": {"x-a": "b"}, "remove_headers": ["server"]}}`, authz.Decision{
			Response: authz.ResponseObligation{SetHeaders: map[string]string{"x-a": "b"}, RemoveHeaders: []string{"server"}},
		}},
		{`{"challenge": {"error": "insufficient_scope", "scope": "a b"}}`, authz.Decision{
			Challenge: &authz.Challenge{Error: "insufficient_scope", Scope: "a b", MaxAge: -1},
		}},
		{`{"challenge": {"acr_values": "mfa", "max_age": 0}}`, authz.Decision{Challenge: &authz.Challenge{ACRValues: "mfa"}}},
		{`{"rate_limit": {"key": "k", "rate": "1/s"}}`, authz.Decision{RateLimit: &authz.RateLimit{Key: "k", Rate: "1/s"}}},
		{`{"rate_limit": {"key": "k", "rate": "1/s", "burst": 2}}`, authz.Decision{RateLimit: &authz.RateLimit{Key: "k", Rate: "1/s", Burst: 2}}},
		{`{"log": {"drop": true}}`, authz.Decision{LogDrop: true}},
		{`{"log": {}}`, authz.Decision{}},
	} {
		t.Run(tc.text, func(t *testing.T) {
			got, fault := parse(t, tc.text)
			if fault != nil {
				t.Fatal(fault)
			}
			if diff := cmp.Diff(&tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseDecisionFaults(t *testing.T) {
	for _, tc := range []struct {
		text   string
		kind   authz.FaultKind
		detail string
	}{
		{`null`, authz.FaultType, "null"},
		{`1`, authz.FaultType, "number"},
		{`"true"`, authz.FaultType, "string"},
		{`[true]`, authz.FaultType, "array"},
		{`{true}`, authz.FaultType, "set"},
		{`{"Allow": true}`, authz.FaultUnknownKey, `"Allow"`},
		{`{1: true}`, authz.FaultUnknownKey, "member 1"},
		{`{"upstream": {"set_header": {}}}`, authz.FaultUnknownKey, `upstream has an unknown member "set_header"`},
		{`{"upstream": {"token_exchange": {"aud": "a"}}}`, authz.FaultUnknownKey, `"aud"`},
		{`{"response": {"x": 1}}`, authz.FaultUnknownKey, `"x"`},
		{`{"challenge": {"realm": "x"}}`, authz.FaultUnknownKey, `"realm"`},
		{`{"rate_limit": {"limit": "x"}}`, authz.FaultUnknownKey, `"limit"`},
		{`{"log": {"dropped": true}}`, authz.FaultUnknownKey, `"dropped"`},
		{`{"log": {"drop": 1}}`, authz.FaultType, "log.drop is number"},
		{`{"allow": null}`, authz.FaultType, "allow is null"},
		{`{"allow": 1}`, authz.FaultType, "allow is number"},
		{`{"reason": ["r"]}`, authz.FaultType, "reason is array"},
		{`{"labels": {"a": 1}}`, authz.FaultType, "labels.a is number"},
		{`{"labels": ["a"]}`, authz.FaultType, "labels is array"},
		{`{"status": "403"}`, authz.FaultType, "status is string"},
		{`{"status": 403.5}`, authz.FaultType, "integer"},
		{`{"status": 1e30}`, authz.FaultType, "integer"},
		{`{"status": 99}`, authz.FaultType, "100 to 599"},
		{`{"status": 600}`, authz.FaultType, "100 to 599"},
		{`{"status": -403}`, authz.FaultType, "100 to 599"},
		{`{"allow": true, "status": 1000}`, authz.FaultType, "100 to 599"},
		{`{"status": 200}`, authz.FaultType, "deny"},
		{`{"status": 302}`, authz.FaultType, "deny"},
		{`{"status": 403, "redirect": "/x"}`, authz.FaultType, "301"},
		{`{"status": 304, "redirect": "/x"}`, authz.FaultType, "301"},
		{`{"redirect": ""}`, authz.FaultType, "visible ASCII"},
		{`{"redirect": "/a\r\nSet-Cookie: x=y"}`, authz.FaultType, "visible ASCII"},
		{`{"redirect": "/a\\b"}`, authz.FaultType, "visible ASCII"},
		{`{"redirect": "/ä"}`, authz.FaultType, "visible ASCII"},
		{`{"redirect": "javascript:alert(1)"}`, authz.FaultType, "http"},
		{`{"redirect": "ftp://x/"}`, authz.FaultType, "http"},
		{`{"redirect": "//evil.example/"}`, authz.FaultType, "both"},
		{`{"redirect": "https:///path"}`, authz.FaultType, "both"},
		{`{"redirect": "/%zz"}`, authz.FaultType, "http"},
		{`{"headers": {"x y": "v"}}`, authz.FaultType, "no header name"},
		{`{"headers": {"": "v"}}`, authz.FaultType, "no header name"},
		{`{"headers": {"x:": "v"}}`, authz.FaultType, "no header name"},
		{`{"headers": {"x": "a\nb"}}`, authz.FaultType, "header value"},
		{`{"headers": {"x": "a\rb"}}`, authz.FaultType, "header value"},
		{`{"headers": {"x": "a\u0000b"}}`, authz.FaultType, "header value"},
		{`{"headers": {"x": ["a"]}}`, authz.FaultType, "headers.x is array"},
		{`{"headers": {"x-a": "1", "X-A": "2"}}`, authz.FaultType, "twice"},
		{`{"upstream": {"set_headers": {"x-a": "1", "X_A": "2"}}}`, authz.FaultType, "twice"},
		{`{"headers": {"Content-Length": "1"}}`, authz.FaultType, "content-length"},
		{`{"upstream": {"set_headers": {"Transfer-Encoding": "chunked"}}}`, authz.FaultType, "transfer-encoding"},
		{`{"upstream": {"set_headers": {"host": "x"}}}`, authz.FaultType, "host"},
		{`{"upstream": {"remove_headers": ["connection"]}}`, authz.FaultType, "connection"},
		{`{"upstream": {"remove_headers": "x-a"}}`, authz.FaultType, "want array"},
		{`{"upstream": {"remove_headers": [1]}}`, authz.FaultType, "want string"},
		{`{"upstream": {"name": 1}}`, authz.FaultType, "upstream.name"},
		{`{"upstream": "canary"}`, authz.FaultType, "want object"},
		{`{"challenge": {"error": "a\"b"}}`, authz.FaultType, "challenge.error"},
		{`{"challenge": {"scope": "a\nb"}}`, authz.FaultType, "challenge.scope"},
		{`{"challenge": {"max_age": -1}}`, authz.FaultType, "negative"},
		{`{"rate_limit": {"burst": "1"}}`, authz.FaultType, "rate_limit.burst is string"},
		{`{"rate_limit": {"key": "k", "rate": "1/s", "burst": 0}}`, authz.FaultType, "rate_limit.burst must be 1"},
		{`{"rate_limit": {"key": "k", "rate": "1/s", "burst": -1}}`, authz.FaultType, "rate_limit.burst must be 1"},
		{`{"rate_limit": {"key": "k", "rate": "1/s", "burst": 10000001}}`, authz.FaultType, "rate_limit.burst is 10000001"},
		{`{"rate_limit": {"key": "k", "rate": "1/s", "burst": 1.5}}`, authz.FaultType, "rate_limit.burst must be an integer"},
		{`{"rate_limit": {"key": "k", "rate": "0/m"}}`, authz.FaultType, "rate_limit.rate is not"},
		{`{"rate_limit": {"key": "k", "rate": "1/y"}}`, authz.FaultType, "rate_limit.rate is not"},
		{`{"rate_limit": {"key": "k", "rate": 100}}`, authz.FaultType, "rate_limit.rate is number"},
		{`{"rate_limit": {"key": "k"}}`, authz.FaultType, "rate_limit.rate is not"},
		{`{"rate_limit": {"key": "", "rate": "1/s"}}`, authz.FaultType, "rate_limit.key has 0 bytes"},
		{`{"rate_limit": {"rate": "1/s"}}`, authz.FaultType, "rate_limit.key has 0 bytes"},
		{`{"rate_limit": {"key": 7, "rate": "1/s"}}`, authz.FaultType, "rate_limit.key is number"},
		{`{"rate_limit": {"key": "` + strings.Repeat("k", 513) + `", "rate": "1/s"}}`, authz.FaultType, "rate_limit.key has 513 bytes"},
		{`{"rate_limit": {}}`, authz.FaultType, "rate_limit.key"},
	} {
		t.Run(tc.text, func(t *testing.T) {
			_, fault := parse(t, tc.text)
			if fault == nil {
				t.Fatal("accepted")
			}
			if fault.Kind != tc.kind || !strings.Contains(fault.Detail, tc.detail) {
				t.Errorf("got %v, want %s with %q", fault, tc.kind, tc.detail)
			}
		})
	}
}

// Whatever a policy answers, what is accepted can be put on the wire and means
// what it says.
func FuzzDecision(f *testing.F) {
	for _, seed := range []string{
		`true`, `{"allow": true}`, `{"allow": false, "status": 302, "redirect": "/x"}`,
		`{"headers": {"x-a": "b"}, "body": {"a": 1}}`, `{"upstream": {"set_headers": {"x": "\u0000"}, "remove_headers": ["y"]}}`,
		`{"challenge": {"error": "e", "scope": "s", "max_age": 3}}`, `{"response": {"set_headers": {"a": "b"}}, "log": {"drop": true}}`,
		`{"rate_limit": {"key": "k", "rate": "1/s"}, "labels": {"a": "b"}}`, `[]`, `{"allow": null}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		v, problem := parseJSON(text)
		if problem != "" {
			return
		}
		d, fault := parseDecision(v)
		if fault != nil {
			if fault.Kind == "" || fault.Detail == "" {
				t.Errorf("fault without kind or detail: %+v", fault)
			}
			return
		}
		if b, ok := v.(ast.Boolean); ok && d.Allow != bool(b) {
			t.Errorf("%v became allow %v", v, d.Allow)
		}
		checkHeaders(t, d.Headers, d.Upstream.SetHeaders, d.Response.SetHeaders)
		for _, name := range slices.Concat(d.Upstream.RemoveHeaders, d.Response.RemoveHeaders) {
			if !httpguts.ValidHeaderFieldName(name) {
				t.Errorf("header name %q", name)
			}
		}
		if !d.Allow && d.Status != 0 && (d.Status < 300 || d.Status > 599) {
			t.Errorf("deny with status %d", d.Status)
		}
		if strings.ContainsAny(d.Redirect, "\r\n\x00 \\") {
			t.Errorf("redirect %q", d.Redirect)
		}
		if d.Body != nil && !json.Valid(d.Body) {
			t.Errorf("body %q", d.Body)
		}
	})
}

func checkHeaders(t *testing.T, all ...map[string]string) {
	t.Helper()
	for _, headers := range all {
		for name, value := range headers {
			if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) || strings.ContainsAny(value, "\r\n") {
				t.Errorf("header %q: %q", name, value)
			}
		}
	}
}

// A decision as a document is read back as the same decision.
func TestDecisionDocumentIsTheContract(t *testing.T) {
	d, fault := parse(t, `{"allow": true, "reason": "r", "labels": {"a": "b"}, "status": 403, "headers": {"x-why": "w"}, "body": {"a": 1},
		"upstream": {"name": "u", "set_headers": {"x-user": "a"}, "remove_headers": ["x-debug"], "token_exchange": {"audience": "o", "scope": "s"}},
		"response": {"set_headers": {"a": "b"}, "remove_headers": ["c"]}, "challenge": {"error": "e", "scope": "s", "acr_values": "x", "max_age": 300},
		"rate_limit": {"key": "k", "rate": "100/m", "burst": 20}, "log": {"drop": true}}`)
	if fault != nil {
		t.Fatal(fault)
	}
	text, err := json.Marshal(NewDecisionDocument("d", d))
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	delete(doc, "id")
	delete(doc, "revision")
	again, fault := parseDecision(ast.MustInterfaceToValue(doc))
	if fault != nil {
		t.Fatal(fault)
	}
	if diff := cmp.Diff(d, again); diff != "" {
		t.Error(diff)
	}
	doc2 := NewDecisionDocument("d", &authz.Decision{Fault: &authz.Fault{Kind: authz.FaultEval, Detail: "x"}})
	if doc2.Fault == nil || doc2.Upstream != nil || doc2.Challenge != nil {
		t.Errorf("document of a fault: %+v", doc2)
	}
}

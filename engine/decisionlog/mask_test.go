package decisionlog_test

import (
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/sallyport/sallyport/engine"
	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/decisionlog"
)

const jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"

// Nothing that is a secret is written, wherever it stands.
func TestSecretsAreMasked(t *testing.T) {
	const secret = "Hunter2Hunter2"
	cfg := func(c *decisionlog.Config, _ *decisionlog.Deps) {
		c.Mask = decisionlog.MaskConfig{Headers: []string{"X-Tenant"}, Query: []string{"who"}, Claims: []string{"ssn", "address"}}
	}
	places := map[string]func(*authz.Record){}
	for _, name := range []string{
		"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api_key", "apikey", "x-auth-token", "x_access_token",
		"x-csrf-token", "x-amz-security-token", "x-goog-iap-jwt-assertion", "private-token", "x-session-id", "x-client-secret", "dpop", "x-tenant",
		"ocp-apim-subscription-key", "x-password",
	} {
		places["header "+name] = func(r *authz.Record) {
			r.Input.Request.Headers = append(r.Input.Request.Headers, authz.Header{Name: name, Value: secret})
		}
		places["upstream header "+name] = func(r *authz.Record) { r.Decision.Upstream.SetHeaders[strings.ToUpper(name)] = secret }
		places["response header "+name] = func(r *authz.Record) { r.Decision.Response.SetHeaders = map[string]string{name: secret} }
		places["deny header "+name] = func(r *authz.Record) { r.Decision.Headers = map[string]string{name: secret} }
	}
	for _, name := range []string{
		"access_token", "id_token", "refresh_token", "token", "code", "state", "client_secret", "client_assertion", "password", "passwd", "pwd",
		"api_key", "apikey", "key", "sig", "signature", "X-Amz-Signature", "SAMLResponse", "jwt", "session_id", "ACCESS-TOKEN", "acc%65ss_token", "who",
	} {
		places["query "+name] = func(r *authz.Record) { r.Input.Request.RawQuery = "a=1&" + name + "=" + secret + "&b=2" }
		places["encoded query "+name] = func(r *authz.Record) { r.Input.Request.RawQuery = name + "=%48unter2Hunter2" }
		places["redirect "+name] = func(r *authz.Record) { r.Decision.Redirect = "https://x.example/cb?" + name + "=" + secret }
		places["redirect fragment "+name] = func(r *authz.Record) { r.Decision.Redirect = "/cb#" + name + "=" + secret }
		places["referer "+name] = func(r *authz.Record) {
			r.Input.Request.Headers = []authz.Header{{Name: "referer", Value: "https://x.example/?" + name + "=" + secret}}
		}
	}
	places["referer with a password"] = func(r *authz.Record) {
		r.Input.Request.Headers = []authz.Header{{Name: "referer", Value: "https://alice:" + secret + "@x.example/p"}}
	}
	places["scheme in any header"] = func(r *authz.Record) {
		r.Input.Request.Headers = []authz.Header{{Name: "x-original", Value: "Bearer " + secret}}
	}
	places["route parameter"] = func(r *authz.Record) {
		r.Input.Route.Params = map[string]string{"reset_token": secret}
		r.Input.Request.Path, r.Input.Request.Segments = "/reset/"+secret+"/x", []string{"reset", secret, "x"}
	}
	places["claim of the configuration"] = func(r *authz.Record) { r.Input.Identity.Claims["ssn"] = secret }
	places["below a claim"] = func(r *authz.Record) {
		r.Input.Identity.Claims["address"] = map[string]any{"street": []any{secret, map[string]any{"x": secret}}}
	}
	places["claim with a token"] = func(r *authz.Record) {
		r.Input.Identity.Claims["nested"] = map[string]any{"access_token": secret}
	}
	for name, place := range places {
		r := record()
		r.Decision.Upstream.SetHeaders = map[string]string{}
		place(r)
		line := write(t, cfg, r)[0]
		if strings.Contains(line, secret) || strings.Contains(line, "%48unter2") {
			t.Errorf("%s: %s", name, line)
		}
		if !strings.Contains(line, "hmac:") {
			t.Errorf("%s: nothing is masked: %s", name, line)
		}
		if !json.Valid([]byte(line)) {
			t.Errorf("%s: not JSON: %s", name, line)
		}
	}
}

func TestTokensAreMaskedAnywhere(t *testing.T) {
	for name, place := range map[string]func(*authz.Record){
		"header": func(r *authz.Record) {
			r.Input.Request.Headers = []authz.Header{{Name: "x-a", Value: "v=" + jwt + ";"}}
		},
		"query":          func(r *authz.Record) { r.Input.Request.RawQuery = "q=" + jwt },
		"query name":     func(r *authz.Record) { r.Input.Request.RawQuery = jwt },
		"claim":          func(r *authz.Record) { r.Input.Identity.Claims["x"] = []any{jwt} },
		"actor":          func(r *authz.Record) { r.Input.Identity.Actor = map[string]any{"x": jwt} },
		"path":           func(r *authz.Record) { r.Input.Request.Path, r.Input.Request.Segments = "/a/"+jwt, []string{"a", jwt} },
		"error":          func(r *authz.Record) { r.Error = "parse " + jwt },
		"reason":         func(r *authz.Record) { r.Decision.Reason = jwt },
		"label":          func(r *authz.Record) { r.Decision.Labels["x"] = jwt },
		"fault":          func(r *authz.Record) { r.Decision.Fault = &authz.Fault{Kind: authz.FaultEval, Detail: "x " + jwt} },
		"rate limit key": func(r *authz.Record) { r.Decision.RateLimit = &authz.RateLimit{Key: jwt, Rate: "1/s"} },
		"redirect":       func(r *authz.Record) { r.Decision.Redirect = "/x/" + jwt },
	} {
		r := record()
		place(r)
		if line := write(t, nil, r)[0]; strings.Contains(line, jwt) || !json.Valid([]byte(line)) {
			t.Errorf("%s: %s", name, line)
		}
	}
}

// What is no secret stays readable.
func TestOrdinaryValuesStay(t *testing.T) {
	r := record()
	r.Input.Request.Headers = []authz.Header{
		{Name: "accept", Value: "text/html"}, {Name: "user-agent", Value: "eyJ is no token"}, {Name: "referer", Value: "https://x.example/a?b=c#d"},
	}
	r.Input.Identity.Claims = map[string]any{"token_use": "access", "session_state": "x", "big": json.Number("12345678901234567890"), "ok": true, "none": nil}
	line := write(t, nil, r)[0]
	for _, want := range []string{`"text/html"`, `"eyJ is no token"`, `"https://x.example/a?b=c#d"`, `"token_use":"access"`, `"session_state":"x"`, `"big":12345678901234567890`, `"none":null`} {
		if !strings.Contains(line, want) {
			t.Errorf("%s is not in %s", want, line)
		}
	}
}

func TestHashesDifferBetweenProcesses(t *testing.T) {
	if a, b := write(t, nil, record())[0], write(t, nil, record())[0]; a == b {
		t.Error("two logs use the same key")
	}
}

// Where nothing is masked, the input in the log is the document that the engine
// evaluates, but for the body.
func TestInputIsTheEnginesDocument(t *testing.T) {
	for name, change := range map[string]func(*authz.Input){
		"plain": func(*authz.Input) {},
		"empty": func(in *authz.Input) { *in = authz.Input{} },
		"all": func(in *authz.Input) {
			in.Source.ForwardedFor = []string{"198.51.100.7"}
			in.TLS = &authz.TLS{Version: "TLS 1.3", Cipher: "c", ServerName: "s", ClientCertificate: &authz.Certificate{
				Subject: "CN=a", Issuer: "CN=b", Serial: "1", SHA256: "ab", DNSNames: []string{"d"}, SPIFFEID: "spiffe://x/y",
				NotBefore: time.Unix(1, 0), NotAfter: time.Unix(1767323045, 0),
			}}
			in.Identity = &authz.Identity{
				Authenticated: true, Authenticator: "a", Kind: "jwt", Subject: "s", Issuer: "i", Audiences: []string{"x"}, Scopes: []string{},
				Claims: map[string]any{"a": []any{json.Number("1"), nil, true, map[string]any{"b": "c"}}}, TokenHeader: map[string]any{"alg": "RS256"},
				ExpiresAt: time.Unix(1767323045, 0), Actor: map[string]any{"sub": "b"},
			}
			in.Route.Labels = map[string]string{"l": "m"}
			in.Gateway = &authz.Gateway{Name: "g", Version: "v", Listener: "l", Labels: map[string]string{"z": "z"}}
			in.Request.ContentType, in.Request.ContentLength = "text/plain", 3
		},
		"odd query": func(in *authz.Input) { in.Request.RawQuery = "a&&b=%zz&=c&d=e=f&a=%41+b" },
		"odd headers": func(in *authz.Input) {
			in.Request.Headers = append(in.Request.Headers, authz.Header{Name: "x", Value: "\x00\xff\"\\\u2028"})
		},
		"no identity": func(in *authz.Input) { in.Identity = nil },
	} {
		t.Run(name, func(t *testing.T) {
			r := record()
			r.Input.Request.RawQuery = "a=1&a=2&b"
			r.Input.Request.Headers = []authz.Header{{Name: "accept", Value: "*/*"}, {Name: "x-a", Value: "1"}, {Name: "accept", Value: "b"}}
			change(r.Input)
			var line struct{ Input any }
			if err := json.Unmarshal([]byte(write(t, nil, r)[0]), &line); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(engineDocument(t, r.Input), line.Input); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func engineDocument(t *testing.T, in *authz.Input) (doc any) {
	t.Helper()
	term, err := engine.InputDocument(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	x, err := ast.JSON(term.Value)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// Whatever a client sends, a record is one line of valid JSON without control
// characters, and a value that is not masked is what encoding/json would read back.
func FuzzRecord(f *testing.F) {
	f.Add("a", "b", "c=d&e", "/x/y")
	f.Add("\x00\x1b[31m", "\xff\xfe\u0085\u2028", "%zz=%41&;", "//\\\"")
	f.Add("authorization", jwt, "token="+jwt, "/"+jwt)
	f.Fuzz(func(t *testing.T, name, value, query, path string) {
		r := record()
		r.Input.Request.Headers = []authz.Header{{Name: name, Value: value}}
		r.Input.Request.RawQuery, r.Input.Request.Path, r.Input.Request.Segments = query, path, strings.Split(path, "/")
		r.Input.Identity.Claims = map[string]any{name: value, "x": []any{value, map[string]any{value: name}}}
		r.Input.Route.Params = map[string]string{name: value}
		r.Decision.Reason, r.Decision.Labels, r.Decision.Redirect = value, map[string]string{name: value}, value
		r.Decision.Upstream.SetHeaders = map[string]string{name: value}
		r.Error, r.Upstream = value, name
		lines := write(t, nil, r)
		if len(lines) != 1 || !json.Valid([]byte(lines[0])) {
			t.Fatalf("not one line of JSON: %q", lines)
		}
		if i := strings.IndexFunc(lines[0], func(c rune) bool { return c < 0x20 || c >= 0x7f && c < 0xa0 }); i >= 0 {
			t.Errorf("control character at %d of %q", i, lines[0])
		}
		var got struct{ Upstream string }
		if err := json.Unmarshal([]byte(lines[0]), &got); err != nil || got.Upstream != string([]rune(name)) {
			t.Errorf("%q was read back as %q: %v", name, got.Upstream, err)
		}
	})
}

// BenchmarkRecord is the worker's time for a record: masking, encoding, writing.
func BenchmarkRecord(b *testing.B) {
	const batch = 1000
	r := record()
	b.ReportAllocs()
	for b.Loop() {
		l := newLog(b, io.Discard, nil)
		for range batch {
			l.Record(r)
		}
		runToEnd(b, l)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch), "ns/record")
}

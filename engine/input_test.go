package engine_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/engine"
	"github.com/sallyport/sallyport/engine/authz"
)

func indented(t *testing.T, in *authz.Input) string {
	t.Helper()
	var out bytes.Buffer
	if err := json.Indent(&out, inputJSON(t, in), "", " "); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func fullInput() *authz.Input {
	in := order("reader")
	in.Request.Headers = []authz.Header{{Name: "accept", Value: "*/*"}, {Name: "x-a", Value: "1"}, {Name: "accept", Value: "text/html"}}
	in.Request.ContentType, in.Request.ContentLength = "application/json", 12
	in.Request.Body = &body{data: []byte(`{"total": 7}`)}
	in.Source.ForwardedFor = []string{"198.51.100.7"}
	in.TLS = &authz.TLS{
		Version: "TLS 1.3", Cipher: "TLS_AES_128_GCM_SHA256", ServerName: "api.example.com",
		ClientCertificate: &authz.Certificate{
			Subject: "CN=client", Issuer: "CN=ca", Serial: "1f", SHA256: "ab", DNSNames: []string{"client"}, URIs: []string{"spiffe://x/y"},
			SPIFFEID: "spiffe://x/y", NotBefore: time.Unix(1767323045, 0), NotAfter: time.Unix(1798859045, 0),
		},
	}
	in.Identity.Actor = map[string]any{"sub": "svc"}
	in.Gateway.Labels = map[string]string{"zone": "z"}
	return in
}

// The document of the contract, section 3, member by member.
func TestInputDocument(t *testing.T) {
	const want = `{
 "gateway": {
  "labels": {
   "zone": "z"
  },
  "listener": "public",
  "name": "gw",
  "version": "dev"
 },
 "identity": {
  "actor": {
   "sub": "svc"
  },
  "audiences": [
   "orders-api"
  ],
  "authenticated": true,
  "authenticator": "corp",
  "claims": {
   "n": 12345678901234567890,
   "roles": [
    "reader"
   ],
   "sub": "alice"
  },
  "expires_at": 1767323045,
  "issuer": "https://idp.example",
  "kind": "jwt",
  "scopes": [
   "openid"
  ],
  "subject": "alice",
  "token": {
   "header": {
    "alg": "RS256"
   }
  }
 },
 "request": {
  "body": {
   "total": 7
  },
  "body_truncated": false,
  "content_length": 12,
  "content_type": "application/json",
  "headers": {
   "accept": [
    "*/*",
    "text/html"
   ],
   "x-a": [
    "1"
   ]
  },
  "host": "api.example.com",
  "id": "r1",
  "method": "GET",
  "path": "/v1/orders/42",
  "port": 443,
  "protocol": "HTTP/1.1",
  "query": {
   "a": [
    "1",
    "2"
   ],
   "b": [
    " "
   ]
  },
  "raw_body": "{\"total\": 7}",
  "raw_query": "a=1\u0026a=2\u0026b=%20",
  "scheme": "https",
  "segments": [
   "v1",
   "orders",
   "42"
  ],
  "time": "2026-01-02T03:04:05.678Z"
 },
 "route": {
  "labels": {
   "team": "orders"
  },
  "name": "orders",
  "params": {
   "id": "42"
  },
  "upstream": "orders"
 },
 "source": {
  "forwarded_for": [
   "198.51.100.7"
  ],
  "ip": "192.0.2.1",
  "port": 4711
 },
 "tls": {
  "cipher": "TLS_AES_128_GCM_SHA256",
  "client_certificate": {
   "dns_names": [
    "client"
   ],
   "emails": [],
   "issuer": "CN=ca",
   "not_after": "2027-01-02T03:04:05.000Z",
   "not_before": "2026-01-02T03:04:05.000Z",
   "serial": "1f",
   "sha256": "ab",
   "spiffe_id": "spiffe://x/y",
   "subject": "CN=client",
   "uris": [
    "spiffe://x/y"
   ]
  },
  "server_name": "api.example.com",
  "version": "TLS 1.3"
 },
 "version": "v1"
}`
	if diff := cmp.Diff(want, indented(t, fullInput())); diff != "" {
		t.Error(diff)
	}
}

// What a request does not have is absent, never null; what is known to be empty is
// empty.
func TestInputDocumentOfAnEmptyRequest(t *testing.T) {
	in := &authz.Input{Request: authz.Request{ContentLength: -1}, Identity: &authz.Identity{}}
	const want = `{"identity":{"authenticated":false},"request":{"headers":{},"query":{},"segments":[]},` +
		`"route":{"labels":{},"params":{}},"source":{"forwarded_for":[]},"version":"v1"}`
	if diff := cmp.Diff(want, string(inputJSON(t, in))); diff != "" {
		t.Error(diff)
	}
}

func TestBody(t *testing.T) {
	deep := strings.Repeat("[", 300) + strings.Repeat("]", 300)
	for _, tc := range []struct {
		name, contentType, data string
		truncated               bool
		want                    string
	}{
		{"JSON", "application/json", `{"a": [1, 2.50, "x", null, true]}`, false, `{"body":{"a":[1,2.50,"x",null,true]},"body_truncated":false,"raw_body":"{\"a\": [1, 2.50, \"x\", null, true]}"}`},
		{"JSON suffix and parameter", `application/vnd.api+json; charset="utf-8"`, `7`, false, `{"body":7,"body_truncated":false,"raw_body":"7"}`},
		{"JSON in capitals", "Application/JSON", `"x"`, false, `{"body":"x","body_truncated":false,"raw_body":"\"x\""}`},
		{"JSON null", "application/json", `null`, false, `{"body":null,"body_truncated":false,"raw_body":"null"}`},
		{"malformed JSON", "application/json", `{"a":`, false, `{"body_error":"malformed","body_truncated":false,"raw_body":"{\"a\":"}`},
		{"two JSON values", "application/json", `{} {}`, false, `{"body_error":"malformed","body_truncated":false,"raw_body":"{} {}"}`},
		{"trailing text", "application/json", `{} x`, false, `{"body_error":"malformed","body_truncated":false,"raw_body":"{} x"}`},
		{"trailing comma", "application/json", `[1,]`, false, `{"body_error":"malformed","body_truncated":false,"raw_body":"[1,]"}`},
		{"two of a member", "application/json", `{"a":1,"\u0061":2}`, false, `{"body_error":"duplicate_key","body_truncated":false,"raw_body":"{\"a\":1,\"\\u0061\":2}"}`},
		{"absurd number", "application/json", `1e999999999`, false, `{"body_error":"malformed","body_truncated":false,"raw_body":"1e999999999"}`},
		{"not UTF-8", "application/json", "\"\xff\"", false, `{"body_error":"not_utf8","body_truncated":false}`},
		{"empty JSON", "application/json", ``, false, `{"body_truncated":false,"raw_body":""}`},
		{"cut JSON", "application/json", `{"a":"ä`[:7], true, `{"body_error":"truncated","body_truncated":true,"raw_body":"{\"a\":\""}`},
		{"form", "application/x-www-form-urlencoded", `a=1&b=x+y&a=%41&c`, false, `{"body":{"a":["1","A"],"b":["x y"],"c":[""]},"body_truncated":false,"raw_body":"a=1\u0026b=x+y\u0026a=%41\u0026c"}`},
		{"text", "text/plain", `hello`, false, `{"body_truncated":false,"raw_body":"hello"}`},
		{"bytes", "application/octet-stream", "\x00\xff", false, `{"body_truncated":false}`},
		{"no content type", "", `{"a":1}`, false, `{"body_truncated":false,"raw_body":"{\"a\":1}"}`},
		{"content type is no type", ";;", `{"a":1}`, false, `{"body_truncated":false,"raw_body":"{\"a\":1}"}`},
		{"deep", "application/json", deep, false, `{"body_error":"too_deep","body_truncated":false,"raw_body":"` + deep + `"}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := order()
			in.Request.ContentType = tc.contentType
			in.Request.Body = &body{data: []byte(tc.data), truncated: tc.truncated}
			var doc struct{ Request map[string]json.RawMessage }
			if err := json.Unmarshal(inputJSON(t, in), &doc); err != nil {
				t.Fatal(err)
			}
			got := map[string]json.RawMessage{}
			for _, k := range []string{"body", "raw_body", "body_truncated", "body_error"} {
				if v, ok := doc.Request[k]; ok {
					got[k] = v
				}
			}
			text, err := json.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, string(text)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A body that no rule can see is never read, so it can be streamed.
func TestBodyIsReadOnlyIfThePolicyCan(t *testing.T) {
	for policy, want := range map[string]int{
		`decision := input.request.method == "GET"`:             0,
		`decision := true if input.request.headers.accept`:      0,
		`decision := input.request.body.total == 7`:             1,
		`decision := input.request.raw_body != ""`:              1,
		`decision := true if count(input.request) > 0`:          1,
		`decision := true if { not input.request.body_error }`:  1,
		`decision := true if { r := input.request; r.body.x }`:  1,
		`decision := true if { r := input.request; r.headers }`: 0,
	} {
		b := &body{data: []byte(`{"total": 7}`)}
		in := order()
		in.Request.ContentType, in.Request.Body = "application/json", b
		decide(t, active(t, `{}`, "package gateway\n\n"+policy), in)
		if b.reads != want {
			t.Errorf("%s: body read %d times, want %d", policy, b.reads, want)
		}
	}
}

func TestBodyErrorsAreNoDecision(t *testing.T) {
	e := active(t, `{}`, "package gateway\n\ndecision := true if not input.request.body.bad")
	for _, want := range []error{authz.ErrBodyTooLarge, authz.ErrBodyRead} {
		in := order()
		in.Request.Body = &body{err: fmt.Errorf("after 3 bytes: %w", want)}
		if d, err := e.Decide(t.Context(), in); !errors.Is(err, want) || d != nil {
			t.Errorf("decision %+v, error %v, want %v", d, err, want)
		}
		if _, err := e.Explain(t.Context(), in); !errors.Is(err, want) {
			t.Errorf("explain: %v, want %v", err, want)
		}
	}
}

func TestIdentityThatIsNoDocumentIsNoDecision(t *testing.T) {
	e := active(t, `{}`, "package gateway\n\ndecision := true if not input.identity.claims.blocked")
	in := order()
	in.Identity = &authz.Identity{Authenticated: true, Claims: map[string]any{"x": json.Number("1e999999999999")}}
	if d, err := e.Decide(t.Context(), in); err == nil {
		t.Errorf("decision %+v", d)
	}
}

func TestManyHeaders(t *testing.T) {
	in := order()
	in.Request.Headers = nil
	for i := range 3000 {
		in.Request.Headers = append(in.Request.Headers, authz.Header{Name: fmt.Sprint("x-", i%1000), Value: fmt.Sprint(i)})
	}
	doc, err := engine.InputDocument(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Request struct{ Headers map[string][]string }
	}
	text := []byte(doc.String())
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Request.Headers) != 1000 || !cmp.Equal(got.Request.Headers["x-7"], []string{"7", "1007", "2007"}) {
		t.Errorf("%d headers, x-7 is %v", len(got.Request.Headers), got.Request.Headers["x-7"])
	}
}

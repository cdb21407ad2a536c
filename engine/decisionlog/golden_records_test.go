package decisionlog

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
)

const goldenJWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"

// goldenCase is some records; the lines of readable ones stand in the file.
type goldenCase struct {
	name     string
	readable bool
	records  []*authz.Record
}

// odd are strings that an encoder may get wrong.
func odd() []string {
	return []string{
		"", "a", "plain text", `"`, `\`, `\"`, "/", "\x00", "\x1b[31m", "\t\r\n", "\x7f", "\u0085", "\u00a0", "\xff", "\xc3\x28", "\xe2\x80", "a\xf0\x9f",
		"\u2028\u2029", "<script>&amp;", "é", "日本語", "😀", "\ufffd", "\ufeff", "12345678", "1234567\"", "12345678\"9", "1234567890abcde\x01",
		"sixteen bytes ok", "sixteen bytes o\x80", strings.Repeat("x", 300), strings.Repeat("é", 50) + "\"",
		goldenJWT, "Bearer abc", "basic YTpi", "DPoP x", "Bearer ", "bearer", "Bear er", "eyJ.a.b", "eyJ" + strings.Repeat("a", 30), "v=" + goldenJWT + ";",
		"a=b&c=d", "%41%zz", "token=x", "hmac:0", "https://u:p@x.example/a?b=c&code=d#e=f&token=g", "//", "//a@b", "?", "#", "a#b?c",
	}
}

// golden is a record as most are.
func golden() *authz.Record {
	return &authz.Record{
		Input: &authz.Input{
			Request: authz.Request{
				ID: "0b8f5b9e-8a5b-4f8e-9c57-3e6f0d7a1c22", Method: "GET", Scheme: "https", Host: "api.example.com", Port: 443, Path: "/v1/orders/42",
				Segments: []string{"v1", "orders", "42"}, RawQuery: "page=1&access_token=s3cret&page=2",
				Headers: []authz.Header{
					{Name: "accept", Value: "*/*"},
					{Name: "user-agent", Value: "curl/8.1"},
					{Name: "x-api-key", Value: "s3cret"},
					{Name: "accept-language", Value: "de"},
					{Name: "accept", Value: "text/html"},
					{Name: "cookie", Value: "a=b"},
					{Name: "x-tenant", Value: "t1"},
				},
				Protocol: "HTTP/1.1", ContentLength: -1, Time: time.UnixMilli(1767323045678),
			},
			Source: authz.Source{IP: "192.0.2.1", Port: 4711},
			Identity: &authz.Identity{
				Authenticated: true, Authenticator: "corp", Kind: "jwt", Subject: "alice", Issuer: "https://idp.example", Audiences: []string{"orders"},
				Scopes: []string{"read", "write"}, TokenHeader: map[string]any{"alg": "RS256", "kid": "k1"}, ExpiresAt: time.Unix(1767326645, 0),
				Claims: map[string]any{
					"sub": "alice", "iss": "https://idp.example", "aud": []any{"orders"}, "exp": json.Number("1767326645"), "roles": []any{"reader", "writer"},
					"email": "alice@example.com", "email_verified": true, "nested": map[string]any{"password": "s3cret", "z": nil, "a": json.Number("1.5e3")},
				},
			},
			Route:   authz.Route{Name: "orders", Params: map[string]string{"id": "42"}, Upstream: "orders", Labels: map[string]string{"team": "a", "area": "b"}},
			Gateway: &authz.Gateway{Name: "gw", Version: "v1.2.3", Listener: "public", Labels: map[string]string{"region": "eu"}},
		},
		DecisionID: "7d0f3b1e-11f0-4d6c-8a7e-6c1d1f0a2b3c",
		Decision: &authz.Decision{
			Allow: true, Reason: "may read", Labels: map[string]string{"rule": "read"},
			Revision: "one", Bundles: map[string]string{"authz": "r1", "data": "r2"},
			Upstream: authz.UpstreamObligation{SetHeaders: map[string]string{"X-User": "alice", "Authorization": "Bearer s3cret"}},
		},
		Outcome: authz.OutcomeAllowed, Status: 200, Upstream: "orders",
		Authenticate: 12 * time.Microsecond, Decide: 34 * time.Microsecond, Forward: 5 * time.Millisecond,
		TraceID: "0af7651916cd43dd8448eb211c80319c", SpanID: "b7ad6b7169203331",
	}
}

// with is the usual record after each of the changes.
func with(changes ...func(*authz.Record)) []*authz.Record {
	var out []*authz.Record
	for _, change := range changes {
		r := golden()
		change(r)
		out = append(out, r)
	}
	return out
}

// withEach is the usual record with each odd string in that place.
func withEach(place func(r *authz.Record, s string)) []*authz.Record {
	var out []*authz.Record
	for _, s := range odd() {
		r := golden()
		place(r, s)
		out = append(out, r)
	}
	return out
}

func goldenCases() []goldenCase {
	cases := []goldenCase{
		{"usual", true, with(func(*authz.Record) {})},
		{"parts are absent", true, absentCases()},
		{"decision", true, decisionCases()},
		{"time", false, timeCases()},
		{"identity", false, identityCases()},
		{"claims", false, claimCases()},
		{"connection", false, connectionCases()},
		{"path", false, pathCases()},
		{"headers", false, headerCases()},
		{"query", false, queryCases()},
		{"random", false, randomCases()},
	}
	return append(cases, oddCases()...)
}

func absentCases() []*authz.Record {
	return append(with(
		func(r *authz.Record) { r.Input = nil },
		func(r *authz.Record) { r.Decision = nil },
		func(r *authz.Record) { r.Input.Identity = nil },
		func(r *authz.Record) { r.Input.Gateway = nil },
		func(r *authz.Record) { *r.Input = authz.Input{} },
		func(r *authz.Record) { *r.Input.Identity = authz.Identity{} },
		func(r *authz.Record) { *r.Input.Gateway = authz.Gateway{} },
		func(r *authz.Record) { r.DecisionID, *r.Decision = "", authz.Decision{} },
		func(r *authz.Record) { r.Input.Route.Entrypoint = "other/decision" },
		func(r *authz.Record) { r.Input.Route.Entrypoint, r.Decision = "other/decision", nil },
	), &authz.Record{}, &authz.Record{Outcome: authz.OutcomeUnauthenticated, Status: 401, Error: "token expired"})
}

func decisionCases() []*authz.Record {
	return with(
		func(r *authz.Record) { r.Decision.Cached = true },
		func(r *authz.Record) { r.Decision.Bundles = nil },
		func(r *authz.Record) { r.Decision.Bundles = map[string]string{"": "", "b": "", "a": "\"\n"} },
		func(r *authz.Record) { r.Decision.Labels = map[string]string{} },
		func(r *authz.Record) { r.Decision.Headers = map[string]string{} },
		func(r *authz.Record) {
			r.Decision.Headers = map[string]string{"Location": "/cb?code=x#token=y", "Set-Cookie": "a=b", "X-A": "1", "x-tenant": "t", "Link": "<https://a@b/>"}
		},
		func(r *authz.Record) {
			r.Decision.Allow, r.Decision.Status, r.Decision.Body = false, 404, []byte(`{"a":"secret"}`)
		},
		func(r *authz.Record) { r.Decision.Redirect = "https://a:b@x.example/p?state=1&b=2#c" },
		func(r *authz.Record) { r.Decision.Upstream = authz.UpstreamObligation{Name: "other"} },
		func(r *authz.Record) { r.Decision.Upstream = authz.UpstreamObligation{RemoveHeaders: []string{}} },
		func(r *authz.Record) {
			r.Decision.Upstream = authz.UpstreamObligation{SetHeaders: map[string]string{}, RemoveHeaders: []string{"x-b", "a\n"}}
		},
		func(r *authz.Record) { r.Decision.Upstream.TokenExchange = &authz.TokenExchange{} },
		func(r *authz.Record) {
			r.Decision.Upstream.TokenExchange = &authz.TokenExchange{Audience: "a", Scope: "s"}
		},
		func(r *authz.Record) { r.Decision.Response.SetHeaders = map[string]string{"x-secret-x": "s", "b": "c"} },
		func(r *authz.Record) { r.Decision.Response.RemoveHeaders = []string{"server"} },
		func(r *authz.Record) { r.Decision.Challenge = &authz.Challenge{MaxAge: -1} },
		func(r *authz.Record) {
			r.Decision.Challenge = &authz.Challenge{Error: "insufficient_scope", Scope: "a b", ACRValues: "c", MaxAge: 0}
		},
		func(r *authz.Record) {
			r.Decision.RateLimit = &authz.RateLimit{Key: goldenJWT, Rate: "100/m", Burst: 7}
		},
		func(r *authz.Record) { r.Decision.RateLimit = &authz.RateLimit{} },
		func(r *authz.Record) {
			r.Decision.Fault, r.Decision.LogDrop = &authz.Fault{Kind: authz.FaultEval, Detail: "conflict " + goldenJWT}, true
		},
		func(r *authz.Record) { r.Status, r.Forward, r.Decide = -1, -time.Second, 999*time.Nanosecond },
	)
}

func timeCases() []*authz.Record {
	var out []*authz.Record
	for _, at := range []time.Time{
		{},
		time.Unix(0, 0), time.Unix(0, 999_999), time.Unix(1767323045, 999_999_999), time.Unix(1767323045, 1_000_000), time.Unix(-1, 1),
		time.Unix(1767323046, 10_000_000), time.Date(2026, 7, 1, 23, 59, 59, 5e8, time.FixedZone("x", 19800)), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC), time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		out = append(out, with(func(r *authz.Record) {
			r.Input.Request.Time = at
			r.Input.TLS = &authz.TLS{ClientCertificate: &authz.Certificate{NotBefore: at, NotAfter: at.Add(time.Millisecond)}}
			r.Input.Identity.ExpiresAt = at
		})...)
	}
	return out
}

func identityCases() []*authz.Record {
	out := with(
		func(r *authz.Record) { r.Input.Identity.Audiences, r.Input.Identity.Scopes = nil, nil },
		func(r *authz.Record) { r.Input.Identity.Audiences, r.Input.Identity.Scopes = []string{}, []string{""} },
		func(r *authz.Record) { r.Input.Identity.Claims, r.Input.Identity.TokenHeader = nil, nil },
		func(r *authz.Record) {
			r.Input.Identity.Claims, r.Input.Identity.TokenHeader, r.Input.Identity.Actor = map[string]any{}, map[string]any{}, map[string]any{}
		},
		func(r *authz.Record) {
			r.Input.Identity.Actor = map[string]any{"sub": "b", "act": map[string]any{"sub": goldenJWT}}
		},
		func(r *authz.Record) { r.Input.Identity = &authz.Identity{Authenticator: "none", Kind: "anonymous"} },
	)
	shared := with(func(*authz.Record) {}, func(*authz.Record) {}) // one identity, two requests
	shared[1].Input.Identity, shared[1].Input.Gateway = shared[0].Input.Identity, shared[0].Input.Gateway
	shared[1].Input.Request.ID, shared[1].Input.Request.RawQuery = "other", ""
	return append(out, shared...)
}

func claimCases() []*authz.Record {
	var list, object any = "end", "end"
	for i := range 40 {
		list, object = []any{list, i}, map[string]any{"deeper": object, "n": i}
	}
	deep := with(
		func(r *authz.Record) { r.Input.Identity.Claims = map[string]any{"list": list} },
		func(r *authz.Record) { r.Input.Identity.Claims = map[string]any{"object": object} },
		func(r *authz.Record) { r.Input.Identity.Claims = map[string]any{"password": []any{list, object}} },
	)
	for _, v := range []any{
		nil, true, false, 0, -1, 1.5, 1e300, float32(0.1), int64(1) << 62, uint8(7), json.Number(""), json.Number("0"), json.Number("-0"), json.Number("01"),
		json.Number("12345678901234567890"), json.Number("1767326645"), json.Number("-12"), json.Number("1.50"), json.Number("1e5"), json.Number("x"), json.Number("1\n"),
		json.Number("-"), "", "s",
		[]string{"<a>", "b"},
		map[string]string{"z": "&", "a": "b"},
		struct {
			A string `json:"a"`
		}{"x"},
		func() {},
		[]any{},
		[]any{nil, "", []any{}},
		map[string]any{},
		json.RawMessage(`{"a": 1}`), []byte("bytes"), time.Unix(0, 0).UTC(),
	} {
		deep = append(deep, with(func(r *authz.Record) {
			r.Input.Identity.Claims = map[string]any{"v": v, "Client_Secret": v, "list": []any{v}, "object": map[string]any{"v": v}, "address": v, "EMAIL": []any{v}}
		})...)
	}
	return deep
}

func connectionCases() []*authz.Record {
	return with(
		func(r *authz.Record) { r.Input.Source = authz.Source{ForwardedFor: []string{"198.51.100.7", "::1"}} },
		func(r *authz.Record) { r.Input.TLS = &authz.TLS{} },
		func(r *authz.Record) {
			r.Input.TLS = &authz.TLS{Version: "TLS 1.3", Cipher: "TLS_AES_128_GCM_SHA256", ServerName: "api.example.com"}
		},
		func(r *authz.Record) {
			r.Input.TLS = &authz.TLS{Version: "TLS 1.3", ClientCertificate: &authz.Certificate{
				Subject: "CN=a,O=\"b\"", Issuer: "CN=c", Serial: "1f", SHA256: "ab", DNSNames: []string{"d"}, URIs: []string{"u"}, Emails: []string{"e@f"},
				SPIFFEID: "spiffe://x/y", NotBefore: time.Unix(1, 0), NotAfter: time.Unix(1767323045, 0),
			}}
		},
		func(r *authz.Record) { r.Input.Request.Port, r.Input.Request.ContentLength = 0, 0 },
		func(r *authz.Record) {
			r.Input.Request.ContentLength, r.Input.Request.ContentType = 12, "application/json; charset=utf-8"
		},
		func(r *authz.Record) { r.Input.Route.Params, r.Input.Route.Labels = nil, nil },
		func(r *authz.Record) { r.Input.Gateway.Labels = nil },
	)
}

func pathCases() []*authz.Record {
	var out []*authz.Record
	for _, path := range []string{
		"", "/", "//", "/a//b/", "/a/" + goldenJWT, "/a/x" + goldenJWT + "y/b", "/%65yJhbGciOiJSUzI1NiJ9.e30.c2lnbmF0dXJl/x", "/a%2fb", "/%zz/%", "/bearer%20abc/x",
		"/bearer abc/x", "/reset/s3cret", "/reset/s3%63ret/s3cret", "/é/\xff", "*", "a", "/eyJ/a.b/c.d.e.f.g.h.i.j.k.l.m.n",
	} {
		for _, params := range []map[string]string{nil, {"id": "s3cret"}, {"reset_token": "s3cret", "id": "42"}, {"Who_Is": "s3cret"}, {"code": "", "pin": "reset"}} {
			out = append(out, with(func(r *authz.Record) {
				r.Input.Request.Path, r.Input.Request.Segments, r.Input.Route.Params = path, strings.Split(strings.TrimPrefix(path, "/"), "/"), params
			})...)
		}
	}
	return append(out, with(func(r *authz.Record) { r.Input.Request.Segments = nil }, func(r *authz.Record) { r.Input.Request.Segments = []string{} })...)
}

func headerCases() []*authz.Record {
	out := with(
		func(r *authz.Record) { r.Input.Request.Headers = nil },
		func(r *authz.Record) {
			r.Input.Request.Headers = []authz.Header{{Name: "", Value: ""}, {Name: "", Value: "x"}}
		},
	)
	for _, n := range []int{31, 32, 33, 34, 70, 300} {
		out = append(out, with(func(r *authz.Record) {
			r.Input.Request.Headers = nil
			for i := range n {
				r.Input.Request.Headers = append(r.Input.Request.Headers, authz.Header{Name: fmt.Sprintf("x-%d", i%7*i%40), Value: fmt.Sprint(i)})
			}
		})...)
	}
	for _, name := range append(append(secretHeaders(), secretWords()...),
		"x_api_key", "x-my-token-x", "referer", "location", "content-location", "link", "x-referer", "host", "traceparent", "x-tenant", "x_tenant", "tok-en", "k\xc4\xb1d") {
		for _, value := range []string{"", "s3cret", "a b", "Bearer x", "https://u:p@x.example/a?b=c&code=d#e=f&token=g", goldenJWT} {
			out = append(out, with(func(r *authz.Record) { r.Input.Request.Headers = []authz.Header{{Name: name, Value: value}} })...)
		}
	}
	return out
}

func queryCases() []*authz.Record {
	var out []*authz.Record
	for _, query := range []string{
		"", "&", "&&", "=", "a", "a=", "=a", "a=b=c", "a=1&a=2&b&a=3", "%41=%42", "%zz=%zz", "a+b=c+d", "code=x", "c%6fde=x", "CODE=x", "code=", "code", "code=%", "who-is=1",
		"WHO%5FIS=1&x=y", "x=" + goldenJWT, goldenJWT, goldenJWT + "=x", "x=a%20b", "x=Bearer%20abc", "x=bearer+abc", "Bearer%20abc=x", "a;b=c", "é=\xff", "a=\"&b=\\", "token=hmac:1",
		"a=1#b", "q=%e2%80%a8", strings.Repeat("a=1&", 100),
	} {
		out = append(out, with(func(r *authz.Record) { r.Input.Request.RawQuery = query })...)
	}
	return out
}

func oddCases() []goldenCase {
	return []goldenCase{
		{"odd texts", false, withEach(func(r *authz.Record, s string) {
			r.Error, r.Upstream, r.TraceID, r.SpanID, r.Outcome = s, s, s, s, authz.Outcome(s)
		})},
		{"odd decision", false, withEach(func(r *authz.Record, s string) {
			r.DecisionID = s
			r.Decision = &authz.Decision{
				Reason: s, Labels: map[string]string{s: s, "b": s}, Revision: s, Bundles: map[string]string{s: s, "b": s}, Headers: map[string]string{s: s, "b": s},
				Redirect: s, Challenge: &authz.Challenge{Error: s, Scope: s, ACRValues: s}, RateLimit: &authz.RateLimit{Key: s, Rate: s},
				Upstream: authz.UpstreamObligation{Name: s, SetHeaders: map[string]string{s: s}, RemoveHeaders: []string{s}, TokenExchange: &authz.TokenExchange{Audience: s, Scope: s}},
				Response: authz.ResponseObligation{SetHeaders: map[string]string{s: s}, RemoveHeaders: []string{s, s}}, Fault: &authz.Fault{Kind: authz.FaultKind(s), Detail: s},
			}
		})},
		{"odd request", false, withEach(func(r *authz.Record, s string) {
			r.Input.Request = authz.Request{
				ID: s, Method: s, Scheme: s, Host: s, Path: s, Segments: []string{s, s}, RawQuery: s, Protocol: s, ContentType: s,
				Headers: []authz.Header{{Name: s, Value: s}, {Name: "referer", Value: s}, {Name: s, Value: "b"}, {Name: "authorization", Value: s}},
			}
		})},
		{"odd identity", false, withEach(func(r *authz.Record, s string) {
			r.Input.Identity = &authz.Identity{
				Authenticator: s, Kind: s, Subject: s, Issuer: s, Audiences: []string{s, s}, Scopes: []string{s}, Actor: map[string]any{s: s},
				Claims: map[string]any{s: s, "list": []any{s, map[string]any{s: s}}, "password": []any{s}}, TokenHeader: map[string]any{s: s},
			}
		})},
		{"odd surroundings", false, withEach(func(r *authz.Record, s string) {
			r.Input.Route = authz.Route{Name: s, Params: map[string]string{s: s, "token": s}, Upstream: s, Labels: map[string]string{s: s}, Entrypoint: s}
			r.Input.Gateway = &authz.Gateway{Name: s, Version: s, Listener: s, Labels: map[string]string{s: s}}
			r.Input.Source = authz.Source{IP: s, ForwardedFor: []string{s, s}}
			r.Input.TLS = &authz.TLS{Version: s, Cipher: s, ServerName: s, ClientCertificate: &authz.Certificate{Subject: s, Issuer: s, Serial: s, DNSNames: []string{s}, SPIFFEID: s}}
		})},
	}
}

func randomCases() []*authz.Record {
	var out []*authz.Record
	for seed := range uint64(200) {
		out = append(out, randomRecord(seed))
	}
	return out
}

// randomRecord puts odd strings into odd places, the same for a seed each time.
func randomRecord(seed uint64) *authz.Record {
	rnd := rand.New(rand.NewPCG(seed, 1))
	texts := odd()
	text := func() string { return texts[rnd.IntN(len(texts))] }
	list := func() (out []string) {
		for range rnd.IntN(4) {
			out = append(out, text())
		}
		return out
	}
	pairs := func() map[string]string {
		m := map[string]string{}
		for range rnd.IntN(20) {
			m[text()] = text()
		}
		return m
	}
	var claims func(depth int) map[string]any
	claims = func(depth int) map[string]any {
		m := map[string]any{}
		for range rnd.IntN(20) {
			m[text()] = []any{text(), nil, json.Number("1"), rnd.IntN(9)}[rnd.IntN(4)]
		}
		if depth > 0 {
			m[text()], m[text()] = claims(depth-1), []any{text(), claims(depth - 1)}
		}
		return m
	}
	r := golden()
	in := r.Input
	in.Request.Path, in.Request.RawQuery, in.Request.Segments = text(), strings.Join(list(), "&"), list()
	in.Request.Headers = nil
	for range rnd.IntN(50) {
		in.Request.Headers = append(in.Request.Headers, authz.Header{Name: text(), Value: text()})
	}
	in.Identity.Claims, in.Identity.TokenHeader, in.Identity.Audiences = claims(3), claims(0), list()
	in.Route.Params, in.Route.Labels, in.Gateway.Labels = pairs(), pairs(), pairs()
	r.Decision.Labels, r.Decision.Bundles, r.Decision.Headers, r.Decision.Redirect = pairs(), pairs(), pairs(), text()
	r.Decision.Upstream.SetHeaders, r.Decision.Response.SetHeaders = pairs(), pairs()
	return r
}

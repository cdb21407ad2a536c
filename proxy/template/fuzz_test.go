package template

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/engine/authz"
)

// FuzzClaims: whatever stands in a token, a header that is made of it is one header of
// bounded length, and a body is no longer than a body may be.
func FuzzClaims(f *testing.F) {
	h, err := NewHeaders([]Header{
		{"x-one", `{{ .token.Claims.a }}`},
		{"x-all", `{{ .token.Claims }}`},
		{"x-json", `{{ json "" .token.Claims }}`},
		{"x-print", `{{ print .token.Claims.a .token.Claims.b }}`},
		{"x-printf", `{{ printf "%v %s %q %.0f %d" .token.Claims.a .token.Claims.a .token.Claims.a .token.Claims.a .token.Claims.a }}`},
		{"x-range", `{{ range $k, $v := .token.Claims }}{{ $k }}={{ $v }},{{ end }}`},
		{"x-url", `{{ urlquery .token.Claims.a }}{{ html .token.Claims.a }}{{ js .token.Claims.a }}`},
		{"x-has", `{{ if hasKey .token.Claims "a" }}{{ hasKey .token.Claims.a "b" }}{{ else }}{{ doNotSet }}{{ end }}`},
	})
	if err != nil {
		f.Fatal(err)
	}
	each := make([]*Headers, len(h.names))
	for i := range h.names {
		each[i] = &Headers{names: h.names[i : i+1], values: h.values[i : i+1]}
	}
	e, err := NewErrors(ErrorResponse{BodyTemplate: `{{ range 100 }}{{ $.httpRequestHeader.Get "a" }}{{ json "" $.message }}{{ end }}`})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		`{}`, `{"a":"b"}`, `{"a":"x\r\nx-user: root"}`, `{"a":null}`, `{"a":[1,[2,[3]]]}`, `{"a":{"b":1}}`, `{"a":1e999}`, `{"a":9007199254740993,"b":-1}`,
		`{"a":"\u0000"}`, `{"a":"ü\u2028"}`, `{"a\nb":1}`, `{"a":true}`, `{"a":"{{ .x }}"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, token []byte) {
		dec := json.NewDecoder(bytes.NewReader(token))
		dec.UseNumber()
		claims := map[string]any{}
		if dec.Decode(&claims) != nil {
			return
		}
		for _, one := range each {
			got, err := one.Render(Caller(&authz.Identity{Authenticated: true, Claims: claims}, Tokens{Access: string(token), ID: string(token)}, nil))
			if err != nil {
				if len(got) > 0 {
					t.Errorf("%s: %v beside %v", token, got, err)
				}
				continue
			}
			for _, h := range got {
				if len(h.Value) > maxValue || strings.ContainsFunc(h.Value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
					t.Errorf("%s: %s is %q", token, h.Name, h.Value)
				}
			}
		}
		_, body, _, err := e.Render(Failure{Status: 403, Message: string(token), Headers: []authz.Header{{Name: "a", Value: string(token)}}})
		if err == nil && len(body) > maxBody {
			t.Errorf("a body of %d bytes", len(body))
		}
	})
}

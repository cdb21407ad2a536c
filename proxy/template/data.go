package template

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"strings"

	"github.com/sallyport/sallyport/engine/authz"
)

// RequestHeader gives templates the headers of the client's request, as
// http.Header does.
type RequestHeader []authz.Header

// Get returns the first value of a header, empty if there is none.
func (h RequestHeader) Get(name string) string {
	for i := range h {
		if strings.EqualFold(h[i].Name, name) {
			return h[i].Value
		}
	}
	return ""
}

// Values returns all values of a header.
func (h RequestHeader) Values(name string) (out []string) {
	for i := range h {
		if strings.EqualFold(h[i].Name, name) {
			out = append(out, h[i].Value)
		}
	}
	return out
}

// Tokens are those of a caller, each empty if there is none.
type Tokens struct {
	Access string // stands for the caller
	ID     string // of a login
}

// Caller returns the data of templates for upstream headers.
func Caller(id *authz.Identity, tokens Tokens, headers []authz.Header) map[string]any {
	if id == nil {
		id = &authz.Identity{}
	}
	return map[string]any{
		"token": map[string]any{
			"Raw": tokens.Access, "Signature": signature(tokens.Access),
			"Header": object(id.TokenHeader), "Claims": object(id.Claims),
		},
		"idToken": idToken(id, tokens.ID),
		"identity": map[string]any{
			"authenticated": id.Authenticated, "authenticator": id.Authenticator, "kind": id.Kind,
			"subject": id.Subject, "issuer": id.Issuer, "audiences": id.Audiences, "scopes": id.Scopes,
		},
		"httpRequestHeader": RequestHeader(headers),
	}
}

// idToken is the ID token of a login. Its claims are those of the identity, which was
// made of them.
func idToken(id *authz.Identity, raw string) map[string]any {
	claims := map[string]any{}
	if id.Kind == "oidc" {
		claims = object(id.Claims)
	}
	return map[string]any{"Raw": raw, "Signature": signature(raw), "Header": joseHeader(raw), "Claims": claims}
}

// joseHeader is the first part of a compact JWS, which whoever handed it on has verified.
func joseHeader(raw string) map[string]any {
	first, _, _ := strings.Cut(raw, ".")
	text, err := base64.RawURLEncoding.DecodeString(first)
	var out map[string]any
	if err != nil || json.Unmarshal(text, &out) != nil {
		return map[string]any{}
	}
	return out
}

// signature is the third part of a compact JWS as it stands there.
func signature(raw string) string {
	_, rest, _ := strings.Cut(raw, ".")
	_, sig, ok := strings.Cut(rest, ".")
	if !ok || strings.Contains(sig, ".") {
		return ""
	}
	return sig
}

// exact reports whether f is the number of a text, as far as that is a whole one: two
// of those that become one float64 may be two people.
func exact(text string, f float64) bool {
	n, isWhole := new(big.Int).SetString(text, 10)
	if len(text) <= 15 || !isWhole {
		return true
	}
	got, _ := new(big.Float).SetFloat64(f).Int(nil)
	return got.Cmp(n) == 0
}

// whole is a whole number that no float64 is. It is written with all of its digits,
// whatever the verb.
type whole json.Number

// Format implements fmt.Formatter.
func (n whole) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, string(n)) }

// MarshalJSON implements json.Marshaler.
func (n whole) MarshalJSON() ([]byte, error) { return []byte(n), nil }

// object returns a copy of claims in which numbers are float64, as they are in
// Edge Stack's templates.
func object(claims map[string]any) map[string]any {
	out := make(map[string]any, len(claims))
	for k, v := range claims {
		out[k] = floats(v)
	}
	return out
}

func floats(v any) any {
	switch v := v.(type) {
	case json.Number:
		f, err := v.Float64()
		if err != nil {
			return v.String() // out of range: its text is better than another number
		}
		if !exact(v.String(), f) {
			return whole(v)
		}
		return f
	case map[string]any:
		return object(v)
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = floats(e)
		}
		return out
	}
	return v
}

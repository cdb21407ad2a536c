package template

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/setting"
)

const unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIiwiZXh0cmEiOiJzbyBtdWNoIn0.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ."

func john() *authz.Identity {
	return &authz.Identity{
		Authenticated: true, Authenticator: "corp", Kind: "jwt", Subject: "1234567890", Scopes: []string{"read", "write"},
		TokenHeader: map[string]any{"alg": "none", "typ": "JWT", "extra": "so much"},
		Claims: map[string]any{
			"sub": "1234567890", "name": "John Doe", "iat": json.Number("1516239022"), "nothing": nil, "huge": json.Number("1e999"),
			"groups": []any{"a", "b"}, "address": map[string]any{"zip": json.Number("8001")}, "split": "a\r\nx-user: root", "many": many(200),
		},
	}
}

func many(n int) (out []any) {
	for range n {
		out = append(out, "x")
	}
	return out
}

// edgeStack are the headers of the JWT filter in Edge Stack's documentation with
// the results that it states; unset is a header that is not sent.
var edgeStack = []struct{ name, value, want string }{
	{"X-Fixed-String", `Fixed String`, "Fixed String"},
	{"X-Token-String", `{{ .token.Raw }}`, unsigned},
	{"X-Token-H-Alg", `{{ .token.Header.alg }}`, "none"},
	{"X-Token-H-Typ", `{{ .token.Header.typ }}`, "JWT"},
	{"X-Token-H-Extra", `{{ .token.Header.extra }}`, "so much"},
	{"X-Token-C-Sub", `{{ .token.Claims.sub }}`, "1234567890"},
	{"X-Token-C-Name", `{{ .token.Claims.name }}`, "John Doe"},
	{"X-Token-C-Optional-Empty", `{{ .token.Claims.optional }}`, ""},
	{"X-Token-C-Optional-Unset", `{{ if hasKey .token.Claims "optional" | not }}{{ doNotSet }}{{ end }}{{ .token.Claims.optional }}`, unset},
	{"X-Token-C-Iat", `{{ .token.Claims.iat }}`, "1.516239022e+09"},
	{"X-Token-C-Iat-Decimal", `{{ printf "%.0f" .token.Claims.iat }}`, "1516239022"},
	{"X-Token-S", `{{ .token.Signature }}`, ""},
	{"X-Authorization", `Authenticated {{ .token.Header.typ }}; sub={{ .token.Claims.sub }}; name={{ printf "%q" .token.Claims.name }}`, `Authenticated JWT; sub=1234567890; name="John Doe"`},
	{"X-UA", `{{ .httpRequestHeader.Get "User-Agent" }}`, "curl/8"},
}

const unset = "\x00unset"

func data() map[string]any {
	return Caller(john(), Tokens{Access: unsigned}, []authz.Header{{Name: "user-agent", Value: "curl/8"}})
}

func TestEdgeStackHeaders(t *testing.T) {
	var config []Header
	var want []authz.Header
	for _, c := range edgeStack {
		config = append(config, Header{c.name, c.value})
		if c.want != unset {
			want = append(want, authz.Header{Name: strings.ToLower(c.name), Value: c.want})
		}
	}
	h, err := NewHeaders(config)
	if err != nil {
		t.Fatal(err)
	}
	got, err := h.Render(data())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if len(h.Names()) != len(edgeStack) {
		t.Errorf("%d names of %d: what is not set has to be taken from the client too", len(h.Names()), len(edgeStack))
	}
}

// TestEdgeStackFile holds the table above to the file that it was written from.
func TestEdgeStackFile(t *testing.T) {
	dir := os.Getenv("SALLYPORT_SHARED")
	if dir == "" {
		t.Skip("SALLYPORT_SHARED does not name the folder with the Edge Stack examples")
	}
	f, err := os.Open(filepath.Join(dir, "edge-stack", "filters.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var filter struct {
		Spec struct {
			JWT struct {
				InjectRequestHeaders []Header `yaml:"injectRequestHeaders"`
				ErrorResponse        struct {
					Headers      []Header
					BodyTemplate string `yaml:"bodyTemplate"`
				} `yaml:"errorResponse"`
			} `yaml:"JWT"`
		}
	}
	if err := yaml.NewDecoder(f).Decode(&filter); err != nil {
		t.Fatal(err)
	}
	var want []Header
	for _, c := range edgeStack {
		want = append(want, Header{c.name, c.value})
	}
	if d := cmp.Diff(want, filter.Spec.JWT.InjectRequestHeaders); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(edgeStackErrors, ErrorResponse(filter.Spec.JWT.ErrorResponse)); d != "" {
		t.Error(d)
	}
}

func render(t *testing.T, value string) ([]authz.Header, error) {
	t.Helper()
	h, err := NewHeaders([]Header{{"x-a", value}})
	if err != nil {
		t.Fatal(err)
	}
	return h.Render(data())
}

func TestValues(t *testing.T) {
	for value, want := range map[string]string{
		`{{ .token.Claims.nothing }}`:                                "",
		`{{ .token.Claims.no.such.thing }}`:                          "",
		`[{{ printf "%s" .token.Claims.no }}]`:                       "[]",
		`[{{ print .token.Claims.no "-" }}]`:                         "[-]",
		`{{ urlquery .token.Claims.name .token.Claims.no }}`:         "John+Doe",
		`{{ .token.Claims.groups }}`:                                 "[a b]",
		`{{ range .token.Claims.groups }}{{ . }},{{ end }}`:          "a,b,",
		`{{ range $i, $g := .token.Claims.groups }}{{ $g }}{{end}}`:  "ab",
		`{{ .token.Claims.address.zip }}`:                            "8001",
		`{{ .token.Claims.huge }}`:                                   "1e999",
		`{{ json "" .token.Claims.address }}`:                        `{"zip":8001}`,
		`{{ .identity.subject }}@{{ .identity.authenticator }}`:      "1234567890@corp",
		`{{ $n := .token.Claims.name }}{{ with $n }}{{ . }}{{end}}`:  "John Doe",
		`{{ range .token.Claims.no }}{{ . }}{{ else }}none{{ end }}`: "none",
		` padded	`: "padded",
		``:         "",
	} {
		got, err := render(t, value)
		if err != nil || len(got) != 1 || got[0].Value != want {
			t.Errorf("%s: %v, %v; want %q", value, got, err, want)
		}
	}
}

func TestValuesThatAreRefused(t *testing.T) {
	for value, want := range map[string]string{
		`{{ .token.Claims.split }}`:                                                       "control character",
		`{{ json "  " .token.Claims.address }}`:                                           "control character",
		`{{ len .token.Claims.no }}`:                                                      "error calling len",
		`{{ .token.Claims.sub.member }}`:                                                  "can't evaluate field",
		`{{ range .token.Claims.many }}{{ printf "%100d" 1 }}{{ end }}`:                   "too long",
		`{{ range .token.Claims.many }}{{ range $.token.Claims.many }}{{ end }}{{ end }}`: "turns",
		`{{ range 1000000000 }}{{ end }}`:                                                 "turns",
		`{{ $ = 1 }}{{ range 5 }}{{ end }}`:                                               "no budget",
		`{{ $x := "ab" }}{{ range 40 }}{{ $x = printf "%s%s" $x $x }}{{ end }}`:           "too long",
		`{{ $x := "ab" }}{{ range 40 }}{{ $x = print $x $x }}{{ end }}`:                   "too long",
		`{{ $x := "ab" }}{{ range 40 }}{{ $x = println $x $x }}{{ end }}`:                 "too long",
		`{{ $x := "<>" }}{{ range 40 }}{{ $x = html $x $x }}{{ end }}`:                    "too long",
		`{{ $x := "''" }}{{ range 40 }}{{ $x = js $x $x }}{{ end }}`:                      "too long",
		`{{ $x := "''" }}{{ range 40 }}{{ $x = urlquery $x $x }}{{ end }}`:                "too long",
		`{{ $x := "''" }}{{ range 40 }}{{ $x = json "" $x | json "" }}{{ end }}`:          "too long",
		`{{ range 10000 }}{{ $x := printf "%999999d" 1 }}{{ end }}`:                       "too long",
	} {
		if got, err := render(t, value); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v; want an error with %q", value, got, err, want)
		}
	}
}

func TestTemplatesThatAreRefused(t *testing.T) {
	for _, c := range []struct{ name, value, key, want string }{
		{"x-a", `{{ .token`, "[1].value", "unclosed action"},
		{"x-a", `{{ nosuch }}`, "[1].value", `function "nosuch" not defined`},
		{"x-a", `{{ define "a" }}{{ template "a" }}{{ end }}`, "[1].value", "not available"},
		{"x-a", `{{ template "template" . }}`, "[1].value", "no template"},
		{"x-a", "a\nb", "[1].value", "control character"},
		{"x-a", strings.Repeat("a", maxValue+1), "[1].value", "longer than"},
		{"", "a", "[1].name", "not a header name"},
		{"x a", "a", "[1].name", "not a header name"},
		{"x_a", "a", "[1].name", "not a header name"},
		{"Content-Length", "1", "[1].name", "gateway's alone"},
		{"X-Forwarded-For", "1", "[1].name", "gateway's alone"},
		{"Host", "1", "[1].name", "gateway's alone"},
		{"X-First", "1", "[1].name", "is set by [0] too"},
	} {
		_, err := NewHeaders([]Header{{"x-first", ""}, {c.name, c.value}})
		problems := setting.Problems(err)
		if len(problems) != 1 || problems[0].Key != c.key || !strings.Contains(problems[0].Error(), c.want) {
			t.Errorf("%s: %.40s: %v; want %s: %s", c.name, c.value, err, c.key, c.want)
		}
	}
}

// TestNumbersStayApart: two numbers that float64 takes for one are two identifiers.
func TestNumbersStayApart(t *testing.T) {
	h, err := NewHeaders([]Header{{"x-a", `{{ .token.Claims.id }} {{ index .token.Claims.ids 0 }}`}, {"x-b", `{{ printf "%.0f" .token.Claims.id }} {{ json "" .token.Claims.ids }}`}})
	if err != nil {
		t.Fatal(err)
	}
	for number, want := range map[string]string{
		"9007199254740993": "9007199254740993", "9007199254740992": "9.007199254740992e+15", "-9007199254740993": "-9007199254740993",
		"123456789012345678901234567890": "123456789012345678901234567890", "1516239022": "1.516239022e+09", "7": "7", "0.1": "0.1",
		"1e2": "100", "12345678901234567.5": "1.2345678901234568e+16", "100000000000000000000": "1e+20",
	} {
		n := json.Number(number)
		got, err := h.Render(Caller(&authz.Identity{Claims: map[string]any{"id": n, "ids": []any{n}}}, Tokens{}, nil))
		if err != nil || len(got) != 2 || got[0].Value != want+" "+want {
			t.Errorf("%s: %v, %v; want %q", number, got, err, want)
		}
		if whole := number + " [" + number + "]"; want == number && number != "0.1" && got[1].Value != whole {
			t.Errorf("%s: written in full it is %q", number, got[1].Value)
		}
	}
}

// Whoever has no token has nothing of one.
func TestCallersWithoutToken(t *testing.T) {
	h, err := NewHeaders([]Header{{"x-a", `{{ .token.Raw }}{{ .token.Signature }}{{ .token.Header.alg }}{{ .token.Claims.sub }}{{ .identity.subject }}{{ .idToken.Raw }}{{ .idToken.Signature }}{{ .idToken.Header.alg }}{{ .idToken.Claims.sub }}`}})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []*authz.Identity{nil, {}} {
		got, err := h.Render(Caller(id, Tokens{}, nil))
		if err != nil || len(got) != 1 || got[0].Value != "" {
			t.Errorf("%v, %v", got, err)
		}
	}
}

// TestIDToken: what Edge Stack's OAuth2 filter has beside the access token.
func TestIDToken(t *testing.T) {
	const value = `{{ .idToken.Raw }} {{ .idToken.Header.alg }} {{ .idToken.Claims.email }} {{ .idToken.Signature }} {{ .token.Raw }}`
	h, err := NewHeaders([]Header{{"x-a", value}})
	if err != nil {
		t.Fatal(err)
	}
	alice := &authz.Identity{Authenticated: true, Kind: "oidc", Subject: "alice", Claims: map[string]any{"email": "alice@example.com"}}
	const raw = "eyJhbGciOiJFUzI1NiJ9.e30.c2ln"
	for _, tc := range []struct {
		name   string
		id     *authz.Identity
		tokens Tokens
		want   string
	}{
		{"a login", alice, Tokens{Access: "at", ID: raw}, raw + " ES256 alice@example.com c2ln at"},
		{"a session too large to keep the token", alice, Tokens{Access: "at"}, "  alice@example.com  at"},
		{"garbage", alice, Tokens{ID: "x.y"}, "x.y  alice@example.com"},
		{"a bearer token", john(), Tokens{Access: "at"}, "at"},
	} {
		got, err := h.Render(Caller(tc.id, tc.tokens, nil))
		if err != nil || len(got) != 1 || got[0].Value != strings.TrimSpace(tc.want) {
			t.Errorf("%s: %v, %v, want %q", tc.name, got, err, tc.want)
		}
	}
}

func TestSignatures(t *testing.T) {
	for raw, want := range map[string]string{"": "", "opaque": "", "a.b": "", "a.b.": "", "a.b.c": "c", "a.b.c.d.e": ""} {
		if got := signature(raw); got != want {
			t.Errorf("%q: %q, want %q", raw, got, want)
		}
	}
}

func TestRenderingIsIndependent(t *testing.T) {
	h, err := NewHeaders([]Header{{"x-a", `{{ range 6000 }}{{ end }}`}, {"x-b", `{{ range 6000 }}{{ end }}ok`}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := h.Render(data())
	if err != nil || len(got) != 2 || got[1].Value != "ok" {
		t.Errorf("one header's loops count for another: %v, %v", got, err)
	}
}

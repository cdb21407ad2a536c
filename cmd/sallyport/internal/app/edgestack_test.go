package app

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/edgestack"
)

// importedGateway is a gateway that runs what is imported of Edge Stack's examples,
// with the service and the keys put to where they are here.
type importedGateway struct {
	url  string
	key  ed25519.PrivateKey
	seen chan http.Header // what the service was shown
}

func importFilters(t *testing.T, unsigned bool) *importedGateway {
	t.Helper()
	data, err := os.ReadFile("../edgestack/testdata/filters.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return importGateway(t, data, unsigned)
}

func importGateway(t *testing.T, data []byte, unsigned bool) *importedGateway {
	t.Helper()
	res, err := edgestack.Import([]edgestack.File{{Name: "filters.yaml", Data: data}}, edgestack.Options{
		Issuers: map[string]string{"jwt": "https://idp.example"}, AllowUnsigned: unsigned,
	})
	if err != nil {
		t.Fatal(err)
	}
	g := &importedGateway{seen: make(chan http.Header, 1)}
	service := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { g.seen <- r.Header }))
	t.Cleanup(service.Close)
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	g.key = key
	dir, address := t.TempDir(), free(t)
	g.url = "http://" + address
	text := strings.NewReplacer(
		"127.0.0.1:8080", address,
		"https://my-service", service.URL,
		"jwks_url: https://idp.example/.well-known/jwks.json", "jwks_file: jwks.json",
		"    tls:\n      cert_file: secrets/upstream-certs/tls.crt\n      key_file: secrets/upstream-certs/tls.key\n", "    idle_timeout: 20ms\n",
		"policy:\n", "admin: {address: \""+free(t)+"\"}\npolicy:\n",
	).Replace(string(res.Config))
	for name, data := range map[string]string{
		"sallyport.yaml": text, edgestack.PolicyFile: string(res.Policy),
		"jwks.json": `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","alg":"EdDSA","use":"sig","x":"` + base64.RawURLEncoding.EncodeToString(pub) + `"}]}`,
	} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run(t, build(t, dir))
	return g
}

// sample is the token of Edge Stack's example with what is asked for here beside it:
// issuer, audience, expiry and the scopes of the example's own FilterPolicy.
func sample(t *testing.T, alg string, change map[string]any) (input string) {
	t.Helper()
	claims := map[string]any{
		"sub": "1234567890", "name": "John Doe", "iat": 1516239022,
		"iss": "https://idp.example", "aud": "myapp", "exp": time.Now().Add(time.Hour).Unix(), "scope": "read write",
	}
	maps.Copy(claims, change)
	part := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	header := map[string]any{"alg": alg, "typ": "JWT", "extra": "so much"}
	if alg != "none" {
		header["kid"] = "k"
	}
	return part(header) + "." + part(claims) + "."
}

func (g *importedGateway) signed(t *testing.T, change map[string]any) string {
	input := sample(t, "EdDSA", change)
	return input + base64.RawURLEncoding.EncodeToString(ed25519.Sign(g.key, []byte(strings.TrimSuffix(input, "."))))
}

func (g *importedGateway) get(t *testing.T, path, token string, headers map[string]string) (status int, header http.Header, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(text)
}

// unset is a header that the service is not shown.
const unset = "\x00unset"

// TestImportedHeaders: the service is shown what Edge Stack's documentation states
// for its example, header by header, and nothing of what the client sends under
// those names.
func TestImportedHeaders(t *testing.T) {
	g := importFilters(t, true)
	for alg, token := range map[string]string{"none": sample(t, "none", nil), "EdDSA": g.signed(t, nil)} {
		g.wantHeaders(t, alg, token)
	}
}

// wantHeaders demands that the service is shown what the documentation states.
func (g *importedGateway) wantHeaders(t *testing.T, alg, token string) {
	t.Helper()
	want := map[string]string{
		"X-Fixed-String":           "Fixed String",
		"X-Token-String":           token,
		"X-Token-H-Alg":            alg,
		"X-Token-H-Typ":            "JWT",
		"X-Token-H-Extra":          "so much",
		"X-Token-C-Sub":            "1234567890",
		"X-Token-C-Name":           "John Doe",
		"X-Token-C-Optional-Empty": "",
		"X-Token-C-Optional-Unset": unset,
		"X-Token-C-Iat":            "1.516239022e+09",
		"X-Token-C-Iat-Decimal":    "1516239022",
		"X-Token-S":                token[strings.LastIndexByte(token, '.')+1:],
		"X-Authorization":          `Authenticated JWT; sub=1234567890; name="John Doe"`,
		"X-Ua":                     "tester/1",
	}
	sent := map[string]string{"User-Agent": "tester/1"}
	for name := range want {
		sent[name] = "the client's"
	}
	if status, _, body := g.get(t, "/myservice/x", token, sent); status != http.StatusOK {
		t.Fatalf("%s: status %d: %s", alg, status, body)
	}
	seen := <-g.seen
	got := map[string]string{}
	for name := range want {
		got[name] = unset
		if values, there := seen[name]; there {
			got[name] = strings.Join(values, " and ")
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s: %s", alg, d)
	}
	if a := seen.Get("Authorization"); a != "" {
		t.Errorf("%s: the service is shown %q", alg, a)
	}
}

// sampleToken is the token of Edge Stack's example to the letter. It has neither
// issuer, audience nor expiry, and no scopes.
const sampleToken = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIiwiZXh0cmEiOiJzbyBtdWNoIn0.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ."

// TestImportedSample: the example's own token gives the example's own results where
// somebody insists on unsigned tokens, and no rule of a FilterPolicy asks for scopes.
func TestImportedSample(t *testing.T) {
	data, err := os.ReadFile("../edgestack/testdata/filters.yaml")
	if err != nil {
		t.Fatal(err)
	}
	const scopes = ", arguments: {scope: [read, write]}"
	if !strings.Contains(string(data), scopes) {
		t.Fatal("the example's FilterPolicy asks for other scopes")
	}
	g := importGateway(t, []byte(strings.Replace(string(data), scopes, "", 1)), true)
	g.wantHeaders(t, "none", sampleToken)

	if status, _, _ := importFilters(t, true).get(t, "/myservice/x", sampleToken, nil); status != http.StatusForbidden {
		t.Errorf("without the scopes that the FilterPolicy asks for: status %d, want 403", status)
	}
}

// TestImportedRefusals: what the filter and its policy refuse, in the form that the
// filter gives errors.
func TestImportedRefusals(t *testing.T) {
	g := importFilters(t, false)
	for name, c := range map[string]struct {
		path, token string
		status      int
		body        string
	}{
		"unsigned":      {"/myservice/x", sample(t, "none", nil), 401, `"httpStatus": "401"`},
		"the article's": {"/myservice/x", sampleToken, 401, `"httpStatus": "401"`},
		"no token":      {"/myservice/x", "", 401, `"httpStatus": "401"`},
		"expired":       {"/myservice/x", g.signed(t, map[string]any{"exp": 1516239023}), 401, `"altErrorMessage": "expired"`},
		"audience":      {"/myservice/x", g.signed(t, map[string]any{"aud": "other"}), 401, `"altErrorMessage": "invalid"`},
		"one scope":     {"/myservice/x", g.signed(t, map[string]any{"scope": "read"}), 403, `"httpStatus": "403"`},
		"bare path":     {"/myservice", g.signed(t, nil), 403, ""},
		"no Mapping":    {"/other", g.signed(t, nil), 404, ""},
	} {
		status, header, body := g.get(t, c.path, c.token, map[string]string{"X-Correlation-ID": "c-1"})
		if status != c.status || !strings.Contains(body, c.body) {
			t.Errorf("%s: got %d %s, want %d with %s", name, status, body, c.status, c.body)
		}
		if c.body != "" && (header.Get("X-Correlation-Id") != "c-1" || header.Get("Content-Type") != "application/json" || !json.Valid([]byte(body))) {
			t.Errorf("%s: %v %s is not the filter's error", name, header, body)
		}
		select {
		case <-g.seen:
			t.Errorf("%s: the service was asked", name)
		default:
		}
	}
}

// TestImportedExampleIsTheSharedOne: the copy of the example is the example.
func TestImportedExampleIsTheSharedOne(t *testing.T) {
	shared := os.Getenv("SALLYPORT_SHARED")
	if shared == "" {
		t.Skip("SALLYPORT_SHARED does not name the folder with the Edge Stack examples")
	}
	want, err := os.ReadFile(filepath.Join(shared, "edge-stack", "filters.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../edgestack/testdata/filters.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Error(d)
	}
}

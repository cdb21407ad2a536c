package signedheader

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn"
)

var testNow = time.Unix(1_780_000_000, 0)

// members are a JSON object; nil values of changes take one away.
type members map[string]any

func (m members) with(changes members) members {
	out := members{}
	maps.Copy(out, m)
	for k, v := range changes {
		if out[k] = v; v == nil {
			delete(out, k)
		}
	}
	return out
}

func marshal(t testing.TB, m members) []byte {
	t.Helper()
	out, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// sign makes a token as enc writes its parts.
func sign(t testing.TB, enc *base64.Encoding, key any, header, claims members) string {
	t.Helper()
	input := enc.EncodeToString(marshal(t, header)) + "." + enc.EncodeToString(marshal(t, claims))
	sum := sha256.Sum256([]byte(input))
	var signature []byte
	var err error
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		var r, s *big.Int
		r, s, err = ecdsa.Sign(rand.Reader, k, sum[:])
		signature = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	case *rsa.PrivateKey:
		signature, err = rsa.SignPKCS1v15(rand.Reader, k, crypto.SHA256, sum[:])
	case []byte:
		m := hmac.New(sha256.New, k)
		m.Write([]byte(input))
		signature = m.Sum(nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + enc.EncodeToString(signature)
}

func newEC(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newRSA(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// publish serves a key set with the public half of key.
func publish(t *testing.T, key any) string {
	t.Helper()
	jwk := members{"kid": "k1", "use": "sig"}
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		jwk = jwk.with(members{"kty": "EC", "crv": "P-256", "alg": "ES256", "x": b64(k.X.FillBytes(make([]byte, 32))), "y": b64(k.Y.FillBytes(make([]byte, 32)))})
	case *rsa.PrivateKey:
		jwk = jwk.with(members{"kty": "RSA", "alg": "RS256", "n": b64(k.N.Bytes()), "e": "AQAB"})
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(members{"keys": []any{jwk}, "public_cert": members{}})
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func newTest(t *testing.T, c Config) *Authenticator {
	t.Helper()
	a, err := New("front", c, Deps{Now: func() time.Time { return testNow }})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { _ = a.Run(t.Context()) })
	t.Cleanup(running.Wait)
	if err := a.Prime(t.Context()); err != nil {
		t.Fatal(err)
	}
	return a
}

func carry(header string, values ...string) *authn.Request {
	r := &authn.Request{Now: testNow, Client: "192.0.2.1"}
	for _, v := range values {
		r.Headers = append(r.Headers, authz.Header{Name: header, Value: v})
	}
	return r
}

// provider is a preset with what its provider signs.
type provider struct {
	config         Config
	header         string
	key            any
	head, claims   members
	subject        string
	otherAlgorithm string
}

func providers(t *testing.T) map[string]provider {
	ec, rsaKey := newEC(t), newRSA(t)
	iat, exp := testNow.Unix()-10, testNow.Unix()+590
	const tenant = "11111111-2222-3333-4444-555555555555"
	return map[string]provider{
		"google_iap": {
			config: Config{Audiences: []string{"/projects/123456/global/backendServices/987"}, KeysURL: publish(t, ec)},
			header: "x-goog-iap-jwt-assertion", key: ec, head: members{"alg": "ES256", "typ": "JWT", "kid": "k1"},
			claims: members{
				"iss": "https://cloud.google.com/iap", "aud": "/projects/123456/global/backendServices/987", "sub": "accounts.google.com:1234",
				"email": "alice@example.com", "hd": "example.com", "iat": iat, "exp": exp,
			},
			subject: "accounts.google.com:1234", otherAlgorithm: "RS256",
		},
		"cloudflare_access": {
			config: Config{Audiences: []string{"f5c1e0"}, Team: "acme", KeysURL: publish(t, rsaKey)},
			header: "cf-access-jwt-assertion", key: rsaKey, head: members{"alg": "RS256", "typ": "JWT", "kid": "k1"},
			claims: members{
				"iss": "https://acme.cloudflareaccess.com", "aud": []string{"f5c1e0"}, "sub": "7335d417", "email": "alice@example.com",
				"type": "app", "identity_nonce": "6ei69kawdKzMIAPF", "country": "US", "iat": iat, "nbf": iat, "exp": exp,
			},
			subject: "7335d417", otherAlgorithm: "ES256",
		},
		"azure": {
			config: Config{Audiences: []string{"client-1"}, Tenant: tenant, KeysURL: publish(t, rsaKey)},
			header: "x-ms-token-aad-id-token", key: rsaKey, head: members{"alg": "RS256", "typ": "JWT", "kid": "k1"},
			claims: members{
				"iss": "https://login.microsoftonline.com/" + tenant + "/v2.0", "aud": "client-1", "sub": "AAAAA", "tid": tenant, "ver": "2.0",
				"nonce": "n", "c_hash": "LDktKdoQak3Pk0cnXxCltA", "iat": iat, "nbf": iat, "exp": exp,
			},
			subject: "AAAAA", otherAlgorithm: "ES256",
		},
		"custom": {
			config: Config{Audiences: []string{"orders"}, Header: "X-Ingress-Jwt", Issuer: "https://ingress.example", Algorithms: []string{"ES256"}, KeysURL: publish(t, ec)},
			header: "x-ingress-jwt", key: ec, head: members{"alg": "ES256", "kid": "k1"},
			claims:  members{"iss": "https://ingress.example", "aud": "orders", "sub": "alice", "iat": iat, "exp": exp},
			subject: "alice", otherAlgorithm: "RS256",
		},
	}
}

func TestPresets(t *testing.T) {
	for name, p := range providers(t) {
		t.Run(name, func(t *testing.T) {
			p.config.Preset = name
			a := newTest(t, p.config)
			good := sign(t, base64.RawURLEncoding, p.key, p.head, p.claims)
			r := carry(p.header, good)
			id, err := a.Authenticate(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			if !id.Authenticated || id.Kind != "signed_header" || id.Authenticator != "front" || id.Subject != p.subject || id.Issuer != p.claims["iss"] {
				t.Errorf("identity is %+v", id)
			}
			if spent, _ := r.Spent(); !cmp.Equal(spent, []string{p.header}) || !cmp.Equal(a.CredentialHeaders(), spent) || r.Token != "" {
				t.Errorf("spent %q, hidden %q, token %q", spent, a.CredentialHeaders(), r.Token)
			}
			p.refuses(t, a, good)
		})
	}
}

func (p *provider) refuses(t *testing.T, a *Authenticator, good string) {
	signed := func(head, claims members) string {
		return sign(t, base64.RawURLEncoding, p.key, p.head.with(head), p.claims.with(claims))
	}
	var stranger any = newEC(t)
	if _, ok := p.key.(*rsa.PrivateKey); ok {
		stranger = newRSA(t)
	}
	parts := strings.Split(good, ".")
	for name, token := range map[string]string{
		"empty":                "",
		"no token":             "alice@example.com",
		"wrong audience":       signed(nil, members{"aud": "/projects/999/global/backendServices/1"}),
		"no audience":          signed(nil, members{"aud": nil}),
		"wrong issuer":         signed(nil, members{"iss": "https://evil.example"}),
		"no issuer":            signed(nil, members{"iss": nil}),
		"expired":              signed(nil, members{"iat": testNow.Unix() - 600, "exp": testNow.Unix() - 30}),
		"no expiry":            signed(nil, members{"exp": nil}),
		"of the future":        signed(nil, members{"iat": testNow.Unix() + 60, "exp": testNow.Unix() + 120}),
		"alg none":             b64(marshal(t, p.head.with(members{"alg": "none"}))) + "." + parts[1] + ".",
		"alg HS256":            sign(t, base64.RawURLEncoding, []byte("secret"), p.head.with(members{"alg": "HS256"}), p.claims),
		"another algorithm":    signed(members{"alg": p.otherAlgorithm}, nil),
		"other key, same kid":  sign(t, base64.RawURLEncoding, stranger, p.head, p.claims),
		"other key, no kid":    sign(t, base64.RawURLEncoding, stranger, p.head.with(members{"kid": nil}), p.claims),
		"foreign kid":          signed(members{"kid": "k2"}, nil),
		"key along with it":    signed(members{"jwk": members{"kty": "oct"}}, nil),
		"other claims":         parts[0] + "." + b64(marshal(t, p.claims.with(members{"sub": "admin"}))) + "." + parts[2],
		"no signature":         parts[0] + "." + parts[1] + ".",
		"padded":               parts[0] + "=." + parts[1] + "." + parts[2],
		"as a bearer token is": "Bearer " + good,
	} {
		if id, err := a.Authenticate(t.Context(), carry(p.header, token)); !errors.Is(err, authn.ErrInvalid) || errors.Is(err, authn.ErrNotMine) {
			t.Errorf("%s: got %v, %v; want ErrInvalid", name, id, err)
		}
	}
	for name, tt := range map[string]struct {
		request *authn.Request
		want    error
	}{
		"twice":             {carry(p.header, good, good), authn.ErrInvalid},
		"no header":         {carry(p.header), authn.ErrNotMine},
		"another header":    {carry("x-other", good), authn.ErrNotMine},
		"as a bearer token": {&authn.Request{Authorization: "Bearer " + good, Now: testNow}, authn.ErrNotMine},
	} {
		if _, err := a.Authenticate(t.Context(), tt.request); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
	}
	later := carry(p.header, good)
	later.Now = testNow.Add(11 * time.Minute)
	if _, err := a.Authenticate(t.Context(), later); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("a token that was good, after it expired: %v", err)
	}
}

// TestLifetimeOfIAP: what is good for longer than IAP signs was not made by it.
func TestLifetimeOfIAP(t *testing.T) {
	p := providers(t)["google_iap"]
	p.config.Preset = "google_iap"
	a := newTest(t, p.config)
	for seconds, want := range map[int64]error{660: nil, 661: authn.ErrInvalid} {
		token := sign(t, base64.RawURLEncoding, p.key, p.head, p.claims.with(members{"iat": testNow.Unix(), "exp": testNow.Unix() + seconds}))
		if _, err := a.Authenticate(t.Context(), carry(p.header, token)); !errors.Is(err, want) {
			t.Errorf("%d s: got %v, want %v", seconds, err, want)
		}
	}
	token := sign(t, base64.RawURLEncoding, p.key, p.head, p.claims.with(members{"iat": nil}))
	if _, err := a.Authenticate(t.Context(), carry(p.header, token)); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("without iat: got %v", err)
	}
}

// TestKeysUnavailable: until there are keys nobody enters, and nobody is refused for
// good.
func TestKeysUnavailable(t *testing.T) {
	p := providers(t)["google_iap"]
	p.config.Preset, p.config.KeysURL = "google_iap", "http://127.0.0.1:1/keys"
	a, err := New("front", p.config, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Prime(t.Context()); err == nil {
		t.Error("keys came from nowhere")
	}
	token := sign(t, base64.RawURLEncoding, p.key, p.head, p.claims)
	if _, err := a.Authenticate(t.Context(), carry(p.header, token)); !errors.Is(err, authn.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

const testSigner = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/front/50dc6c495c0c9188"

func TestValidate(t *testing.T) {
	const tenant = "11111111-2222-3333-4444-555555555555"
	for name, tt := range map[string]struct {
		config Config
		keys   []string
	}{
		"aws_alb":                    {Config{Preset: "aws_alb", Signers: []string{testSigner}}, nil},
		"aws_alb of the government":  {Config{Preset: "aws_alb", Signers: []string{strings.Replace(testSigner, "arn:aws:", "arn:aws-us-gov:", 1)}}, nil},
		"aws_alb of China":           {Config{Preset: "aws_alb", Signers: []string{strings.Replace(testSigner, "arn:aws:", "arn:aws-cn:", 1)}}, []string{"keys_url"}},
		"aws_alb for anybody":        {Config{Preset: "aws_alb"}, []string{"signers"}},
		"aws_alb with a pattern":     {Config{Preset: "aws_alb", Signers: []string{"arn:aws:elasticloadbalancing:*"}}, []string{"signers"}},
		"aws_alb with an audience":   {Config{Preset: "aws_alb", Signers: []string{testSigner}, Audiences: []string{"a"}}, []string{"audiences"}},
		"aws_alb, empty signer":      {Config{Preset: "aws_alb", Signers: []string{testSigner, ""}}, []string{"signers"}},
		"google_iap":                 {Config{Preset: "google_iap", Audiences: []string{"/projects/1/apps/x"}}, nil},
		"google_iap for anybody":     {Config{Preset: "google_iap"}, []string{"audiences"}},
		"google_iap, other audience": {Config{Preset: "google_iap", Audiences: []string{"x.apps.googleusercontent.com"}}, []string{"audiences"}},
		"cloudflare_access":          {Config{Preset: "cloudflare_access", Team: "acme", Audiences: []string{"a"}}, nil},
		"cloudflare_access, URL":     {Config{Preset: "cloudflare_access", Team: "evil.example/", Audiences: []string{"a"}}, []string{"team"}},
		"cloudflare_access, bare":    {Config{Preset: "cloudflare_access"}, []string{"audiences", "team"}},
		"azure":                      {Config{Preset: "azure", Tenant: tenant, Audiences: []string{"a"}}, nil},
		"azure, any tenant":          {Config{Preset: "azure", Tenant: "common", Audiences: []string{"a"}}, []string{"tenant"}},
		"custom":                     {Config{Preset: "custom", Header: "X-Jwt", Issuer: "https://idp.example", Audiences: []string{"a"}}, nil},
		"custom, bare":               {Config{Preset: "custom"}, []string{"audiences", "header", "issuer"}},
		"custom, unsigned":           {Config{Preset: "custom", Header: "X-MS-Client-Principal", Issuer: "https://idp.example", Audiences: []string{"a"}}, []string{"header"}},
		"custom, ours":               {Config{Preset: "custom", Header: "Authorization", Issuer: "https://idp.example", Audiences: []string{"a"}}, []string{"header"}},
		"custom, none":               {Config{Preset: "custom", Header: "x-jwt", Issuer: "https://idp.example", Audiences: []string{"a"}, Algorithms: []string{"none"}}, []string{"algorithms"}},
		"no preset":                  {Config{}, []string{"preset"}},
		"keys over plain HTTP":       {Config{Preset: "google_iap", Audiences: []string{"/projects/1/apps/x"}, KeysURL: "http://keys.example"}, []string{"keys_url"}},
		"said to be insecure":        {Config{Preset: "google_iap", Audiences: []string{"/projects/1/apps/x"}, KeysURL: "http://keys.example", InsecureHTTP: true}, nil},
	} {
		seen := map[string]bool{}
		for _, p := range setting.Problems(tt.config.Validate()) {
			seen[p.Key] = true
		}
		want := map[string]bool{}
		for _, k := range tt.keys {
			want[k] = true
		}
		if d := cmp.Diff(want, seen); d != "" {
			t.Errorf("%s: %v\n%s", name, tt.config.Validate(), d)
		}
	}
	if (&Config{}).Insecure() != nil || (&Config{InsecureHTTP: true}).Insecure()["insecure_http"] == "" {
		t.Error("insecure_http is not what is called insecure")
	}
}

func TestUnsignedHeaders(t *testing.T) {
	for name, p := range presets() {
		if name != "custom" && len(p.unsigned) == 0 {
			t.Errorf("%s has none", name)
		}
	}
	a := newTest(t, Config{Preset: "aws_alb", Signers: []string{testSigner}})
	if d := cmp.Diff([]string{"x-amzn-oidc-identity", "x-amzn-oidc-accesstoken"}, a.UnsignedHeaders()); d != "" {
		t.Error(d)
	}
	if got := a.Challenge(nil); got != `SignedHeader realm="x-amzn-oidc-data"` {
		t.Errorf("challenge is %s", got)
	}
}

// TestAzureHeaders: what App Service documents to set without a signature ("Work with
// user identities", "Work with OAuth tokens") is dropped.
func TestAzureHeaders(t *testing.T) {
	a, err := New("easyauth", Config{Preset: "azure", Tenant: "11111111-2222-3333-4444-555555555555", Audiences: []string{"app"}}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	for provider, tokens := range map[string][]string{
		"client-principal": {"", "-id", "-name", "-idp"},
		"token-aad":        {"-access-token", "-expires-on", "-refresh-token"},
		"token-google":     {"-access-token", "-expires-on", "-refresh-token"},
		"token-facebook":   {"-access-token", "-expires-on"},
		"token-twitter":    {"-access-token", "-access-token-secret"},
	} {
		for _, token := range tokens {
			if name := "x-ms-" + provider + token; !slices.Contains(a.UnsignedHeaders(), name) {
				t.Errorf("%s passes", name)
			}
		}
	}
	for _, name := range []string{"x-ms-token-aad-id-token", "x-ms-token-google-id-token"} {
		if slices.Contains(a.UnsignedHeaders(), name) {
			t.Errorf("%s, which is signed, counts as unsigned", name)
		}
	}
}

func TestNotMineIsFree(t *testing.T) {
	a := newTest(t, Config{Preset: "aws_alb", Signers: []string{testSigner}})
	r := carry("accept", "*/*")
	if n := testing.AllocsPerRun(100, func() {
		if _, err := a.Authenticate(t.Context(), r); !errors.Is(err, authn.ErrNotMine) {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// Used by the tests of alb.
func kid(n int) string { return fmt.Sprintf("12345678-1234-1234-1234-%012d", n) }

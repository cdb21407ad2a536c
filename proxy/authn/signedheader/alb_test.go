package signedheader

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/limit"
)

func pemOf(t *testing.T, k *ecdsa.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// elb serves keys as AWS does, and counts who asks.
type elb struct {
	mu    sync.Mutex
	pages map[string]string // path: PEM, or a status
	asked int
	url   string
}

func serveKeys(t *testing.T, pages map[string]string) *elb {
	t.Helper()
	e := &elb{pages: pages}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.asked++
		text, ok := e.pages[r.URL.Path]
		switch {
		case !ok:
			http.Error(w, "AccessDenied", http.StatusForbidden)
		case text == "":
			http.Error(w, "down", http.StatusInternalServerError)
		default:
			_, _ = io.WriteString(w, text) // the client may have gone
		}
	}))
	t.Cleanup(s.Close)
	e.url = s.URL
	return e
}

func (e *elb) set(path, text string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pages[path] = text
}

func (e *elb) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.asked
}

var (
	albHead = members{
		"typ": "JWT", "alg": "ES256", "kid": kid(1), "signer": testSigner, "iss": "https://idp.example", "client": "client-1",
		"exp": testNow.Unix() + 120,
	}
	albClaims = members{"sub": "alice", "email": "alice@example.com", "exp": testNow.Unix() + 120, "iss": "https://idp.example"}
)

func TestALB(t *testing.T) {
	key, stranger := newEC(t), newEC(t)
	keys := serveKeys(t, map[string]string{"/" + kid(1): pemOf(t, key), "/" + kid(3): "garbage", "/" + kid(4): strings.Repeat("x", maxPEM+1)})
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys.set("/"+kid(5), pemOf(t, p384))
	a := newTest(t, Config{Preset: "aws_alb", Signers: []string{testSigner}, ClientIDs: []string{"client-1"}, KeysURL: keys.url})
	padded, raw := base64.URLEncoding, base64.RawURLEncoding
	signed := func(head, claims members) string {
		return sign(t, padded, key, albHead.with(head), albClaims.with(claims))
	}
	good := signed(nil, nil)
	if !strings.Contains(good, "=") {
		t.Fatal("the token has no padding to be read")
	}
	for range 2 {
		id, err := a.Authenticate(t.Context(), carry("x-amzn-oidc-data", good))
		if err != nil {
			t.Fatal(err)
		}
		if !id.Authenticated || id.Kind != "signed_header" || id.Subject != "alice" || id.Issuer != "https://idp.example" ||
			id.Claims["email"] != "alice@example.com" || !id.ExpiresAt.Equal(testNow.Add(2*time.Minute)) {
			t.Errorf("identity is %+v", id)
		}
	}
	parts := strings.Split(good, ".")
	for name, tt := range map[string]struct {
		token string
		want  error
	}{
		"without padding":      {sign(t, raw, key, albHead, albClaims), nil},
		"claims without exp":   {signed(nil, members{"exp": nil}), nil},
		"wrong signer":         {signed(members{"signer": strings.Replace(testSigner, "123456789012", "210987654321", 1)}, nil), authn.ErrInvalid},
		"longer signer":        {signed(members{"signer": testSigner + "0"}, nil), authn.ErrInvalid},
		"no signer":            {signed(members{"signer": nil}, nil), authn.ErrInvalid},
		"signer as a list":     {signed(members{"signer": []string{testSigner}}, nil), authn.ErrInvalid},
		"other client":         {signed(members{"client": "client-2"}, nil), authn.ErrInvalid},
		"no client":            {signed(members{"client": nil}, nil), authn.ErrInvalid},
		"no issuer":            {signed(members{"iss": nil}, nil), authn.ErrInvalid},
		"expired":              {signed(members{"exp": testNow.Unix() - 30}, nil), authn.ErrInvalid},
		"within the leeway":    {signed(members{"exp": testNow.Unix() - 29}, nil), nil},
		"no expiry":            {signed(members{"exp": nil}, nil), authn.ErrInvalid},
		"expiry as text":       {signed(members{"exp": "1880000000"}, nil), authn.ErrInvalid},
		"claims expired":       {signed(nil, members{"exp": testNow.Unix() - 30}), authn.ErrInvalid},
		"no subject":           {signed(nil, members{"sub": nil}), authn.ErrInvalid},
		"alg none":             {padded.EncodeToString(marshal(t, albHead.with(members{"alg": "none"}))) + "." + parts[1] + ".", authn.ErrInvalid},
		"alg HS256":            {sign(t, padded, []byte(pemOf(t, key)), albHead.with(members{"alg": "HS256"}), albClaims), authn.ErrInvalid},
		"alg missing":          {signed(members{"alg": nil}, nil), authn.ErrInvalid},
		"crit":                 {signed(members{"crit": []string{"exp"}}, nil), authn.ErrInvalid},
		"jku":                  {signed(members{"jku": "https://evil.example"}, nil), authn.ErrInvalid},
		"other key, same kid":  {sign(t, padded, stranger, albHead, albClaims), authn.ErrInvalid},
		"missing kid":          {signed(members{"kid": nil}, nil), authn.ErrInvalid},
		"kid that is a path":   {signed(members{"kid": "../" + kid(1)}, nil), authn.ErrInvalid},
		"kid with a query":     {signed(members{"kid": kid(1) + "?"}, nil), authn.ErrInvalid},
		"foreign kid":          {signed(members{"kid": kid(2)}, nil), authn.ErrInvalid},
		"key is garbage":       {signed(members{"kid": kid(3)}, nil), authn.ErrUnavailable},
		"key is huge":          {signed(members{"kid": kid(4)}, nil), authn.ErrUnavailable},
		"key of another curve": {signed(members{"kid": kid(5)}, nil), authn.ErrUnavailable},
		"other claims":         {parts[0] + "." + padded.EncodeToString(marshal(t, albClaims.with(members{"sub": "admin"}))) + "." + parts[2], authn.ErrInvalid},
		"no signature":         {parts[0] + "." + parts[1] + ".", authn.ErrInvalid},
		"more padding":         {parts[0] + "." + parts[1] + "=." + parts[2], authn.ErrInvalid},
		"line break":           {parts[0] + "\n." + parts[1] + "." + parts[2], authn.ErrInvalid},
		"four parts":           {good + ".x", authn.ErrInvalid},
		"too long":             {good + strings.Repeat("A", maxToken), authn.ErrInvalid},
		"empty":                {"", authn.ErrInvalid},
	} {
		if id, err := a.Authenticate(t.Context(), carry("x-amzn-oidc-data", tt.token)); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, %v; want %v", name, id, err, tt.want)
		}
	}
	if _, err := a.Authenticate(t.Context(), carry("x-amzn-oidc-data", good, good)); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("twice: got %v", err)
	}
	if _, err := a.Authenticate(t.Context(), carry("x-amzn-oidc-identity", "alice")); !errors.Is(err, authn.ErrNotMine) {
		t.Errorf("the unsigned header: got %v", err)
	}
	late := carry("x-amzn-oidc-data", good)
	late.Now = testNow.Add(3 * time.Minute)
	if _, err := a.Authenticate(t.Context(), late); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("a header that was good, after it expired: %v", err)
	}
}

// TestALBKeys: a key is fetched once, taken back when it is gone, kept while its
// server is down, and made-up kids cause few fetches.
func TestALBKeys(t *testing.T) {
	key := newEC(t)
	keys := serveKeys(t, map[string]string{"/" + kid(1): pemOf(t, key)})
	now := testNow
	c := Config{Preset: "aws_alb", Signers: []string{testSigner}, KeysURL: keys.url + "/", VerificationLimit: limit.Config{Burst: 1000}}
	a, err := New("front", c, Deps{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	present := func(id string) error {
		n++
		token := sign(t, base64.URLEncoding, key, albHead.with(members{"kid": id, "exp": now.Unix() + 100 + int64(n)}), albClaims.with(members{"exp": nil}))
		r := carry("x-amzn-oidc-data", token)
		r.Now = now
		_, err := a.Authenticate(t.Context(), r)
		return err
	}
	expect := func(what, id string, want error, asked int) {
		t.Helper()
		if err := present(id); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", what, err, want)
		}
		if got := keys.count(); got != asked {
			t.Errorf("%s: %d fetches, want %d", what, got, asked)
		}
	}
	expect("first", kid(1), nil, 1)
	expect("again", kid(1), nil, 1)
	expect("unknown", kid(2), authn.ErrInvalid, 2)
	expect("unknown again", kid(2), authn.ErrInvalid, 2)
	for i := range 20 {
		err := present(kid(100 + i))
		if !errors.Is(err, authn.ErrInvalid) && !errors.Is(err, authn.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	if got := keys.count(); got != demandBurst {
		t.Errorf("made-up kids: %d fetches, want %d", got, demandBurst)
	}
	now = now.Add(freshFor)
	keys.set("/"+kid(1), "")
	expect("server down", kid(1), nil, demandBurst+1)
	expect("server down, soon again", kid(1), nil, demandBurst+1)
	now = now.Add(absentFor)
	keys.mu.Lock()
	delete(keys.pages, "/"+kid(1))
	keys.mu.Unlock()
	expect("taken back", kid(1), authn.ErrInvalid, demandBurst+2)
}

// TestALBKeyTakenBack: what was signed with a key is good no longer than the key, whatever
// end whoever has the key gave it.
func TestALBKeyTakenBack(t *testing.T) {
	key, now := newEC(t), testNow
	keys := serveKeys(t, map[string]string{"/" + kid(1): pemOf(t, key)})
	a, err := New("front", Config{Preset: "aws_alb", Signers: []string{testSigner}, KeysURL: keys.url}, Deps{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	r := carry("x-amzn-oidc-data", sign(t, base64.URLEncoding, key, albHead.with(members{"exp": now.AddDate(1, 0, 0).Unix()}), albClaims.with(members{"exp": nil})))
	if _, err := a.Authenticate(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	keys.mu.Lock()
	delete(keys.pages, "/"+kid(1))
	keys.mu.Unlock()
	now = now.Add(freshFor)
	r.Now = now
	if id, err := a.Authenticate(t.Context(), r); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("after its key was taken back: %+v, %v", id, err)
	}
}

// TestALBKeysForAll: who makes kids up keeps nobody else from a key that was not asked for
// yet, as after a restart.
func TestALBKeysForAll(t *testing.T) {
	key := newEC(t)
	keys := serveKeys(t, map[string]string{"/" + kid(1): pemOf(t, key)})
	a := newTest(t, Config{Preset: "aws_alb", Signers: []string{testSigner}, KeysURL: keys.url})
	present := func(client, id string) error {
		r := carry("x-amzn-oidc-data", sign(t, base64.URLEncoding, key, albHead.with(members{"kid": id}), albClaims))
		r.Client = client
		_, err := a.Authenticate(t.Context(), r)
		return err
	}
	for i := range 50 {
		if err := present("192.0.2.66", kid(100+i)); err == nil {
			t.Fatal("a made-up kid was accepted")
		}
	}
	if err := present("192.0.2.1", kid(1)); err != nil {
		t.Errorf("another client: %v", err)
	}
	for i := range 500 {
		_ = present(fmt.Sprintf("198.51.%d.%d", i/200, i%200), kid(1000+i)) // many clients
	}
	if got := keys.count(); got != demandOfAll {
		t.Errorf("%d fetches, want %d", got, demandOfAll)
	}
}

func TestForgerIsLimited(t *testing.T) {
	key, stranger := newEC(t), newEC(t)
	keys := serveKeys(t, map[string]string{"/" + kid(1): pemOf(t, key)})
	a := newTest(t, Config{Preset: "aws_alb", Signers: []string{testSigner}, KeysURL: keys.url, VerificationLimit: limit.Config{Failures: 1, Burst: 2}})
	var got []bool
	for range 4 {
		_, err := a.Authenticate(t.Context(), carry("x-amzn-oidc-data", sign(t, base64.URLEncoding, stranger, albHead, albClaims)))
		if err == nil {
			t.Fatal("a forged header was accepted")
		}
		got = append(got, errors.Is(err, authn.ErrTooMany))
	}
	if d := cmp.Diff([]bool{false, false, true, true}, got); d != "" {
		t.Error(d)
	}
}

func TestKeysOf(t *testing.T) {
	for signer, want := range map[string]string{
		testSigner: "https://public-keys.auth.elb.eu-west-1.amazonaws.com",
		"arn:aws-us-gov:elasticloadbalancing:us-gov-west-1:123456789012:loadbalancer/app/front/50dc6c495c0c9188": "https://s3-us-gov-west-1.amazonaws.com/aws-elb-public-keys-prod-us-gov-west-1",
	} {
		if got := keysOf(signer); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

package httpsignature

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
)

// errand is one request that a client of another library is to sign.
type errand struct {
	Library string `json:"library"`
	Key     string `json:"key"`
	Alg     string `json:"alg"`
	ID      string `json:"id"`
	Method  string `json:"method"`
	URL     string `json:"url"`
	Body    string `json:"body"`
	Created int64  `json:"created"`
	Nonce   string `json:"nonce"`
}

// signElsewhere has testdata/clients sign, and returns the headers of each request.
func signElsewhere(t *testing.T, errands []errand) []map[string]string {
	t.Helper()
	dir := filepath.Join("testdata", "clients")
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); err != nil {
		t.Skip("the signing clients are not installed; do it with: npm ci --prefix proxy/authn/httpsignature/testdata/clients")
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed, which the signing clients of this test run on")
	}
	in, err := json.Marshal(errands)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), node, "sign.mjs")
	cmd.Dir, cmd.Stdin, cmd.Stderr = dir, bytes.NewReader(in), os.Stderr
	text, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var out []map[string]string
	if err := json.Unmarshal(text, &out); err != nil || len(out) != len(errands) {
		t.Fatalf("%s: %v", text, err)
	}
	return out
}

func headersOf(fields map[string]string) (out []authz.Header) {
	for name, value := range fields {
		out = append(out, authz.Header{Name: strings.ToLower(name), Value: value})
	}
	return out
}

// TestOtherLibrary: what a library of somebody else signs is accepted with each
// algorithm, and not for another request.
func TestOtherLibrary(t *testing.T) {
	var signers []*signer
	var errands []errand
	for _, alg := range algorithms() {
		s := newTestSigner(t, "key of "+alg, alg)
		signers = append(signers, s)
		e := errand{
			Alg: alg, ID: s.id, Method: "POST", URL: "https://API.example.com:443/orders/1?a=1&b=%20c", Body: `{"amount": 1}`,
			Created: testNow.Unix(), Nonce: "n-" + alg,
		}
		if secret, ok := s.private.([]byte); ok {
			e.Key = string(secret)
		} else {
			der, err := x509.MarshalPKCS8PrivateKey(s.private)
			if err != nil {
				t.Fatal(err)
			}
			e.Key = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
		}
		errands = append(errands, e)
	}
	longSalt := errands[slices.IndexFunc(errands, func(e errand) bool { return e.Alg == rsaPSS })]
	longSalt.Library = "long-salt"
	errands = append(errands, longSalt)
	for i, fields := range signElsewhere(t, errands) {
		request := func() *authn.Request {
			return &authn.Request{
				Method: "POST", Scheme: "https", Host: "api.example.com", Path: "/orders/1", RawQuery: "a=1&b=%20c",
				Headers: headersOf(fields), Body: bodyOf(errands[i].Body), Now: testNow, Client: "192.0.2.1",
			}
		}
		a := newTest(t, func(c *Config) { c.Nonce.Required = true }, signers...)
		id, err := a.Authenticate(t.Context(), request())
		if errands[i] == longSalt {
			if !errors.Is(err, authn.ErrSignature) { // RFC 9421 section 3.3.1 says 64 bytes
				t.Errorf("a salt of another length: got %v, %v", id, err)
			}
			continue
		}
		if err != nil || id.Claims["algorithm"] != errands[i].Alg || id.Claims["body_verified"] != true {
			t.Errorf("%s: got %v, %v from %v", errands[i].Alg, id, err, fields)
			continue
		}
		if _, err := a.Authenticate(t.Context(), request()); !errors.Is(err, authn.ErrInvalid) {
			t.Errorf("%s, again: %v", errands[i].Alg, err)
		}
		other := request()
		other.RawQuery = "a=2"
		if _, err := a.Authenticate(t.Context(), other); !errors.Is(err, authn.ErrSignature) {
			t.Errorf("%s, another query: %v", errands[i].Alg, err)
		}
	}
}

// TestWebBotAuth: a bot that follows the drafts of Web Bot Auth is known by the key set
// that it publishes, in which its keys have no names.
func TestWebBotAuth(t *testing.T) {
	s := newTestSigner(t, "", edwards)
	public := s.jwk(t, nil)
	delete(public, "kid")
	private := s.jwk(t, map[string]any{"d": base64.RawURLEncoding.EncodeToString(s.private.(ed25519.PrivateKey).Seed())})
	key, err := json.Marshal(private)
	if err != nil {
		t.Fatal(err)
	}
	directory := filepath.Join(t.TempDir(), "directory.json")
	write(t, directory, jwks(t, public))
	a := newTest(t, func(c *Config) {
		c.Tag, c.Components = "web-bot-auth", []string{"@authority", "signature-agent"}
		c.Consumers = []Consumer{{Subject: "bot.example", Keys: []Key{{JWKSFile: directory}}}}
	})
	fields := signElsewhere(t, []errand{{Library: "web-bot-auth", Key: string(key), URL: "https://shop.example/goods", Created: testNow.Unix()}})[0]
	r := &authn.Request{Method: "GET", Scheme: "https", Host: "shop.example", Path: "/goods", Headers: headersOf(fields), Now: testNow}
	id, err := a.Authenticate(t.Context(), r)
	if err != nil || id.Subject != "bot.example" || id.Claims["tag"] != "web-bot-auth" {
		t.Fatalf("got %v, %v from %v", id, err, fields)
	}
	r.Host = "other.example"
	if _, err := a.Authenticate(t.Context(), r); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("another host: %v", err)
	}
}

package httpsignature

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
)

var testNow = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// fixedBody is a body as the front hands it on: known up to a limit.
type fixedBody struct {
	data      []byte
	truncated bool
	err       error
	read      int
}

func (b *fixedBody) Buffer(context.Context) ([]byte, bool, error) {
	b.read++
	return b.data, b.truncated, b.err
}

func bodyOf(text string) *fixedBody { return &fixedBody{data: []byte(text)} }

func digestOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
}

// signer signs as a client does, with a base that it makes by itself.
type signer struct {
	id, alg string
	private any // crypto.Signer or []byte
}

func newTestSigner(t testing.TB, id, alg string) *signer {
	t.Helper()
	s := &signer{id: id, alg: alg}
	var err error
	switch alg {
	case edwards:
		_, s.private, err = ed25519.GenerateKey(rand.Reader)
	case ecdsaP256:
		s.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ecdsaP384:
		s.private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case rsaPSS, rsaPKCS1:
		s.private, err = rsa.GenerateKey(rand.Reader, 2048)
	case hmacSHA256:
		s.private = []byte(rand.Text() + rand.Text())
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// key writes what verifies, and returns its configuration.
func (s *signer) key(t testing.TB) Key {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	data, isSecret := s.private.([]byte)
	if !isSecret {
		data = s.pem(t)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	k := Key{KeyID: s.id}
	if isSecret {
		k.SecretFile = file
	} else {
		k.PublicKeyFile = file
	}
	if s.alg == rsaPKCS1 {
		k.Algorithm = rsaPKCS1
	}
	return k
}

func (s *signer) pem(t testing.TB) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(s.private.(crypto.Signer).Public())
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func (s *signer) sum(t testing.TB, base string) []byte {
	t.Helper()
	var out []byte
	var err error
	switch k := s.private.(type) {
	case []byte:
		mac := hmac.New(sha256.New, k)
		mac.Write([]byte(base))
		return mac.Sum(nil)
	case ed25519.PrivateKey:
		return ed25519.Sign(k, []byte(base))
	case *rsa.PrivateKey:
		if s.alg == rsaPKCS1 {
			sum := sha256.Sum256([]byte(base))
			out, err = rsa.SignPKCS1v15(rand.Reader, k, crypto.SHA256, sum[:])
			break
		}
		sum := sha512.Sum512([]byte(base))
		out, err = rsa.SignPSS(rand.Reader, k, crypto.SHA512, sum[:], &rsa.PSSOptions{SaltLength: 64})
	case *ecdsa.PrivateKey:
		sum := sha256.Sum256([]byte(base))
		digest := sum[:]
		if s.alg == ecdsaP384 {
			sum := sha512.Sum384([]byte(base))
			digest = sum[:]
		}
		r, x, signErr := ecdsa.Sign(rand.Reader, k, digest)
		size := len(digest)
		out, err = make([]byte, 2*size), signErr
		if err == nil {
			r.FillBytes(out[:size])
			x.FillBytes(out[size:])
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// signed is what to sign, and how the request comes.
type signed struct {
	components string // `"@method" "@authority"`
	parameters string // after the list
	values     map[string]string
	body       string
	header     []authz.Header
}

// order is a request that is signed as the defaults want it.
func (s *signer) order() signed {
	return signed{
		components: `"@method" "@authority" "@path" "@query"`,
		parameters: fmt.Sprintf(`;created=%d;keyid="%s"`, testNow.Unix(), s.id),
		values: map[string]string{
			"@method": "POST", "@authority": "api.example.com", "@path": "/orders/1", "@query": "?a=1&b=%20",
			"@scheme": "https", "@target-uri": "https://api.example.com/orders/1?a=1&b=%20", "@request-target": "/orders/1?a=1&b=%20",
			"x-tenant": "acme",
		},
	}
}

// request signs o under label.
func (s *signer) request(t testing.TB, label string, o signed) *authn.Request {
	t.Helper()
	r := &authn.Request{
		Method: "POST", Scheme: "https", Host: "API.example.com:443", Path: "/orders/1", RawQuery: "a=1&b=%20",
		Headers: []authz.Header{{Name: "host", Value: "API.example.com:443"}, {Name: "x-tenant", Value: "acme"}},
		Now:     testNow, Client: "192.0.2.1",
	}
	if o.body != "" {
		r.Body = bodyOf(o.body)
		r.Headers = append(r.Headers, authz.Header{Name: "content-digest", Value: digestOf(o.body)})
		o.values["content-digest"] = digestOf(o.body)
	}
	r.Headers = append(r.Headers, o.header...)
	input, value := s.fields(t, label, o)
	r.Headers = append(r.Headers, authz.Header{Name: "signature-input", Value: input}, authz.Header{Name: "signature", Value: value})
	return r
}

// fields returns Signature-Input and Signature.
func (s *signer) fields(t testing.TB, label string, o signed) (input, value string) {
	t.Helper()
	var base strings.Builder
	for id := range strings.FieldsSeq(o.components) {
		fmt.Fprintf(&base, "%s: %s\n", id, o.values[strings.Trim(id, `"`)])
	}
	parameters := "(" + o.components + ")" + o.parameters
	base.WriteString(`"@signature-params": ` + parameters)
	return label + "=" + parameters, label + "=:" + base64.StdEncoding.EncodeToString(s.sum(t, base.String())) + ":"
}

// set replaces a header, or adds it.
func set(r *authn.Request, name, value string) {
	for i := range r.Headers {
		if r.Headers[i].Name == name {
			r.Headers[i].Value = value
			return
		}
	}
	r.Headers = append(r.Headers, authz.Header{Name: name, Value: value})
}

func newTest(t testing.TB, change func(*Config), signers ...*signer) *Authenticator {
	t.Helper()
	c := Default()
	for _, s := range signers {
		c.Consumers = append(c.Consumers, Consumer{
			Subject: "owner of " + s.id, Scopes: []string{"orders:write"},
			Claims: map[string]any{"groups": []any{"partners"}, "limit": 10}, Keys: []Key{s.key(t)},
		})
	}
	if change != nil {
		change(&c)
	}
	a, err := New("partners", c, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

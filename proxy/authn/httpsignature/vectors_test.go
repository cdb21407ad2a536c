package httpsignature

import (
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
)

// rfcCreated is when the test cases of RFC 9421 appendix B.2 were signed.
const rfcCreated = 1618884473

const rfcDigest = "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:"

// The signatures of RFC 9421 appendix B.2, by section.
var rfcSignatures = []struct{ section, input, value, base string }{
	{
		"B.2.1", `sig-b21=();created=1618884473;keyid="test-key-rsa-pss";nonce="b3k2pp5k7z-50gnwp.yemd"`,
		"sig-b21=:d2pmTvmbncD3xQm8E9ZV2828BjQWGgiwAaw5bAkgibUopemLJcWDy/lkbbHAve4cRAtx31Iq786U7it++wgGxbtRxf8Udx7zFZsckzXaJMkA7ChG52eSkFxykJeNqsrWH5S+oxNFlD4dzVuwe8DhTSja8xxbR/Z2cOGdCbzR72rgFWhzx2VjBqJzsPLMIQKhO4DGezXehhWwE56YCE+O6c0mKZsfxVrogUvA4HELjVKWmAvtl6UnCh8jYzuVG5WSb/QEVPnP5TmcAnLH1g+s++v6d4s8m0gCw1fV5/SITLq9mhho8K3+7EPYTU8IU1bLhdxO5Nyt8C8ssinQ98Xw9Q==:",
		`"@signature-params": ();created=1618884473;keyid="test-key-rsa-pss";nonce="b3k2pp5k7z-50gnwp.yemd"`,
	},
	{
		"B.2.2", `sig-b22=("@authority" "content-digest" "@query-param";name="Pet");created=1618884473;keyid="test-key-rsa-pss";tag="header-example"`,
		"sig-b22=:LjbtqUbfmvjj5C5kr1Ugj4PmLYvx9wVjZvD9GsTT4F7GrcQEdJzgI9qHxICagShLRiLMlAJjtq6N4CDfKtjvuJyE5qH7KT8UCMkSowOB4+ECxCmT8rtAmj/0PIXxi0A0nxKyB09RNrCQibbUjsLS/2YyFYXEu4TRJQzRw1rLEuEfY17SARYhpTlaqwZVtR8NV7+4UKkjqpcAoFqWFQh62s7Cl+H2fjBSpqfZUJcsIk4N6wiKYd4je2U/lankenQ99PZfB4jY3I5rSV2DSBVkSFsURIjYErOs0tFTQosMTAoxk//0RoKUqiYY8Bh0aaUEb0rQl3/XaVe4bXTugEjHSw==:",
		`"@authority": example.com
"content-digest": ` + rfcDigest + `
"@query-param";name="Pet": dog
"@signature-params": ("@authority" "content-digest" "@query-param";name="Pet");created=1618884473;keyid="test-key-rsa-pss";tag="header-example"`,
	},
	{
		"B.2.3", `sig-b23=("date" "@method" "@path" "@query" "@authority" "content-type" "content-digest" "content-length");created=1618884473;keyid="test-key-rsa-pss"`,
		"sig-b23=:bbN8oArOxYoyylQQUU6QYwrTuaxLwjAC9fbY2F6SVWvh0yBiMIRGOnMYwZ/5MR6fb0Kh1rIRASVxFkeGt683+qRpRRU5p2voTp768ZrCUb38K0fUxN0O0iC59DzYx8DFll5GmydPxSmme9v6ULbMFkl+V5B1TP/yPViV7KsLNmvKiLJH1pFkh/aYA2HXXZzNBXmIkoQoLd7YfW91kE9o/CCoC1xMy7JA1ipwvKvfrs65ldmlu9bpG6A9BmzhuzF8Eim5f8ui9eH8LZH896+QIF61ka39VBrohr9iyMUJpvRX2Zbhl5ZJzSRxpJyoEZAFL2FUo5fTIztsDZKEgM4cUA==:",
		`"date": Tue, 20 Apr 2021 02:07:55 GMT
"@method": POST
"@path": /foo
"@query": ?param=Value&Pet=dog
"@authority": example.com
"content-type": application/json
"content-digest": ` + rfcDigest + `
"content-length": 18
"@signature-params": ("date" "@method" "@path" "@query" "@authority" "content-type" "content-digest" "content-length");created=1618884473;keyid="test-key-rsa-pss"`,
	},
	{
		"B.2.5", `sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"`,
		"sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:",
		`"date": Tue, 20 Apr 2021 02:07:55 GMT
"@authority": example.com
"content-type": application/json
"@signature-params": ("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"`,
	},
	{
		"B.2.6", `sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519"`,
		"sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:",
		`"date": Tue, 20 Apr 2021 02:07:55 GMT
"@method": POST
"@path": /foo
"@authority": example.com
"content-type": application/json
"content-length": 18
"@signature-params": ("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519"`,
	},
}

// rfcRequest is test-request of RFC 9421 appendix B.2.
func rfcRequest(input, value string) *authn.Request {
	return &authn.Request{
		Method: "POST", Scheme: "https", Host: "example.com", Path: "/foo", RawQuery: "param=Value&Pet=dog",
		Headers: []authz.Header{
			{Name: "host", Value: "example.com"},
			{Name: "date", Value: "Tue, 20 Apr 2021 02:07:55 GMT"},
			{Name: "content-type", Value: "application/json"},
			{Name: "content-digest", Value: rfcDigest},
			{Name: "content-length", Value: "18"},
			{Name: "signature-input", Value: input},
			{Name: "signature", Value: value},
		},
		Body: bodyOf(`{"hello": "world"}`), Now: time.Unix(rfcCreated+10, 0), Client: "192.0.2.1",
	}
}

// rfcAuthenticator has the keys of RFC 9421 appendix B.1, and lets signatures cover as
// little as the test cases do.
func rfcAuthenticator(t testing.TB, components []string, change func(*Config)) *Authenticator {
	t.Helper()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	pem := func(id string) Key {
		return Key{KeyID: id, PublicKeyFile: filepath.Join("testdata", "rfc9421", id+".pem")}
	}
	c := Default()
	c.Consumers = []Consumer{{Subject: "rfc", Keys: []Key{
		pem("test-key-rsa-pss"), pem("test-key-ecc-p256"), pem("test-key-ed25519"), {KeyID: "test-shared-secret", SecretFile: secret, SecretEncoding: "base64"},
	}}}
	c.InsecureUnsignedBody = true
	if change != nil {
		change(&c)
	}
	a, err := New("rfc", c, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	a.config.Components = components // some test cases cover nothing, which no configuration allows
	return a
}

// TestRFCRequests: what RFC 9421 signed is accepted, for the base that it prints, and
// not if a bit of the signature or a byte of a component is another.
func TestRFCRequests(t *testing.T) {
	for _, v := range rfcSignatures {
		t.Run(v.section, func(t *testing.T) {
			build := func() *Authenticator {
				return rfcAuthenticator(t, []string{}, func(c *Config) {
					if v.section == "B.2.2" {
						c.Tag = "header-example"
					}
				})
			}
			id, err := build().Authenticate(t.Context(), rfcRequest(v.input, v.value))
			if err != nil || id.Subject != "rfc" || !strings.Contains(v.input, `keyid="`+id.Claims["key_id"].(string)+`"`) {
				t.Fatalf("got %+v, %v", id, err)
			}
			all, err := parse(v.input, v.value, 1)
			if err != nil {
				t.Fatal(err)
			}
			base, err := all[0].base(rfcRequest(v.input, v.value))
			if err != nil || string(base) != v.base {
				t.Errorf("base is %s, %v, want %s", base, err, v.base)
			}
			bad := strings.Replace(v.value, ":", ":AA", 1)
			if _, err := build().Authenticate(t.Context(), rfcRequest(v.input, bad)); err == nil {
				t.Error("a changed signature is accepted")
			}
			flipped := slices.Clone(all[0].value)
			for _, at := range []int{0, len(flipped) / 2, len(flipped) - 1} {
				flipped[at] ^= 1
				r := rfcRequest(v.input, all[0].label+"=:"+base64.StdEncoding.EncodeToString(flipped)+":")
				if _, err := build().Authenticate(t.Context(), r); !errors.Is(err, authn.ErrSignature) {
					t.Errorf("byte %d flipped: %v", at, err)
				}
				flipped[at] ^= 1
			}
			for _, c := range all[0].components {
				r := rfcRequest(v.input, v.value)
				spoil(r, c.name)
				if _, err := build().Authenticate(t.Context(), r); !errors.Is(err, authn.ErrInvalid) {
					t.Errorf("another %s: %v", c.id, err)
				}
			}
		})
	}
}

// spoil changes a component of r.
func spoil(r *authn.Request, name string) {
	switch name {
	case "@method":
		r.Method = "PUT"
	case "@authority":
		r.Host = "example.org"
	case "@path":
		r.Path = "/bar"
	case "@query", "@query-param":
		r.RawQuery = "param=Value&Pet=cat"
	}
	for i := range r.Headers {
		if r.Headers[i].Name == name {
			r.Headers[i].Value += "x"
		}
	}
}

// TestRFCResponse is B.2.4: a response is no request, and its signature is the algorithm's.
func TestRFCResponse(t *testing.T) {
	a := rfcAuthenticator(t, []string{}, nil)
	input := `sig-b24=("@status" "content-type" "content-digest" "content-length");created=1618884473;keyid="test-key-ecc-p256"`
	value := "wNmSUAhwb5LxtOtOpNa6W5xj067m5hFrj0XQ4fvpaCLx0NKocgPquLgyahnzDnDAUy5eCdlYUEkLIj+32oiasw=="
	_, err := a.Authenticate(t.Context(), rfcRequest(input, "sig-b24=:"+value+":"))
	if !errors.Is(err, authn.ErrMalformed) || !strings.Contains(err.Error(), "@status") {
		t.Errorf("as a request: %v", err)
	}
	base := `"@status": 200
"content-type": application/json
"content-digest": sha-512=:mEWXIS7MaLRuGgxOBdODa3xqM1XdEvxoYhvlCFJ41QJgJc4GTsPp29l5oGX69wWdXymyU0rjJuahq4l5aGgfLQ==:
"content-length": 23
"@signature-params": ("@status" "content-type" "content-digest" "content-length");created=1618884473;keyid="test-key-ecc-p256"`
	sum, err := base64.StdEncoding.DecodeString(value)
	if err != nil {
		t.Fatal(err)
	}
	k := (*a.keys.Load())["test-key-ecc-p256"]
	if !verifySignature(k.algorithm, k.material, []byte(base), sum) {
		t.Error("signature is not verified")
	}
	if verifySignature(k.algorithm, k.material, []byte(base+" "), sum) || verifySignature(ecdsaP384, k.material, []byte(base), sum) {
		t.Error("another text or algorithm is verified")
	}
}

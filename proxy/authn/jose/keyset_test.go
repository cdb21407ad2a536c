package jose

import (
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
)

func TestParseKeySet(t *testing.T) {
	ec, ed, rs, hs := josetest.New(t, "ec", "ES256"), josetest.New(t, "ed", "EdDSA"), josetest.New(t, "rs", "RS256"), josetest.New(t, "hs", "HS256")
	with := func(s *josetest.Signer, change map[string]any) map[string]any {
		m := maps.Clone(s.JWK())
		maps.Copy(m, change)
		return m
	}
	exponent := func(e int64) map[string]any { return map[string]any{"e": josetest.Base64(big.NewInt(e).Bytes())} }
	weak := rsaJWK(new(big.Int).SetBit(big.NewInt(1), 1023, 1))
	huge := rsaJWK(new(big.Int).SetBit(big.NewInt(1), 8200, 1))
	even := rsaJWK(new(big.Int).SetBit(big.NewInt(0), 2047, 1))
	many := make([]any, maxKeys+1)
	for i := range many {
		many[i] = with(ec, map[string]any{"kid": fmt.Sprint(i)})
	}
	for _, tt := range []struct {
		name    string
		keys    []any
		secrets bool
		want    int // keys taken; -1: the set is refused
	}{
		{"three types", []any{ec.JWK(), ed.JWK(), rs.JWK()}, false, 3},
		{"unknown type is ignored", []any{ec.JWK(), map[string]any{"kty": "AKP", "alg": "ML-DSA-44", "pub": "x"}}, false, 1},
		{"encryption key is ignored", []any{ec.JWK(), with(rs, map[string]any{"use": "enc"})}, false, 1},
		{"encryption key with the same kid is ignored", []any{ec.JWK(), with(rs, map[string]any{"use": "enc", "kid": "ec"})}, false, 1},
		{"other operation is ignored", []any{ec.JWK(), with(rs, map[string]any{"key_ops": []string{"wrapKey"}})}, false, 1},
		{"encryption algorithm is ignored", []any{ec.JWK(), with(rs, map[string]any{"alg": "RSA-OAEP"})}, false, 1},
		{"unknown curve is ignored", []any{ec.JWK(), with(ec, map[string]any{"kid": "k", "crv": "secp256k1"})}, false, 1},
		{"X25519 is ignored", []any{ec.JWK(), with(ed, map[string]any{"crv": "X25519"})}, false, 1},
		{"shared secret from a file", []any{hs.JWK()}, true, 1},
		{"shared secret from a URL", []any{hs.JWK()}, false, -1},
		{"shared secret from a URL among others", []any{ec.JWK(), with(hs, map[string]any{"use": "enc"})}, false, -1},
		{"shared secret and public key", []any{ec.JWK(), hs.JWK()}, true, -1},
		{"short shared secret", []any{with(hs, map[string]any{"k": josetest.Base64(make([]byte, 31))})}, true, -1},
		{"short shared secret for any algorithm", []any{map[string]any{"kty": "oct", "kid": "k", "k": josetest.Base64(make([]byte, 31))}}, true, -1},
		{"short for its algorithm", []any{with(hs, map[string]any{"k": josetest.Base64(make([]byte, 32)), "alg": "HS512"})}, true, -1},
		{"private key", []any{with(ec, map[string]any{"d": "AA"})}, false, -1},
		{"duplicate kid", []any{ec.JWK(), with(ed, map[string]any{"kid": "ec"})}, false, -1},
		{"RSA of 1024 bits", []any{ec.JWK(), weak}, false, -1},
		{"RSA of 8201 bits", []any{ec.JWK(), huge}, false, -1},
		{"even modulus", []any{ec.JWK(), even}, false, -1},
		{"exponent 1", []any{with(rs, exponent(1))}, false, -1},
		{"exponent 2", []any{with(rs, exponent(2))}, false, -1},
		{"even exponent", []any{with(rs, exponent(65538))}, false, -1},
		{"exponent 3", []any{with(rs, exponent(3))}, false, 1},
		{"exponent that overflows", []any{with(rs, map[string]any{"e": josetest.Base64([]byte{1, 0, 0, 0, 0, 0, 1, 0, 1})})}, false, -1},
		{"point off the curve", []any{with(ec, map[string]any{"x": ec.JWK()["y"]})}, false, -1},
		{"curve unlike the algorithm", []any{with(ec, map[string]any{"alg": "ES384"})}, false, -1},
		{"type unlike the members", []any{with(ec, map[string]any{"kty": "RSA"})}, false, -1},
		{"short Ed25519 key", []any{with(ed, map[string]any{"x": "AA"})}, false, -1},
		{"kid not a string", []any{with(ec, map[string]any{"kid": 1})}, false, -1},
		{"key not an object", []any{ec.JWK(), "x"}, false, -1},
		{"no key of use", []any{map[string]any{"kty": "AKP"}}, false, -1},
		{"no key", []any{}, false, -1},
		{"101 keys", many, false, -1},
		{"100 keys", many[1:], false, 100},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set, err := ParseKeySet([]byte(josetest.JSON(t, map[string]any{"keys": tt.keys})), tt.secrets)
			switch {
			case tt.want < 0 && err == nil:
				t.Errorf("took %d keys, want the set refused", len(set.keys))
			case tt.want >= 0 && err != nil:
				t.Error(err)
			case tt.want >= 0 && len(set.keys) != tt.want:
				t.Errorf("took %d keys, want %d", len(set.keys), tt.want)
			}
		})
	}
}

func rsaJWK(n *big.Int) map[string]any {
	return map[string]any{"kty": "RSA", "kid": "odd", "n": josetest.Base64(n.Bytes()), "e": "AQAB"}
}

func TestParseKeySetDocument(t *testing.T) {
	good := josetest.JWKS(t, josetest.New(t, "k1", "ES256"))
	if _, err := ParseKeySet([]byte(good), false); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"not JSON":             "<html>",
		"array":                "[]",
		"no keys":              `{}`,
		"other spelling":       strings.Replace(good, `"keys"`, `"Keys"`, 1),
		"duplicate keys":       strings.Replace(good, `{"keys"`, `{"keys":[],"keys"`, 1),
		"duplicate member":     strings.Replace(good, `"kid"`, `"kid":"other","kid"`, 1),
		"larger than 1 MiB":    good + strings.Repeat(" ", MaxKeySet),
		"two documents":        good + good,
		"keys not an array":    `{"keys":{}}`,
		"nested beyond use":    `{"keys":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`,
		"member by wrong case": strings.Replace(good, `"kty"`, `"KTY"`, 1),
	} {
		if _, err := ParseKeySet([]byte(text), false); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestROCA uses Wycheproof's weak key, and sound ones.
func TestROCA(t *testing.T) {
	for _, k := range josetest.RSAKeys() {
		if isROCA(k.N) {
			t.Error("a sound key is said to be weak")
		}
	}
	shared := os.Getenv("SALLYPORT_SHARED")
	if shared == "" {
		t.Skip("SALLYPORT_SHARED does not name the folder that holds vectors/ with Project Wycheproof's files")
	}
	data, err := os.ReadFile(filepath.Join(shared, "vectors", "json_web_key_test.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file wycheproofFile
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.TestGroups {
		if g.Comment != "jws_rsa_roca_key" {
			continue
		}
		var doc struct{ Keys []struct{ N string } }
		if err := json.Unmarshal(g.Public, &doc); err != nil {
			t.Fatal(err)
		}
		n, err := DecodeBase64(doc.Keys[0].N)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkRSA(&rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537}, "AQAB"); err == nil || !strings.Contains(err.Error(), "ROCA") {
			t.Errorf("the weak key got %v", err)
		}
		return
	}
	t.Error("the file has no ROCA key")
}

// FuzzKeySet: no key set panics, and one that is taken holds sound keys only.
func FuzzKeySet(f *testing.F) {
	f.Add(josetest.JWKS(f, josetest.New(f, "k1", "ES256"), josetest.New(f, "k2", "EdDSA"), josetest.New(f, "k3", "RS256")))
	f.Add(josetest.JWKS(f, josetest.New(f, "k1", "HS256")))
	f.Add(`{"keys":[{"kty":"RSA","n":"AQ","e":"AQ"},{"kty":"EC","crv":"P-256","x":"","y":""}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, secrets := range []bool{false, true} {
			set, err := ParseKeySet([]byte(text), secrets)
			if err != nil {
				continue
			}
			for _, k := range set.keys {
				if _, secret := k.Material.([]byte); secret && !secrets {
					t.Error("took a shared secret")
				}
			}
		}
	})
}

// TestThumbprint is the example of RFC 7638 section 3.1.
func TestThumbprint(t *testing.T) {
	k, _, err := parseKey(map[string]any{"kty": "RSA", "e": "AQAB", "alg": "RS256", "kid": "2011-04-29", "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"}, false)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := josetest.Base64(k.Thumbprint), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"; got != want {
		t.Errorf("thumbprint %s, want %s", got, want)
	}
}

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// iap starts what publishes the key of an Identity-Aware Proxy, and puts its URL and
// two headers that the proxy signs, for the audience named and for another, into
// variables: iap AUDIENCE URL GOOD OTHER.
func iap(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: iap AUDIENCE URL GOOD OTHER")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	point, err := key.PublicKey.Bytes()
	ts.Check(err)
	b64 := base64.RawURLEncoding.EncodeToString
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","kid":"k1","x":%q,"y":%q}]}`,
			b64(point[1:33]), b64(point[33:])) // the client may have gone
	}))
	ts.Defer(s.Close)
	ts.Setenv(args[1], s.URL)
	sign := func(audience string) string {
		now := time.Now().Unix()
		input := b64([]byte(`{"alg":"ES256","typ":"JWT","kid":"k1"}`)) + "." + b64(fmt.Appendf(nil,
			`{"iss":"https://cloud.google.com/iap","aud":%q,"sub":"accounts.google.com:1","email":"alice@example.com","iat":%d,"exp":%d}`,
			audience, now, now+600))
		h := sha256.New()
		_, _ = io.WriteString(h, input) // never fails
		r, sig, err := ecdsa.Sign(rand.Reader, key, h.Sum(nil))
		ts.Check(err)
		return input + "." + b64(append(r.FillBytes(make([]byte, 32)), sig.FillBytes(make([]byte, 32))...))
	}
	ts.Setenv(args[2], sign(args[0]))
	ts.Setenv(args[3], sign(args[0]+"0"))
}

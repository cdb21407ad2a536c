package proxy

import (
	"bufio"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jwt"
	"github.com/sallyport/sallyport/proxy/authn/limit"
	"github.com/sallyport/sallyport/proxy/judge"
	"github.com/sallyport/sallyport/proxy/problem"
	"github.com/sallyport/sallyport/proxy/ratelimit"
)

const limitIssuer = "https://idp.example"

func signedToken(t *testing.T, k ed25519.PrivateKey, sub string) string {
	t.Helper()
	encode := base64.RawURLEncoding.EncodeToString
	payload := fmt.Sprintf(`{"iss":%q,"aud":"orders-api","sub":%q,"exp":%d}`, limitIssuer, sub, time.Now().Add(time.Hour).Unix())
	input := encode([]byte(`{"alg":"EdDSA","kid":"k1"}`)) + "." + encode([]byte(payload))
	return input + "." + encode(ed25519.Sign(k, []byte(input)))
}

// tokens makes the chain of a route that takes the tokens of k's issuer.
func tokens(t *testing.T, k ed25519.PrivateKey, bound limit.Config) option {
	t.Helper()
	file := filepath.Join(t.TempDir(), "keys.json")
	set := fmt.Sprintf(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k1","x":%q}]}`,
		base64.RawURLEncoding.EncodeToString(k.Public().(ed25519.PublicKey)))
	if err := os.WriteFile(file, []byte(set), 0o600); err != nil {
		t.Fatal(err)
	}
	c := jwt.Default()
	c.Issuer, c.Audiences, c.JWKSFile, c.VerificationLimit = limitIssuer, []string{"orders-api"}, file, bound
	a, err := jwt.New("corp", c, jwt.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	return func(_ *Config, p *Parts, _ *Deps) {
		p.Chain = func([]string) (judge.Chain, error) {
			return authn.New([]authn.Named{{Name: "corp", Authenticator: a}}, nil)
		}
	}
}

// TestForgerGets429: who sends forged tokens is told to wait once the burst is
// used up, by the address that trusted peers report. Its verified token still
// passes, and others are served.
func TestForgerGets429(t *testing.T) {
	key, stranger := ed25519.NewKeyFromSeed(make([]byte, 32)), ed25519.NewKeyFromSeed([]byte("another key, 32 bytes of a seed."))
	up := listenRaw(t, nil)
	g := start(t, up.addr(), tokens(t, key, limit.Config{Failures: 1.0 / 3600, Burst: 3}),
		withListener(func(l *ListenerConfig) { l.TrustedProxies = []string{"127.0.0.1/32"} }))
	send := func(client, token string) *http.Response {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+g.addr+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("X-Forwarded-For", client)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
		return resp
	}
	const forger, neighbour, other = "2001:db8::1", "2001:db8::2", "192.0.2.7"
	known := signedToken(t, key, "alice")
	if got := send(forger, known).StatusCode; got != http.StatusOK {
		t.Fatalf("a good token: %d", got)
	}
	for i := range 3 {
		if got := send(forger, signedToken(t, stranger, fmt.Sprint(i))).StatusCode; got != http.StatusUnauthorized {
			t.Fatalf("forged token %d: %d, want 401", i, got)
		}
	}
	for name, tc := range map[string]struct {
		client, token string
		want          int
	}{
		"forged":                      {forger, signedToken(t, stranger, "x"), 429},
		"forged, next address":        {neighbour, signedToken(t, stranger, "x"), 429},
		"good, not seen before":       {forger, signedToken(t, key, "bob"), 429},
		"good, verified before":       {forger, known, 200},
		"good, of another client":     {other, signedToken(t, key, "carol"), 200},
		"forged, of another client":   {other, signedToken(t, stranger, "x"), 401},
		"good, client behind forgery": {other + ", " + forger, signedToken(t, key, "dave"), 429},
	} {
		resp := send(tc.client, tc.token)
		if resp.StatusCode != tc.want {
			t.Errorf("%s: %d, want %d", name, resp.StatusCode, tc.want)
		}
		if tc.want == http.StatusTooManyRequests {
			toldToWait(t, name, resp)
		}
	}
}

func toldToWait(t *testing.T, name string, resp *http.Response) {
	t.Helper()
	seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if err != nil || seconds < 3000 || seconds > 3600 {
		t.Errorf("%s: Retry-After %q, want up to an hour", name, resp.Header.Get("Retry-After"))
	}
	if got, want := resp.Header.Get("RateLimit"), fmt.Sprintf(`"credentials";r=0;t=%d`, seconds); got != want {
		t.Errorf("%s: RateLimit %q, want %q", name, got, want)
	}
	if got := resp.Header.Get("RateLimit-Policy"); got != `"credentials";q=3;w=10800` {
		t.Errorf("%s: RateLimit-Policy %q", name, got)
	}
	if resp.Header.Get("WWW-Authenticate") != "" || resp.Header.Get("Content-Type") != problem.ContentType {
		t.Errorf("%s: headers %v", name, resp.Header)
	}
	var body map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil || body["status"] != 429.0 || body["request_id"] == "" {
		t.Errorf("%s: body %v, %v", name, body, err)
	}
}

// TestPolicyLimit: a limit of the policy counts under an outcome of its own, and stands
// beside the one that the upstream has.
func TestPolicyLimit(t *testing.T) {
	up := listenRaw(t, func(c net.Conn, r *bufio.Reader) {
		for {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nRateLimit: \"theirs\";r=7;t=7\r\nContent-Length: 2\r\n\r\nok"); err != nil {
				return
			}
		}
	})
	metrics := meter.New()
	decision := &authz.Decision{Allow: true, RateLimit: &authz.RateLimit{Key: "alice", Rate: "1/h"}}
	g := start(t, up.addr(), withDecider(func(*authz.Input) (*authz.Decision, error) { return decision, nil }),
		func(_ *Config, p *Parts, d *Deps) {
			p.Limiter, d.Metrics = ratelimit.New(ratelimit.Default(), meter.New()), metrics
		})
	for i, want := range []struct {
		status int
		limits []string
	}{
		{200, []string{`"theirs";r=7;t=7`, `"requests";r=0;t=3600`}},
		{429, []string{`"requests";r=0;t=`}},
		{429, []string{`"requests";r=0;t=`}},
	} {
		resp, err := http.Get("http://" + g.addr + "/")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if got := resp.Header.Values("RateLimit"); resp.StatusCode != want.status || !slices.EqualFunc(got, want.limits, strings.HasPrefix) {
			t.Errorf("request %d: %d %q, want %d %q", i, resp.StatusCode, got, want.status, want.limits)
		}
	}
	got := map[string]int64{}
	for _, m := range metrics.Snapshot() {
		for _, s := range m.Series {
			for _, a := range s.Attrs {
				if m.Name == "sallyport.requests" && a.Key == "outcome" {
					got[a.Value] += s.Value
				}
			}
		}
	}
	if got["allowed"] != 1 || got["limited"] != 2 || len(g.records.all()) != 3 {
		t.Errorf("requests by outcome: %v, %d records", got, len(g.records.all()))
	}
}

package jwt

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
)

// nodeOf returns the Node.js that the provider is installed with, the system's
// where there is none for the platform: distributions have versions that are too
// old for it.
func nodeOf(t *testing.T, dir string) string {
	t.Helper()
	if own, err := filepath.Glob(filepath.Join(dir, "node_modules", "node-*", "bin", "node")); err == nil && len(own) == 1 {
		path, err := filepath.Abs(own[0])
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	path, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed, which the OpenID provider of this test runs on")
	}
	return path
}

// provider is the certified OpenID provider of testdata/idp, a process of its own.
type provider struct{ issuer string }

func startProvider(t *testing.T) *provider {
	t.Helper()
	dir := filepath.Join("testdata", "idp")
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); err != nil {
		t.Skip("the OpenID provider is not installed; do it with: npm ci --prefix proxy/authn/jwt/testdata/idp")
	}
	node := nodeOf(t, dir)
	cmd := exec.Command(node, "server.mjs")
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	stdin, err := cmd.StdinPipe() // closing it ends the process, also when this one dies
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
		kill.Stop()
	})
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		t.Fatalf("the provider did not start: %v", err)
	}
	var said struct{ Issuer string }
	if err := json.Unmarshal(line, &said); err != nil {
		t.Fatalf("the provider said %q: %v", line, err)
	}
	return &provider{issuer: said.Issuer}
}

func (p *provider) post(t *testing.T, path string, form url.Values, headers ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.issuer+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	req.SetBasicAuth("tester", "a-secret-for-the-test-only")
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("POST %s: %s %s %v", path, resp.Status, body, err)
	}
	return body
}

// token has the provider issue an access token signed with alg.
func (p *provider) token(t *testing.T, alg string) string {
	t.Helper()
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	body := p.post(t, "/token", url.Values{
		"grant_type": {"client_credentials"}, "resource": {"https://api.example/" + alg}, "scope": {"orders.read"},
	})
	if err := json.Unmarshal(body, &answer); err != nil || answer.AccessToken == "" {
		t.Fatalf("token answer %s: %v", body, err)
	}
	return answer.AccessToken
}

// boundToken has the provider issue an access token that is bound to the key of
// holder (RFC 9449 section 5).
func (p *provider) boundToken(t *testing.T, holder *josetest.Signer) string {
	t.Helper()
	var answer struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
	}
	proof := holder.Sign(t, map[string]any{"typ": "dpop+jwt", "alg": holder.Algorithm, "jwk": publicOf(holder)},
		map[string]any{"jti": rand.Text(), "htm": "POST", "htu": p.issuer + "/token", "iat": time.Now().Unix()})
	body := p.post(t, "/token", url.Values{
		"grant_type": {"client_credentials"}, "resource": {"https://api.example/ES256"}, "scope": {"orders.read"},
	}, "DPoP", proof)
	if err := json.Unmarshal(body, &answer); err != nil || answer.TokenType != "DPoP" {
		t.Fatalf("token answer %s: %v", body, err)
	}
	return answer.AccessToken
}

// TestCertifiedProviderBinds: tokens that a provider binds to a key are good with a
// proof by it, and with nothing else.
func TestCertifiedProviderBinds(t *testing.T) {
	p := startProvider(t)
	c := Default()
	c.Issuer, c.Audiences, c.DPoP.Required = p.issuer, []string{"https://api.example/ES256"}, true
	a := start(t, c)
	if err := a.Prime(t.Context()); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	thief := josetest.New(t, "", "ES256")
	for _, alg := range []string{"ES256", "EdDSA", "PS256"} {
		holder := josetest.New(t, "", alg)
		token := p.boundToken(t, holder)
		for name, tt := range map[string]struct {
			scheme string
			by     *josetest.Signer
			ok     bool
		}{
			"with a proof":           {"DPoP", holder, true},
			"with another's proof":   {"DPoP", thief, false},
			"as a bearer token":      {"Bearer", holder, false},
			"with a proof once more": {"DPoP", holder, true},
		} {
			r := proven(token, prove(t, tt.by, token, nil, map[string]any{"iat": now.Unix()}))
			r.Authorization, r.Now = tt.scheme+" "+token, now
			if _, err := a.Authenticate(t.Context(), r); (err == nil) != tt.ok || err != nil && !errors.Is(err, authn.ErrInvalid) {
				t.Errorf("%s %s: %v", alg, name, err)
			}
		}
	}
	if _, err := presentAt(t, a, p.token(t, "ES256"), now); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("a token that is not bound: %v, want ErrInvalid", err)
	}
}

// rotate puts the named keys in force; the first signs.
func (p *provider) rotate(t *testing.T, names string) {
	t.Helper()
	p.post(t, "/test/keys?names="+names, nil)
}

// TestCertifiedProvider: discovery, every default algorithm, at+jwt, rotation.
func TestCertifiedProvider(t *testing.T) {
	p := startProvider(t)
	c := Default()
	c.Issuer, c.RefreshInterval, c.TokenTypes = p.issuer, time.Second, []string{"at+jwt"}
	for _, alg := range c.Algorithms {
		c.Audiences = append(c.Audiences, "https://api.example/"+alg)
	}
	a := start(t, c)
	if err := a.Prime(t.Context()); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for _, alg := range c.Algorithms {
		id, err := presentAt(t, a, p.token(t, alg), now)
		if err != nil {
			t.Errorf("%s: %v", alg, err)
			continue
		}
		if id.Subject != "tester" || !slices.Equal(id.Scopes, []string{"orders.read"}) ||
			!slices.Equal(id.Audiences, []string{"https://api.example/" + alg}) || id.TokenHeader["typ"] != "at+jwt" {
			t.Errorf("%s: identity is %+v", alg, id)
		}
	}
	if _, err := presentAt(t, a, p.token(t, "ES256"), now.Add(10*time.Minute)); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("ten minutes later: got %v, want ErrInvalid", err)
	}

	old := p.token(t, "ES256")
	if _, err := presentAt(t, a, old, now); err != nil {
		t.Fatal(err)
	}
	p.rotate(t, "second,first")
	fresh := p.token(t, "ES256")
	begin := time.Now()
	if _, err := presentAt(t, a, fresh, now); err != nil || time.Since(begin) > time.Second {
		t.Errorf("after the rotation: %v after %s", err, time.Since(begin))
	}
	if _, err := presentAt(t, a, old, now); err != nil {
		t.Errorf("the old key is still published: %v", err)
	}
	p.rotate(t, "second")
	if !eventually(t, 4*time.Second, func() bool { _, err := presentAt(t, a, old, now); return errors.Is(err, authn.ErrInvalid) }) {
		t.Error("a token of the removed key is still accepted")
	}
	if _, err := presentAt(t, a, fresh, now); err != nil {
		t.Errorf("a token of the key that stays: %v", err)
	}
}

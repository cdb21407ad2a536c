//go:build e2e

package e2e_test

import (
	"compress/gzip"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// bundleSite is a site whose policies come signed from a bundle server.
type bundleSite struct {
	*site
	address string // of the bundle server
	server  *process
}

func newBundleSite(t *testing.T) *bundleSite {
	t.Helper()
	b := &bundleSite{address: freeAddress(t)}
	private, public := signingKey(t)
	b.site = newSite(t, func(s *site) string { return b.policy(s, public) })
	write(t, b.file("signing.pem"), private)
	b.revision(t, 0)
	return b
}

func signingKey(t *testing.T) (private, public string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub}))
}

func (b *bundleSite) policy(s *site, public string) string {
	return fmt.Sprintf(`  opa:
    services: {bundles: {url: "http://%s"}}
    keys:
      k1: {algorithm: RS256, key: "%s"}
    persistence_directory: %s
    bundles:
      authz:
        service: bundles
        resource: bundles/authz.tar.gz
        persist: true
        signing: {keyid: k1}
        polling: {min_delay_seconds: 1, max_delay_seconds: 1, long_polling_timeout_seconds: 5}
`, b.address, strings.ReplaceAll(public, "\n", `\n`), s.file("persisted"))
}

// revision writes the policy that the bundle server packs.
func (b *bundleSite) revision(t *testing.T, n int) {
	t.Helper()
	write(t, b.file("bundles/authz/gateway.rego"), rev(n))
}

func (b *bundleSite) serve(t *testing.T) {
	t.Helper()
	b.server = start(t, "bundle", "serve", b.file("bundles"), "--address", b.address, "--signing-key", b.file("signing.pem"), "--key-id", "k1")
	eventually(t, 10*time.Second, "bundle server answers", func() bool { return status("http://"+b.address+"/bundles/authz.tar.gz") == 200 })
}

func TestBundleUnderLoad(t *testing.T) {
	b := newBundleSite(t)
	b.serve(t)
	b.start(t)
	l := b.load(t)
	again(t,
		func(n int) { b.revision(t, n) },
		func(n int) bool { return b.header(t, "X-Rev") == strconv.Itoa(n) })

	// A bundle that does not compile, and a server that is gone, change nothing.
	write(t, b.file("bundles/authz/gateway.rego"), "package gateway\n\ndecision := x")
	eventually(t, 5*time.Second, "the bundle server refuses", func() bool { return strings.Contains(b.server.stderr.String(), "unsafe") })
	b.server.stop(t)
	if got := b.header(t, "X-Rev"); got != strconv.Itoa(rounds) {
		t.Errorf("without bundle server the revision is %q, want %d", got, rounds)
	}
	l.end(t)
}

// TestRestartWithoutBundleServer starts from the persisted signed bundle.
func TestRestartWithoutBundleServer(t *testing.T) {
	b := newBundleSite(t)
	b.serve(t)
	b.start(t)
	b.server.stop(t)
	b.gateway.stop(t)

	begin := time.Now()
	b.start(t)
	t.Logf("ready %v after the start", time.Since(begin))
	if got := b.header(t, "X-Rev"); got != "0" {
		t.Errorf("revision %q from disk, want 0", got)
	}
	b.gateway.stop(t)

	// A persisted bundle that somebody changed is refused: closed.
	corruptBundle(t, b.file("persisted"))
	b.closed(t)
}

// corruptBundle flips a byte in the middle of every persisted bundle.
func corruptBundle(t *testing.T, dir string) {
	t.Helper()
	file := dir + "/bundles/authz/bundle.tar.gz"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 0x40
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// closed starts the gateway and demands that it is alive, not ready, and answers 503.
func (b *bundleSite) closed(t *testing.T) {
	t.Helper()
	b.gateway = start(t, "serve", "-c", b.file("sallyport.yaml"))
	eventually(t, 10*time.Second, "alive", func() bool { return status("http://"+b.admin+"/livez") == 200 })
	if got := status("http://" + b.admin + "/readyz"); got != 503 {
		t.Errorf("readyz answers %d, want 503", got)
	}
	resp, err := oneConnection(b.ca.pool)().Do(b.request())
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("got %d %s, want a 503 problem", resp.StatusCode, body)
	}
}

func TestStartWithoutBundleServer(t *testing.T) {
	b := newBundleSite(t)
	b.closed(t)
	b.serve(t) // and opens by itself as soon as there is a policy
	waitReady(t, b.admin)
	if got := b.header(t, "X-Rev"); got != "0" {
		t.Errorf("revision %q, want 0", got)
	}
}

// TestOPADecisionLog has the gateway upload its decisions as OPA would.
func TestOPADecisionLog(t *testing.T) {
	uploads := &output{}
	logs := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		zr, err := gzip.NewReader(r.Body)
		if err != nil {
			t.Errorf("upload to %s: %v", r.URL.Path, err)
			return
		}
		if _, err := io.Copy(uploads, zr); err != nil {
			t.Errorf("upload to %s: %v", r.URL.Path, err)
		}
	}))
	t.Cleanup(logs.Close)
	b := newBundleSite(t)
	config, err := os.ReadFile(b.file("sallyport.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(config), "    services: {", `    decision_logs: {service: logs, reporting: {min_delay_seconds: 1, max_delay_seconds: 1}}
    labels: {region: eu}
    services: {logs: {url: "`+logs.URL+`"}, `, 1)
	write(t, b.file("sallyport.yaml"), text)
	b.serve(t)
	b.start(t)
	resp, err := oneConnection(b.ca.pool)().Do(b.request())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	id := resp.Header.Get("X-Request-Id")
	eventually(t, 10*time.Second, "upload", func() bool { return strings.Contains(uploads.String(), id) })
	for _, want := range []string{`"region":"eu"`, `"path":"gateway/decision"`, `"subject":"alice"`, `"bundles":{"authz":{"revision":"`} {
		if !strings.Contains(uploads.String(), want) {
			t.Errorf("upload lacks %s: %s", want, uploads)
		}
	}
	if strings.Contains(uploads.String(), b.token) {
		t.Error("the upload holds the token")
	}
}

package server_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sallyport/sallyport/bundles"
	"github.com/sallyport/sallyport/bundles/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func write(t *testing.T, dir string, files ...string) {
	t.Helper()
	for i := 0; i < len(files); i += 2 {
		path := filepath.Join(dir, files[i])
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(files[i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func start(t *testing.T, cfg server.Config) (*server.Server, *httptest.Server) {
	t.Helper()
	s, err := server.New(context.Background(), cfg, server.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	hs := httptest.NewServer(s)
	t.Cleanup(hs.Close)
	return s, hs
}

// ask sends one request; headers are name, value, name, value...
func ask(t *testing.T, hs *httptest.Server, method, path string, headers ...string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequest(method, hs.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := hs.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, body
}

func TestServesEachSubdirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "orders/a.rego", "package a\n", "billing/b.rego", "package b\n", "README.md", "x", ".git/c.rego", "package c\n")
	_, hs := start(t, server.Config{Directory: dir})
	for _, path := range []string{"/bundles/orders", "/bundles/orders.tar.gz", "/bundles/billing.tar.gz"} {
		resp, body := ask(t, hs, "GET", path)
		if resp.StatusCode != http.StatusOK || resp.Header.Get("ETag") == "" ||
			resp.Header.Get("Content-Type") != "application/vnd.openpolicyagent.bundles" {
			t.Errorf("%s: %s, headers %v", path, resp.Status, resp.Header)
		}
		if !bytes.HasPrefix(body, []byte{0x1f, 0x8b}) {
			t.Errorf("%s: no archive", path)
		}
		head, nothing := ask(t, hs, "HEAD", path)
		if head.StatusCode != http.StatusOK || head.ContentLength != int64(len(body)) || len(nothing) != 0 {
			t.Errorf("HEAD %s: %s, length %d of %d", path, head.Status, head.ContentLength, len(body))
		}
	}
}

func TestNamesOnlyBundles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "orders/a.rego", "package a\n", ".hidden/b.rego", "package b\n")
	_, hs := start(t, server.Config{Directory: dir})
	for _, path := range []string{
		"/", "/bundles", "/bundles/", "/orders", "/bundles/none", "/bundles/.hidden", "/bundles/orders/", "/bundles/orders/a.rego",
		"/bundles//orders", "/bundles/../bundles/orders", "/bundles/%2e%2e/orders", "/bundles/..%2forders", "/bundles/%6frders%2f",
		"/bundles/orders%00", `/bundles/..\orders`,
	} {
		req, err := http.NewRequest("GET", hs.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.URL.Opaque = path // as it is, not cleaned
		resp, err := hs.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s, want 404", path, resp.Status)
		}
	}
	if resp, _ := ask(t, hs, "POST", "/bundles/orders"); resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %s, Allow %q", resp.Status, resp.Header.Get("Allow"))
	}
}

func TestOneDirectoryAsOneBundle(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "gateway/a.rego", "package a\n", "lib/b.rego", "package b\n")
	_, hs := start(t, server.Config{Directory: dir, Name: "policy"})
	resp, body := ask(t, hs, "GET", "/bundles/policy.tar.gz")
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	path := filepath.Join(t.TempDir(), "b.tar.gz")
	if err := os.WriteFile(path, body, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := bundles.Inspect(path)
	if err != nil || len(got.Files) != 2 {
		t.Errorf("%+v, %v, want both files", got, err)
	}
	if resp, _ := ask(t, hs, "GET", "/bundles/gateway"); resp.StatusCode != http.StatusNotFound {
		t.Errorf("a subdirectory is served too: %s", resp.Status)
	}
}

func TestTags(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "p/a.rego", "package a\n")
	s, hs := start(t, server.Config{Directory: dir})
	first, _ := ask(t, hs, "GET", "/bundles/p")
	etag := first.Header.Get("ETag")
	for _, match := range []string{etag, "W/" + etag, `"other", ` + etag, "*"} {
		resp, body := ask(t, hs, "GET", "/bundles/p", "If-None-Match", match)
		if resp.StatusCode != http.StatusNotModified || len(body) != 0 || resp.Header.Get("ETag") != etag {
			t.Errorf("If-None-Match %s: %s with %d bytes, ETag %s", match, resp.Status, len(body), resp.Header.Get("ETag"))
		}
	}
	if err := s.Reload(context.Background()); err != nil {
		t.Fatal(err)
	}
	if resp, _ := ask(t, hs, "GET", "/bundles/p"); resp.Header.Get("ETag") != etag {
		t.Error("the tag changed although no file did")
	}
	write(t, dir, "p/a.rego", "package a\n\nx := 1\n")
	if err := s.Reload(context.Background()); err != nil {
		t.Fatal(err)
	}
	if resp, _ := ask(t, hs, "GET", "/bundles/p", "If-None-Match", etag); resp.StatusCode != http.StatusOK || resp.Header.Get("ETag") == etag {
		t.Errorf("after a change: %s, ETag %s", resp.Status, resp.Header.Get("ETag"))
	}
}

func signing(t *testing.T) *bundles.Signing {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &bundles.Signing{KeyFile: file, KeyID: "release", Algorithm: "ES256"}
}

// ES256 signatures are random: two servers sign the same content differently, and
// a client that is balanced between them must not download it in turns.
func TestReplicasAgreeOnTheTag(t *testing.T) {
	t.Parallel()
	sign := signing(t)
	tags := map[string]bool{}
	for range 2 {
		dir := t.TempDir()
		write(t, dir, "p/a.rego", "package a\n")
		_, hs := start(t, server.Config{Directory: dir, Signing: sign})
		resp, _ := ask(t, hs, "GET", "/bundles/p")
		tags[resp.Header.Get("ETag")] = true
	}
	dir := t.TempDir()
	write(t, dir, "p/a.rego", "package a\n")
	if len(tags) != 1 {
		t.Errorf("two replicas have the tags %v", tags)
	}
	_, hs := start(t, server.Config{Directory: dir, Signing: signing(t)})
	if resp, _ := ask(t, hs, "GET", "/bundles/p"); tags[resp.Header.Get("ETag")] {
		t.Error("another key gives the same tag: its signature would never arrive")
	}
}

func TestLongPoll(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "p/a.rego", "package a\n")
	s, hs := start(t, server.Config{Directory: dir})
	first, _ := ask(t, hs, "GET", "/bundles/p", "Prefer", "modes=snapshot,delta;wait=30")
	etag := first.Header.Get("ETag")

	type answer struct {
		status int
		took   time.Duration
	}
	poll := func() <-chan answer {
		out := make(chan answer, 1)
		begin := time.Now()
		go func() {
			req, err := http.NewRequest("GET", hs.URL+"/bundles/p", nil)
			if err != nil {
				panic(err)
			}
			req.Header.Set("If-None-Match", etag)
			req.Header.Set("Prefer", "modes=snapshot,delta;wait=30")
			resp, err := hs.Client().Do(req)
			if err != nil {
				panic(err)
			}
			_ = resp.Body.Close()
			out <- answer{resp.StatusCode, time.Since(begin)}
		}()
		return out
	}
	waiting := poll()
	select {
	case a := <-waiting:
		t.Fatalf("answered at once: %+v", a)
	case <-time.After(100 * time.Millisecond): // long enough to be held, whatever the machine does
	}
	write(t, dir, "p/a.rego", "package a\n\nx := 1\n")
	if err := s.Reload(context.Background()); err != nil {
		t.Fatal(err)
	}
	if a := <-waiting; a.status != http.StatusOK || a.took > 20*time.Second {
		t.Errorf("after a change: %+v, want 200 at once", a)
	}

	resp, _ := ask(t, hs, "GET", "/bundles/p")
	etag = resp.Header.Get("ETag")
	waiting = poll()
	s.Drain()
	s.Drain() // once more harms nobody
	if a := <-waiting; a.status != http.StatusNotModified || a.took > 20*time.Second {
		t.Errorf("after Drain: %+v, want 304 at once", a)
	}
	begin := time.Now()
	if resp, _ := ask(t, hs, "GET", "/bundles/p", "If-None-Match", etag, "Prefer", "wait=1"); resp.StatusCode != http.StatusNotModified || time.Since(begin) > 20*time.Second {
		t.Errorf("a poll after Drain: %s after %v", resp.Status, time.Since(begin))
	}
}

func TestKeepsTheLastGood(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "good/a.rego", "package a\n", "other/b.rego", "package b\n", "never/c.rego", "package c\n\nx := ")
	s, hs := start(t, server.Config{Directory: dir})
	first, want := ask(t, hs, "GET", "/bundles/good")
	write(t, dir, "good/a.rego", "package a\n\nx if input.nothing\n", "other/b.rego", "package b\n\nx := 1\n")
	err := s.Reload(context.Background())
	for _, part := range []string{"bundle good", "good/a.rego:3", "bundle never"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error %v, want it to have %q", err, part)
		}
	}
	resp, got := ask(t, hs, "GET", "/bundles/good")
	if resp.Header.Get("ETag") != first.Header.Get("ETag") || !bytes.Equal(got, want) {
		t.Error("the last good bundle is gone")
	}
	st := s.Status()
	if st["good"].Error == "" || st["good"].Revision == "" || st["other"].Error != "" || st["never"].ETag != "" || st["never"].Error == "" {
		t.Errorf("status %+v", st)
	}
	if resp, _ := ask(t, hs, "GET", "/bundles/never"); resp.StatusCode != http.StatusNotFound {
		t.Errorf("a bundle that never was: %s", resp.Status)
	}
	write(t, dir, "good/a.rego", "package a\n\nx := 1\n", "never/c.rego", "package c\n")
	if err := os.RemoveAll(filepath.Join(dir, "other")); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(context.Background()); err != nil {
		t.Fatal(err)
	}
	if st := s.Status(); st["good"].Error != "" || st["never"].ETag == "" || len(st) != 2 {
		t.Errorf("status after mending %+v", st)
	}
}

func TestToken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "policies/p/a.rego", "package a\n", "token", "one\n")
	cfg := server.Config{Directory: filepath.Join(dir, "policies"), TokenFile: filepath.Join(dir, "token")}
	s, hs := start(t, cfg)
	expect := func(want int, headers ...string) {
		t.Helper()
		resp, _ := ask(t, hs, "GET", "/bundles/p", headers...)
		if resp.StatusCode != want || want == http.StatusUnauthorized && resp.Header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%v: %s, want %d", headers, resp.Status, want)
		}
	}
	expect(http.StatusUnauthorized)
	expect(http.StatusUnauthorized, "Authorization", "Bearer two")
	expect(http.StatusUnauthorized, "Authorization", "Bearer ")
	expect(http.StatusUnauthorized, "Authorization", "Basic one")
	expect(http.StatusUnauthorized, "Authorization", "one")
	expect(http.StatusUnauthorized, "Authorization", "Bearer one", "Authorization", "Bearer one")
	expect(http.StatusOK, "Authorization", "Bearer one")
	expect(http.StatusOK, "Authorization", "bearer one")

	write(t, dir, "token", "two")
	if err := s.Reload(context.Background()); err != nil {
		t.Fatal(err)
	}
	expect(http.StatusUnauthorized, "Authorization", "Bearer one")
	expect(http.StatusOK, "Authorization", "Bearer two")

	write(t, dir, "token", "\n")
	if err := s.Reload(context.Background()); err == nil {
		t.Error("an empty token was accepted")
	}
	expect(http.StatusOK, "Authorization", "Bearer two")
	expect(http.StatusUnauthorized, "Authorization", "Bearer ")
}

func TestDoesNotStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "ok/p/a.rego", "package a\n", "broken/p/a.rego", "package a\n\nx := ", "empty/README", "")
	for name, cfg := range map[string]server.Config{
		"no directory":     {Directory: filepath.Join(dir, "none")},
		"nothing to build": {Directory: filepath.Join(dir, "broken")},
		"no bundle":        {Directory: filepath.Join(dir, "empty")},
		"no token file":    {Directory: filepath.Join(dir, "ok"), TokenFile: filepath.Join(dir, "none")},
		"no key":           {Directory: filepath.Join(dir, "ok"), Signing: &bundles.Signing{KeyFile: filepath.Join(dir, "none"), KeyID: "k"}},
	} {
		if _, err := server.New(context.Background(), cfg, server.Deps{}); err == nil {
			t.Errorf("%s: it starts", name)
		}
	}
}

func TestFilesNamesAllThatMatters(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "policies/p/a.rego", "package a\n", "token", "one\n")
	sign := signing(t)
	s, _ := start(t, server.Config{Directory: filepath.Join(dir, "policies"), TokenFile: filepath.Join(dir, "token"), Signing: sign})
	if got := strings.Join(s.Files(), " "); got != filepath.Join(dir, "policies")+" "+filepath.Join(dir, "token")+" "+sign.KeyFile {
		t.Errorf("files %s", got)
	}
}

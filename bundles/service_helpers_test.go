package bundles_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/sallyport/sallyport/bundles"
)

// keyPair is a key on disk, as signing wants it, and its public half as text, as
// OPA's configuration wants it.
type keyPair struct {
	file, public, publicFile, algorithm string
}

func newKey(t testing.TB, algorithm string) keyPair {
	t.Helper()
	dir := t.TempDir()
	k := keyPair{file: filepath.Join(dir, "key.pem"), publicFile: filepath.Join(dir, "public.pem"), algorithm: algorithm}
	if algorithm[:2] == "HS" {
		k.public = "a secret that is long enough for everybody"
		write(t, dir, "key.pem", k.public, "public.pem", k.public)
		return k
	}
	private, public := generate(t, algorithm)
	privateDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	publicDER, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	k.public = string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: publicDER}))
	write(t, dir,
		"key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: privateDER})),
		"public.pem", k.public)
	return k
}

func generate(t testing.TB, algorithm string) (private, public any) {
	t.Helper()
	if algorithm[:2] == "ES" {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key, &key.PublicKey
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key, &key.PublicKey
}

func (k keyPair) signing(id string) *bundles.Signing {
	return &bundles.Signing{KeyFile: k.file, KeyID: id, Algorithm: k.algorithm}
}

// build packs files into a bundle.
func build(t testing.TB, signing *bundles.Signing, files ...string) []byte {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, files...)
	b, err := bundles.Build(context.Background(), bundles.Building{Paths: []string{dir}, Signing: signing})
	if err != nil {
		t.Fatal(err)
	}
	return b.Archive
}

// pack writes a tarball without anybody looking at what is in it.
func pack(t testing.TB, files ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	zw := gzip.NewWriter(&out)
	tw := tar.NewWriter(zw)
	for i := 0; i < len(files); i += 2 {
		if err := tw.WriteHeader(&tar.Header{Name: files[i], Mode: 0o600, Size: int64(len(files[i+1])), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(files[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// shelf is a bundle server that serves whatever bytes it is given, right or wrong.
type shelf struct {
	*httptest.Server
	answer   atomic.Pointer[http.HandlerFunc]
	requests atomic.Int64
	matched  atomic.Int64 // answers with 304
}

func newShelf(t testing.TB, archive []byte) *shelf {
	t.Helper()
	s := &shelf{}
	s.serve(archive)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		(*s.answer.Load())(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *shelf) serve(archive []byte) {
	sum := sha256.Sum256(archive)
	etag := `"` + hex.EncodeToString(sum[:8]) + `"`
	s.handle(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", etag)
		if r.Header.Get("If-None-Match") == etag {
			s.matched.Add(1)
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write(archive)
	})
}

func (s *shelf) handle(f http.HandlerFunc) { s.answer.Store(&f) }

// opaConfig is policy.opa for one bundle "policy" of the service at url, polled
// as fast as the gateway allows. Without a key the bundle need not be signed.
func opaConfig(url string, key *keyPair) map[string]any {
	source := map[string]any{
		"service": "bundler",
		"polling": map[string]any{"min_delay_seconds": 0, "max_delay_seconds": 0},
	}
	out := map[string]any{
		"services": map[string]any{"bundler": map[string]any{"url": url}},
		"bundles":  map[string]any{"policy": source},
	}
	if key != nil {
		source["signing"] = map[string]any{"keyid": "release"}
		out["keys"] = map[string]any{"release": map[string]any{"key": key.public, "algorithm": key.algorithm}}
	}
	return out
}

func persisted(cfg map[string]any, dir string) map[string]any {
	cfg["persistence_directory"] = dir
	cfg["bundles"].(map[string]any)["policy"].(map[string]any)["persist"] = true
	return cfg
}

// flipped returns the archive with one bit of its middle changed.
func flipped(archive []byte) []byte {
	out := bytes.Clone(archive)
	out[len(out)/2] ^= 1
	return out
}

// waitFor waits until the source says something.
func waitFor(t testing.TB, s bundles.Source, what string, ok func(bundles.Status) bool) {
	t.Helper()
	eventually(t, func() bool { return ok(s.Status()) }, func() string {
		return fmt.Sprintf("waiting for %s: %+v", what, s.Status())
	})
}

func isReady(s bundles.Status) bool  { return s.Ready }
func hasError(s bundles.Status) bool { return s.Bundles["policy"].LastError != "" }
func isMended(s bundles.Status) bool { return s.Bundles["policy"].LastError == "" && s.Error == "" }
func readFile(t testing.TB, path string) []byte {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

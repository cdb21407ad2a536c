package bundles_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/bundles"
)

func buildDir(t *testing.T, b bundles.Building, files ...string) *bundles.Built {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, files...)
	b.Paths = []string{dir}
	out, err := bundles.Build(context.Background(), b)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func save(t *testing.T, archive []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bundle.tar.gz")
	if err := os.WriteFile(path, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestBuildAndInspect(t *testing.T) {
	t.Parallel()
	key := newKey(t, "RS256")
	built := buildDir(t, bundles.Building{Revision: "v7", Signing: key.signing("release")},
		"gateway/gateway.rego", saying("x"), "gateway/gateway_test.rego", "package gateway_test\n",
		"access/data.json", `{"grants": []}`, ".manifest", `{"roots": ["gateway", "access"], "metadata": {"team": "edge"}}`)
	got, err := bundles.Inspect(save(t, built.Archive))
	if err != nil {
		t.Fatal(err)
	}
	want := &bundles.Inspection{
		Revision: "v7", Type: "snapshot", Roots: []string{"gateway", "access"}, RegoVersion: 1,
		Metadata: map[string]any{"team": "edge"},
		Files:    []bundles.InspectedFile{{Name: "gateway/gateway.rego", Size: len(saying("x")), Package: "data.gateway", RegoVersion: 1}},
		Data:     []string{"access"},
		Signatures: []bundles.InspectedToken{{
			KeyID: "release", Algorithm: "RS256", Claims: map[string]any{"keyid": "release"}, Files: 3,
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("inspection (-want +got):\n%s", diff)
	}
}

func TestBuildIsReproducible(t *testing.T) {
	t.Parallel()
	files := []string{"gateway.rego", saying("x"), "data.json", `{"a": {"b": 1}, "c": 2}`}
	one, two := buildDir(t, bundles.Building{}, files...), buildDir(t, bundles.Building{}, files...)
	if !bytes.Equal(one.Archive, two.Archive) {
		t.Error("the same files in another folder give another archive")
	}
	if one.Revision == "" || one.Revision != one.Content {
		t.Errorf("revision %q of content %q, want the hash of the content", one.Revision, one.Content)
	}
	changed := buildDir(t, bundles.Building{}, "gateway.rego", saying("y"))
	if changed.Revision == one.Revision {
		t.Error("other content has the same revision")
	}
}

func TestBuildOptimizes(t *testing.T) {
	t.Parallel()
	policy := "package gateway\n\ndecision := {\"allow\": data.flag, \"reason\": \"r\"}\n"
	files := []string{"gateway.rego", policy, "data.json", `{"flag": false}`}
	built := buildDir(t, bundles.Building{Optimize: 1, Entrypoints: []string{"gateway/decision"}}, files...)
	e := newEngine(t)
	shelf := newShelf(t, built.Archive)
	s := newSource(t, bundles.Config{OPA: opaConfig(shelf.URL, nil)}, e)
	run(t, s)
	waitFor(t, s, "the optimized bundle", isReady)
	if got := reason(t, e); got != "r" {
		t.Errorf("decided %q, want r", got)
	}
}

func TestBuildRefuses(t *testing.T) {
	t.Parallel()
	key := newKey(t, "RS256")
	for name, tc := range map[string]struct {
		building bundles.Building
		files    []string
		want     string
	}{
		"nothing":         {bundles.Building{}, []string{"data.json", "{}"}, "no policy found"},
		"type error":      {bundles.Building{}, []string{"a.rego", "package a\n\nx if input.nothing\n"}, "undefined ref: input.nothing"},
		"outside roots":   {bundles.Building{Roots: []string{"b"}}, []string{"a.rego", "package a\n"}, "do not permit"},
		"no key id":       {bundles.Building{Signing: &bundles.Signing{KeyFile: key.file}}, []string{"a.rego", "package a\n"}, "key id"},
		"no key":          {bundles.Building{Signing: &bundles.Signing{KeyFile: "none", KeyID: "k"}}, []string{"a.rego", "package a\n"}, "read signing key"},
		"algorithm":       {bundles.Building{Signing: &bundles.Signing{KeyFile: key.file, KeyID: "k", Algorithm: "none"}}, []string{"a.rego", "package a\n"}, "not a signature algorithm"},
		"broken manifest": {bundles.Building{}, []string{"a.rego", "package a\n", ".manifest", "{"}, ".manifest"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, dir, tc.files...)
			tc.building.Paths = []string{dir}
			_, err := bundles.Build(context.Background(), tc.building)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

func TestSignAndVerify(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []string{"RS256", "PS384", "ES256", "HS512"} {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			key, other := newKey(t, algorithm), newKey(t, "RS256")
			unsigned := save(t, build(t, nil, "gateway.rego", saying("x"), "a/data.json", `{"b": [1, 2.5, "x"]}`))
			var signed bytes.Buffer
			if err := bundles.Sign(unsigned, *key.signing("release"), &signed); err != nil {
				t.Fatal(err)
			}
			verification := bundles.Verification{KeyFile: key.publicFile, KeyID: "release", Algorithm: algorithm}
			got, err := bundles.Verify(save(t, signed.Bytes()), verification)
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Signatures) != 1 || got.Signatures[0].KeyID != "release" || got.Signatures[0].Algorithm != algorithm {
				t.Errorf("signatures %+v", got.Signatures)
			}
			for name, archive := range map[string][]byte{
				"unsigned":    readFile(t, unsigned),
				"changed":     swap(t, signed.Bytes(), "gateway.rego", saying("y")),
				"added":       add(t, signed.Bytes(), "more.rego", "package more\n"),
				"flipped":     flipped(signed.Bytes()),
				"other key":   build(t, other.signing("release"), "gateway.rego", saying("x")),
				"checksum":    badChecksum(signed.Bytes()),
				"delta":       pack(t, "patch.json", `{"data":[]}`, ".signatures.json", `{"signatures":["x"]}`),
				"two of them": swap(t, signed.Bytes(), ".signatures.json", `{"signatures":["a","b"]}`),
			} {
				if _, err := bundles.Verify(save(t, archive), verification); err == nil {
					t.Errorf("%s: verified", name)
				}
			}
		})
	}
}

// badChecksum breaks nothing but gzip's checksum of the content.
func badChecksum(archive []byte) []byte {
	out := bytes.Clone(archive)
	out[len(out)-8] ^= 1
	return out
}

func TestSignDirectoryMatchesItsFiles(t *testing.T) {
	t.Parallel()
	key := newKey(t, "ES256")
	archive := signedRaw(t, key, "gateway.rego", saying("x"), "a/data.json", "{ \"b\": 1 }", "y/data.yaml", "z: 1\n", ".manifest", `{"revision": "r"}`)
	got, err := bundles.Verify(save(t, archive), bundles.Verification{KeyFile: key.publicFile, KeyID: "release", Algorithm: "ES256"})
	if err != nil {
		t.Fatal(err)
	}
	if got.Signatures[0].Files != 4 {
		t.Errorf("%d files signed, want 4", got.Signatures[0].Files)
	}
}

func TestSignWithClaims(t *testing.T) {
	t.Parallel()
	key, dir := newKey(t, "RS256"), t.TempDir()
	write(t, dir, "claims.json", `{"scope": "production", "iss": "release pipeline"}`)
	signing := key.signing("release")
	signing.ClaimsFile = filepath.Join(dir, "claims.json")
	path := save(t, build(t, signing, "gateway.rego", saying("x")))
	v := bundles.Verification{KeyFile: key.publicFile, KeyID: "release", Scope: "production"}
	got, err := bundles.Verify(path, v)
	if err != nil {
		t.Fatal(err)
	}
	if got.Signatures[0].Claims["iss"] != "release pipeline" {
		t.Errorf("claims %v", got.Signatures[0].Claims)
	}
	v.Scope = "staging"
	if _, err := bundles.Verify(path, v); err == nil || !strings.Contains(err.Error(), "scope mismatch") {
		t.Errorf("another scope: %v", err)
	}
}

func TestSecretThatIsAFileNameIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "secret", filepath.Join(dir, "other"), "other", "x", "p/a.rego", "package a\n")
	_, err := bundles.Build(context.Background(), bundles.Building{
		Paths:   []string{filepath.Join(dir, "p")},
		Signing: &bundles.Signing{KeyFile: filepath.Join(dir, "secret"), KeyID: "k", Algorithm: "HS256"},
	})
	if err == nil || !strings.Contains(err.Error(), "name of an existing file") {
		t.Errorf("error %v", err)
	}
}

func TestInspectionIsJSON(t *testing.T) {
	t.Parallel()
	got, err := bundles.Inspect(save(t, build(t, nil, "gateway.rego", saying("x"))))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(got)
	if err != nil || !strings.Contains(string(raw), `"rego_version":1`) {
		t.Errorf("%s, %v", raw, err)
	}
}

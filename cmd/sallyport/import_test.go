package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/app"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/edgestack"
	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

// TestImportedPassesCheck: once the files are there that the import asks for, check takes
// what each example becomes.
func TestImportedPassesCheck(t *testing.T) {
	examples, err := filepath.Glob("internal/edgestack/testdata/*.yaml")
	if err != nil || len(examples) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, example := range examples {
		t.Run(filepath.Base(example), func(t *testing.T) {
			data, err := os.ReadFile(example)
			if err != nil {
				t.Fatal(err)
			}
			// Keys are not fetched over the open network, which the import says.
			data = bytes.ReplaceAll(data, []byte("jwksURI: http://"), []byte("jwksURI: https://"))
			fill := map[string]string{"": "https://idp.example"}
			res, err := edgestack.Import([]edgestack.File{{Name: example, Data: data}}, edgestack.Options{Issuers: fill, Audiences: fill})
			if err != nil {
				t.Fatal(err)
			}
			if err := checkImported(t, res); err != nil {
				t.Errorf("%v\n%s", err, res.Config)
			}
		})
	}
}

// checkImported is what check says of what was imported, with the files that it asks for.
func checkImported(t *testing.T, res *edgestack.Result) error {
	t.Helper()
	dir := t.TempDir()
	put := func(name string, data []byte) {
		name = filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		certstest.Write(t, name, data)
	}
	put("sallyport.yaml", res.Config)
	put(edgestack.PolicyFile, res.Policy)
	for _, w := range res.Written {
		put(w.Path, w.Data)
	}
	ca := certstest.NewCA(t, "Shop")
	for _, f := range res.Files {
		switch filepath.Base(f.Path) {
		case "tls.crt":
			put(f.Path, nil)
			name := strings.TrimSuffix(filepath.Join(dir, filepath.FromSlash(f.Path)), ".crt")
			certstest.WritePair(t, ca.Issue(t, "shop.example", nil), name+".crt", name+".key")
		case "tls.key":
		case "ca.crt":
			put(f.Path, ca.PEM())
		case "crl.pem":
			put(f.Path, ca.RevocationList(t, time.Now().Add(time.Hour)))
		case "api-keys.yaml":
			put(f.Path, []byte("- {id: one, subject: one, sha256: "+strings.Repeat("5e", 32)+"}\n"))
		default:
			put(f.Path, []byte(strings.Repeat("5e", 32)+"\n"))
		}
	}
	return app.Check(t.Context(), app.Options{ConfigFile: filepath.Join(dir, "sallyport.yaml"), Stderr: io.Discard})
}

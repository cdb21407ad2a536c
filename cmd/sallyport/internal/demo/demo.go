// Package demo is the gateway's main job in one process on loopback: a token
// issuer that signs whatever it is asked for, an upstream that echoes what it
// received, and the configuration that puts the gateway between them.
//
// Nothing of it is fit for production, and it says so: the issuer trusts
// everyone. The same configuration can be written to a folder to go on from.
package demo

import (
	"bytes"
	_ "embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"text/template"
	"time"

	"github.com/sallyport/sallyport/policies"
)

// Where the demo listens, as the documentation says; and what its tokens are for.
const (
	Gateway  = "127.0.0.1:8080"
	Admin    = "127.0.0.1:9901"
	Tokens   = "127.0.0.1:8081"
	Upstream = "127.0.0.1:8082"
	Audience = "demo"
)

//go:embed sallyport.yaml.tmpl
var configText string

// Addresses are where the parts listen. Tests use other ports.
type Addresses struct{ Gateway, Admin, Tokens, Upstream string }

// Default returns the documented addresses.
func Default() Addresses {
	return Addresses{Gateway: Gateway, Admin: Admin, Tokens: Tokens, Upstream: Upstream}
}

// settings fill the configuration template.
type settings struct {
	Addresses
	Audience string
	// KeysFile replaces the issuer's key set URL: files to go on from have no
	// issuer beside them.
	KeysFile string
}

// WriteConfig writes sallyport.yaml and the default policy into dir, for a
// gateway that runs beside the demo's issuer and upstream.
func WriteConfig(dir string, at Addresses) error {
	return write(dir, settings{Addresses: at, Audience: Audience})
}

// WriteFiles writes the demo as files to go on from: configuration, policy, a
// key set, and tokens of a reader and a writer that are valid for a day.
func WriteFiles(dir string, at Addresses, now time.Time) error {
	issuer, err := NewIssuer("http://" + at.Tokens)
	if err != nil {
		return err
	}
	if err := write(dir, settings{Addresses: at, Audience: Audience, KeysFile: "keys/jwks.json"}); err != nil {
		return err
	}
	keys, err := issuer.KeySet()
	if err != nil {
		return err
	}
	if err := writeFile(dir, "keys/jwks.json", keys, 0o644); err != nil {
		return err
	}
	for subject, role := range map[string]string{"alice": "reader", "bob": "writer"} {
		token, err := issuer.Token(subject, []string{role}, now, 24*time.Hour)
		if err != nil {
			return err
		}
		if err := writeFile(dir, filepath.Join("tokens", role+".jwt"), []byte(token+"\n"), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func write(dir string, s settings) error {
	t, err := template.New("sallyport.yaml").Parse(configText)
	if err != nil {
		return fmt.Errorf("read the demo's configuration: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, s); err != nil {
		return fmt.Errorf("write the demo's configuration: %w", err)
	}
	if err := writeFile(dir, "sallyport.yaml", b.Bytes(), 0o644); err != nil {
		return err
	}
	return fs.WalkDir(policies.Tree(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(policies.Tree(), name)
		if err != nil {
			return fmt.Errorf("read the embedded policy %s: %w", name, err)
		}
		return writeFile(dir, filepath.Join("policies", name), data, 0o644)
	})
}

// writeFile creates a file and its folders, and never overwrites one: a folder
// to go on from may hold somebody's work.
func writeFile(dir, name string, data []byte, mode fs.FileMode) error {
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // a gateway under another user reads the configuration
		return fmt.Errorf("write the demo's files: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode) //nolint:gosec // below the folder that the operator names
	if err != nil {
		return fmt.Errorf("write the demo's files: %w (choose an empty folder)", err)
	}
	if _, err := f.Write(data); err != nil {
		_ = f.Close() // the write's error says more
		return fmt.Errorf("write the demo's files: %w", err)
	}
	return f.Close()
}

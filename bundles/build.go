package bundles

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/compile"
)

// manifestFile holds what the files of a bundle do not say themselves.
const manifestFile = ".manifest"

// Building says what to put into a bundle.
type Building struct {
	Paths        []string          // files and directories, read as `policy.paths` reads them; tests stay out
	Revision     string            // empty: a hash of the content
	Roots        []string          // paths of data that the bundle owns; empty: those of DIR/.manifest, else everything
	Entrypoints  []string          // rules that optimization keeps
	Optimize     int               // 0, 1 or 2, as for `opa build`
	Capabilities *ast.Capabilities // what policies may call; nil: all of OPA
	Signing      *Signing          // nil: not signed
}

// Built is a bundle archive.
type Built struct {
	Archive  []byte
	Revision string
	Content  string // hash of what the bundle decides with, whatever its revision and signature
}

// Build compiles the policies, checks them as Check does, and packs them. The
// same files give the same archive, except that ES and PS signatures are random.
func Build(ctx context.Context, b Building) (*Built, error) {
	t, err := loading{paths: b.Paths, caps: b.Capabilities}.load()
	if err != nil {
		return nil, err
	}
	if _, err := t.compile(ctx, b.Capabilities); err != nil {
		return nil, err
	}
	content, err := t.revision()
	if err != nil {
		return nil, err
	}
	bdl, err := b.bundle(t)
	if err != nil {
		return nil, err
	}
	out := &Built{Revision: b.Revision, Content: content}
	if out.Revision == "" {
		out.Revision = content
	}
	if out.Archive, err = b.pack(ctx, bdl, out.Revision); err != nil {
		return nil, err
	}
	return out, nil
}

func (b Building) bundle(t *tree) (*bundle.Bundle, error) {
	manifest, err := b.manifest()
	if err != nil {
		return nil, err
	}
	out := &bundle.Bundle{Manifest: *manifest, Data: t.data}
	out.SetRegoVersion(ast.RegoV1)
	taken := map[string]string{}
	for _, file := range t.files() {
		name := "/" + t.names[file]
		if other, ok := taken[name]; ok {
			return nil, fmt.Errorf("%s and %s would both be %s in the bundle", other, file, name)
		}
		taken[name] = file
		out.Modules = append(out.Modules, bundle.ModuleFile{URL: name, Path: name, Parsed: t.modules[file], Raw: t.raw[file]})
	}
	return out, nil
}

// manifest takes roots and metadata from DIR/.manifest when one directory is
// packed; the rest of a manifest is for this function's caller to decide.
func (b Building) manifest() (*bundle.Manifest, error) {
	out := &bundle.Manifest{}
	if len(b.Paths) == 1 {
		raw, err := os.ReadFile(filepath.Join(b.Paths[0], manifestFile))
		switch {
		case err == nil:
			if err := json.Unmarshal(raw, out); err != nil {
				return nil, fmt.Errorf("read %s: %w", filepath.Join(b.Paths[0], manifestFile), err)
			}
		case !errors.Is(err, fs.ErrNotExist) && !isFile(b.Paths[0]):
			return nil, fmt.Errorf("read manifest: %w", err)
		}
	}
	if len(b.Roots) > 0 {
		out.Roots = &b.Roots
	}
	out.Init()
	return out, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir()
}

func (b Building) pack(ctx context.Context, bdl *bundle.Bundle, revision string) ([]byte, error) {
	var out bytes.Buffer
	c := compile.New().
		WithBundle(bdl).
		WithRegoVersion(ast.RegoV1).
		WithRevision(revision).
		WithEntrypoints(b.Entrypoints...).
		WithOptimizationLevel(b.Optimize).
		WithOutput(&out)
	if b.Capabilities != nil {
		c = c.WithCapabilities(b.Capabilities)
	}
	if b.Signing != nil {
		sc, err := b.Signing.config()
		if err != nil {
			return nil, err
		}
		c = c.WithBundleSigningConfig(sc).WithBundleVerificationKeyID(b.Signing.KeyID)
	}
	if err := c.Build(ctx); err != nil {
		return nil, fmt.Errorf("build bundle: %w", err)
	}
	// What a gateway would refuse is refused here: modules outside of the roots,
	// for example.
	if _, err := parseArchive(out.Bytes(), nil); err != nil {
		return nil, fmt.Errorf("read back the bundle: %w", err)
	}
	return out.Bytes(), nil
}

// WriteTo writes the archive.
func (b *Built) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(b.Archive)
	return int64(n), err
}

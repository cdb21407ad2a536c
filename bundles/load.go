package bundles

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/loader"
)

// errNothing is what an empty policy directory is: most likely a mount that is
// not there, and no reason to run without policies.
var errNothing = errors.New("no policy found: no .rego file below these paths")

// tree is what a list of files and directories holds.
type tree struct {
	modules map[string]*ast.Module
	raw     map[string][]byte // source of each module
	names   map[string]string // of each module, below the path that it was found under
	data    map[string]any
}

// loading says how to read policies.
type loading struct {
	paths []string
	fsys  fs.FS // nil: the file system
	caps  *ast.Capabilities
	tests bool       // take *_test.rego too
	aside *dataFiles // takes .json files before they are decoded; nil: they become Go values
}

// load reads .rego, .json, .yaml and .tar.gz below the paths, rooted as `opa run`
// roots them: data in DIR/a/b/x.json becomes data.a.b.
func (l loading) load() (*tree, error) {
	if len(l.paths) == 0 {
		return nil, errNothing
	}
	fl := loader.NewFileLoader().
		WithProcessAnnotation(true).
		WithRegoVersion(ast.RegoV1).
		WithCapabilities(l.caps)
	if l.fsys != nil {
		fl = fl.WithFS(l.fsys)
	}
	filter := l.skip
	if l.aside != nil {
		filter = l.aside.filter(l.skip)
	}
	res, err := fl.Filtered(l.paths, filter)
	if err != nil {
		return nil, err
	}
	return l.newTree(res)
}

func (l loading) newTree(res *loader.Result) (*tree, error) {
	t := &tree{modules: map[string]*ast.Module{}, raw: map[string][]byte{}, names: map[string]string{}, data: res.Documents}
	for _, file := range res.Modules {
		name := file.Name             // with the leading "/" that the key has lost
		if isTest(name) && !l.tests { // inside a tarball, which skip does not see
			continue
		}
		t.modules[name], t.raw[name], t.names[name] = file.Parsed, file.Raw, l.below(name)
	}
	if len(t.modules) == 0 {
		return nil, fmt.Errorf("load %s: %w", strings.Join(l.paths, ", "), errNothing)
	}
	return t, nil
}

// skip leaves out tests, which are not part of the policy that is live, and
// hidden files: a mounted ConfigMap has each file three times, twice below
// directories that start with a dot.
func (l loading) skip(_ string, info fs.FileInfo, depth int) bool {
	if depth > 0 && strings.HasPrefix(info.Name(), ".") {
		return true
	}
	return !l.tests && !info.IsDir() && isTest(info.Name())
}

// below returns the file's name below the path that it was found under: where
// policies were loaded from is no part of them.
func (l loading) below(file string) string {
	for _, p := range l.paths {
		rel, err := filepath.Rel(p, file)
		switch {
		case err != nil || strings.HasPrefix(rel, ".."):
			continue
		case rel == ".":
			return filepath.Base(file)
		default:
			return filepath.ToSlash(rel)
		}
	}
	return strings.TrimPrefix(filepath.ToSlash(file), "/")
}

func isTest(name string) bool { return strings.HasSuffix(name, "_test.rego") }

// files returns the modules in the order of their names.
func (t *tree) files() []string {
	return slices.SortedFunc(maps.Keys(t.names), func(a, b string) int {
		return cmp.Or(cmp.Compare(t.names[a], t.names[b]), cmp.Compare(a, b))
	})
}

// revision names the content of the tree: the same files give the same name on
// every replica, and a changed rule or datum another.
func (t *tree) revision() (string, error) {
	h := sha256.New()
	for _, file := range t.files() {
		_, _ = fmt.Fprintf(h, "%d:%s%d:", len(t.names[file]), t.names[file], len(t.raw[file]))
		h.Write(t.raw[file])
	}
	if err := json.NewEncoder(h).Encode(t.data); err != nil {
		return "", fmt.Errorf("hash data: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

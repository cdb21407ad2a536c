package cmd_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/sallyport/sallyport/"

// mayImport is the direction of imports: cmd -> bundles -> engine -> engine/authz
// <- proxy <- cmd. A package belongs to the longest prefix that matches it, and
// imports packages of the module only from the prefixes on the right.
var mayImport = map[string][]string{
	"engine/authz":   {},
	"engine/setting": {},
	"engine/meter":   {"engine/meter"},
	"engine":         {"engine"},
	"policies":       {},
	"bundles":        {"bundles", "engine", "policies"},
	"proxy":          {"proxy", "engine/authz", "engine/meter", "engine/setting"},
	"cmd":            {"cmd", "bundles", "engine", "policies", "proxy"},
	"bench":          {"bench"},
}

// leaves import nothing but the standard library and, where they have several
// packages, themselves.
var leaves = []string{"engine/authz", "engine/meter", "engine/setting"}

// onlyFrom keeps a library behind one package. The reasons stand in docs/decisions.
var onlyFrom = map[string][]string{
	"github.com/valyala/fasthttp":        {"proxy", "cmd/sallyport/internal/demo", "bench"},
	"github.com/lestrrat-go/jwx":         {"proxy/authn/jose"},
	"github.com/dunglas/httpsfv":         {"proxy/authn/httpsignature"},
	"github.com/redis/go-redis":          {"proxy/redis", "proxy/session"},
	"github.com/bsm/redislock":           {"proxy/session"},
	"github.com/open-policy-agent/opa":   {"engine", "bundles", "policies", "cmd"},
	"go.opentelemetry.io/otel/sdk":       {"cmd/sallyport/internal/telemetry"},
	"go.opentelemetry.io/otel/exporters": {"cmd/sallyport/internal/telemetry"},
	"github.com/spf13/cobra":             {"cmd/sallyport"},
	"github.com/fsnotify/fsnotify":       {"cmd/sallyport/internal/watch"},
}

// neverReaches holds for the whole graph, third parties included.
var neverReaches = map[string]string{
	"./engine/...": "github.com/valyala/fasthttp",
	"./proxy/...":  "github.com/open-policy-agent/opa",
}

type source struct {
	dir     string // package folder, relative to the module
	file    string
	imports []string
	ast     *ast.File
}

// sources parses every Go file of the module. It reads the files itself: what a
// test learns from another process does not invalidate the test cache.
func sources(t *testing.T) []source {
	t.Helper()
	var out []source
	err := filepath.WalkDir("..", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if p != ".." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules" || name == "bin" || name == "dist") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel("..", p)
		if err != nil {
			return err
		}
		s := source{dir: path.Dir(filepath.ToSlash(rel)), file: rel, ast: f}
		for _, i := range f.Imports {
			s.imports = append(s.imports, strings.Trim(i.Path.Value, `"`))
		}
		out = append(out, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 10 {
		t.Fatalf("only %d files found; the walk is wrong", len(out))
	}
	return out
}

func under(pkg string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return pkg == p || strings.HasPrefix(pkg, p+"/") })
}

// room returns the longest key of mayImport that pkg is in.
func room(pkg string) string {
	best := ""
	for prefix := range mayImport {
		if under(pkg, []string{prefix}) && len(prefix) > len(best) {
			best = prefix
		}
	}
	return best
}

func TestImportDirection(t *testing.T) {
	for _, s := range sources(t) {
		if strings.HasSuffix(s.file, "_test.go") {
			continue // tests may build the whole gateway
		}
		r := room(s.dir)
		if r == "" {
			t.Errorf("%s: no room of the house; name it in mayImport or move it", s.file)
			continue
		}
		for _, imp := range s.imports {
			if pkg, ours := strings.CutPrefix(imp, module); ours && !under(pkg, mayImport[r]) {
				t.Errorf("%s imports %s; %s may import %v of this module", s.file, imp, r, mayImport[r])
			}
			first, _, _ := strings.Cut(imp, "/")
			if slices.Contains(leaves, r) && strings.Contains(first, ".") && !strings.HasPrefix(imp, module) {
				t.Errorf("%s imports %s; %s is a leaf, standard library only", s.file, imp, r)
			}
		}
	}
}

func TestLibrariesStayBehindTheirPackage(t *testing.T) {
	for _, s := range sources(t) {
		if strings.HasSuffix(s.file, "_test.go") {
			continue
		}
		for _, imp := range s.imports {
			for lib, homes := range onlyFrom {
				if under(imp, []string{lib}) && !under(s.dir, homes) {
					t.Errorf("%s imports %s, which only %v may", s.file, imp, homes)
				}
			}
		}
	}
}

func TestNeverReached(t *testing.T) {
	_ = sources(t) // the files that the answer below depends on
	if _, err := os.ReadFile("../go.sum"); err != nil {
		t.Fatal(err)
	}
	for from, lib := range neverReaches {
		list := exec.CommandContext(t.Context(), "go", "list", "-deps", from)
		list.Dir = ".."
		out, err := list.Output()
		if err != nil {
			t.Fatalf("go list -deps %s: %v", from, err)
		}
		for dep := range strings.Lines(string(out)) {
			if under(strings.TrimSpace(dep), []string{lib}) {
				t.Errorf("%s reaches %s", from, strings.TrimSpace(dep))
			}
		}
	}
}

// TestPackageComments demands that each package says what it owns, in one file.
func TestPackageComments(t *testing.T) {
	said := map[string][]string{}
	for _, s := range sources(t) {
		if strings.HasSuffix(s.file, "_test.go") {
			continue
		}
		if _, ok := said[s.dir]; !ok {
			said[s.dir] = nil
		}
		if doc := s.ast.Doc.Text(); doc != "" {
			said[s.dir] = append(said[s.dir], s.file)
			if want := "Package " + s.ast.Name.Name + " "; s.ast.Name.Name != "main" && !strings.HasPrefix(doc, want) {
				t.Errorf("%s: package comment does not begin with %q", s.file, want)
			}
			if len(strings.Fields(doc)) < 12 {
				t.Errorf("%s: package comment says too little: what does it own, what not, why does it exist?", s.file)
			}
		}
	}
	for dir, files := range said {
		if len(files) != 1 {
			t.Errorf("%s: package comment in %d files %v, want one", dir, len(files), files)
		}
	}
}

// TestNoEmptyNames refuses folders whose name says nothing, and initialisation
// that runs before main.
func TestNoEmptyNames(t *testing.T) {
	for _, s := range sources(t) {
		for part := range strings.SplitSeq(s.dir, "/") {
			if slices.Contains([]string{"util", "utils", "common", "helpers", "misc", "types"}, part) {
				t.Errorf("%s: folder %q says nothing", s.file, part)
			}
		}
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: has an init function", s.file)
			}
		}
	}
}

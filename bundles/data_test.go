package bundles_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"

	"github.com/sallyport/sallyport/bundles"
	"github.com/sallyport/sallyport/engine"
)

// keeping is an engine that remembers the documents it was activated with.
type keeping struct {
	*engine.Engine
	t        *testing.T
	data     map[string]any
	compiler *ast.Compiler
}

func (k *keeping) Activate(ctx context.Context, rev engine.Revision) error {
	k.data = map[string]any{}
	for _, p := range []string{"/same", "/other"} {
		v, err := rev.Store.Read(ctx, rev.Txn, storage.MustParsePath(p))
		if err != nil {
			k.t.Fatal(err)
		}
		k.data[p] = v
	}
	k.compiler = rev.Compiler
	return k.Engine.Activate(ctx, rev)
}

// A reload decodes the data files that changed, and no other.
func TestPathsDecodeOnlyWhatChanged(t *testing.T) {
	t.Parallel()
	ctx, dir, e := context.Background(), t.TempDir(), &keeping{Engine: newEngine(t), t: t}
	write(t, dir, "gateway.rego", saying("one"), "same/data.json", `{"k": {"v": 1}}`, "other/data.json", `{"k": 1}`)
	s, err := bundles.New(bundles.Config{Paths: []string{dir}}, bundles.Deps{Engine: e})
	if err != nil {
		t.Fatal(err)
	}
	reload := func() map[string]any {
		t.Helper()
		if err := s.Reload(ctx); err != nil {
			t.Fatal(err)
		}
		return e.data
	}
	first := reload()
	write(t, dir, "gateway.rego", saying("two"), "other/data.json", `{"k": 2}`)
	second := reload()
	if first["/same"] != second["/same"] {
		t.Error("the file that did not change was decoded again")
	}
	if got := second["/other"].(ast.Value).String(); got != `{"k": 2}` {
		t.Errorf("the file that changed is still %s", got)
	}
}

// Policies that did not change are not compiled again, and still refuse data that
// has a path of theirs.
func TestPathsCompileOnlyWhatChanged(t *testing.T) {
	t.Parallel()
	ctx, dir, e := context.Background(), t.TempDir(), &keeping{Engine: newEngine(t), t: t}
	write(t, dir, "gateway.rego", saying("one"), "same/data.json", `{"k": 1}`, "other/data.json", `{"k": 1}`)
	s, err := bundles.New(bundles.Config{Paths: []string{dir}}, bundles.Deps{Engine: e})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(ctx); err != nil {
		t.Fatal(err)
	}
	first := e.compiler
	write(t, dir, "other/data.json", `{"k": 2}`)
	if err := s.Reload(ctx); err != nil {
		t.Fatal(err)
	}
	if e.compiler != first {
		t.Error("policies that did not change were compiled again")
	}
	write(t, dir, "gateway/data.json", `{"decision": {"allow": true}}`)
	if err := s.Reload(ctx); err == nil || !strings.Contains(err.Error(), "conflicting rule for data path gateway/decision") {
		t.Errorf("data in the place of a rule: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "gateway/data.json")); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "gateway.rego", saying("two"))
	if err := s.Reload(ctx); err != nil {
		t.Fatal(err)
	}
	if e.compiler == first || reason(t, e.Engine) != "two" {
		t.Errorf("policies that changed still say %q", reason(t, e.Engine))
	}
}

func TestPathsMergeDataFiles(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		files []string
		say   string // what a policy says of data
		want  string // or a part of the error
	}{
		"of one folder":       {[]string{"a/x.json", `{"k": 1}`, "a/y.json", `{"l": 2}`}, `[data.a.k, data.a.l]`, "[1, 2]"},
		"with YAML":           {[]string{"a/x.json", `{"k": 1}`, "a/y.yaml", "l: 2\n", "a/data.json", `{"m": {"n": 3}}`}, `[data.a.k, data.a.l, data.a.m.n]`, "[1, 2, 3]"},
		"across depths":       {[]string{"data.json", `{"a": {"b": {"k": 1}}}`, "a/b/data.json", `{"l": 2}`}, `[data.a.b.k, data.a.b.l]`, "[1, 2]"},
		"that is no object":   {[]string{"a/list.json", `[1, 2]`}, `data.a`, "[1, 2]"},
		"in conflict":         {[]string{"a/x.json", `{"k": 1}`, "a/y.json", `{"k": 2}`}, `1`, "y.json"},
		"in conflict with it": {[]string{"a/x.json", `{"k": 1}`, "a/y.yaml", "k: 2\n"}, `1`, "x.json"},
		"no object at root":   {[]string{"list.json", `[1, 2]`}, `1`, "list.json"},
		"that are YAML":       {[]string{"a/x.json", "k: 1\n"}, `1`, "x.json"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, e := t.TempDir(), newEngine(t)
			write(t, dir, tc.files...)
			write(t, dir, "gateway.rego", "package gateway\n\ndecision := {\"allow\": false, \"reason\": sprintf(\"%v\", ["+tc.say+"])}\n")
			s := newSource(t, bundles.Config{Paths: []string{dir}}, e)
			if err := s.Reload(context.Background()); err != nil {
				if !strings.Contains(err.Error(), tc.want) {
					t.Errorf("error %v, want it to name %s", err, tc.want)
				}
				return
			}
			if got := reason(t, e); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

// The revision is that of the content: the same on every replica, wherever the
// files are, and another with other data.
func TestPathsRevisionIsOfTheContent(t *testing.T) {
	t.Parallel()
	revision := func(dir string) string {
		s := newSource(t, bundles.Config{Paths: []string{dir}}, newEngine(t))
		if err := s.Reload(context.Background()); err != nil {
			t.Fatal(err)
		}
		return s.Status().Revision
	}
	one, two := t.TempDir(), t.TempDir()
	for _, dir := range []string{one, two} {
		write(t, dir, "gateway.rego", saying("one"), "a/data.json", `{"k": 1}`)
	}
	if a, b := revision(one), revision(two); a != b {
		t.Errorf("the same files are revision %s and %s", a, b)
	}
	before := revision(two)
	if err := os.Rename(filepath.Join(two, "a"), filepath.Join(two, "b")); err != nil {
		t.Fatal(err)
	}
	if revision(two) == before {
		t.Error("the same data in another place is the same revision")
	}
}

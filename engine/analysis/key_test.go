package analysis_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	opacases "github.com/open-policy-agent/opa/v1/test/cases"
	"github.com/open-policy-agent/opa/v1/test/cases/testdata"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/util"

	"github.com/sallyport/sallyport/engine/analysis"
)

func node(whole bool, children ...any) *analysis.Node {
	n := &analysis.Node{Whole: whole}
	for i := 0; i < len(children); i += 2 {
		if n.Children == nil {
			n.Children = map[string]*analysis.Node{}
		}
		n.Children[children[i].(string)] = children[i+1].(*analysis.Node)
	}
	return n
}

// Each row is one class: the values in it are the same to the node, and different
// from those of the other rows.
func TestKeyClasses(t *testing.T) {
	whole := node(true)
	for _, tc := range []struct {
		name    string
		node    *analysis.Node
		classes [][]string // terms; empty: undefined
	}{
		{"whole", whole, [][]string{
			{""},
			{"null"},
			{"false"},
			{"true"},
			{"0"},
			{"1"},
			{"1.0"},
			{"1e0"},
			{`""`},
			{`"1"`},
			{`"null"`},
			{"[]"},
			{"[[]]"},
			{"[[], []]"},
			{"{}"},
			{"set()"},
			{"{1}"},
			{"[1]"},
			{"{{1}}"},
			{`["ab"]`},
			{`["a", "b"]`},
			{`["a", ["b"]]`},
			{`[["a"], "b"]`},
			{`{"a": "b"}`},
			{`{"a": ["b"]}`},
			{`{"b": "a"}`},
			{`{"a": 1, "b": 2}`, `{"b": 2, "a": 1}`},
			{`{"a": 2, "b": 1}`},
			{"{1, 2}", "{2, 1}"},
			{"[1, 2]"},
			{"[2, 1]"},
			{`{"a": {"b": 1}}`},
			{`{"a": {"b": 1}, "c": 1}`},
			{`{1: 2}`},
			{`{"1": 2}`},
		}},
		{"nothing", nil, [][]string{{"", "1", "{}"}}},
		{"presence", node(false), [][]string{{""}, {"null", "false", "1", `{"a": 1}`}}},
		{"members", node(false, "a", whole, "b", whole), [][]string{
			{""}, {"{}", `{"c": 1}`}, {"[]"}, {"null"}, {`{"a": 1}`, `{"a": 1, "c": {"b": 1}}`}, {`{"b": 1}`}, {`{"a": 1, "b": null}`}, {`{"a": null, "b": 1}`}, {`{"a": {"b": 1}}`},
		}},
		{"deep", node(false, "a", node(false, "b", node(false), "c", whole), "d", whole), [][]string{
			{"{}"},
			{`{"a": 1}`},
			{`{"a": 2}`},
			{`{"a": {}}`, `{"a": {"x": 1}}`},
			{`{"a": {"b": 1}}`, `{"a": {"b": 2}}`},
			{`{"a": {"c": 1}}`},
			{`{"a": {"b": 1, "c": 1}}`},
			{`{"d": 1}`},
			{`{"a": {}, "d": 1}`},
		}},
	} {
		seen := map[string]int{}
		for i, class := range tc.classes {
			for _, text := range class {
				var v ast.Value
				if text != "" {
					v = ast.MustParseTerm(text).Value
				}
				key := string(tc.node.AppendKey(nil, v))
				if first, ok := seen[key]; ok && first != i || !ok && text != class[0] {
					t.Errorf("%s: %q has the key %q; class %d of that key, ok %v", tc.name, text, key, first, ok)
				}
				seen[key] = i
			}
		}
		for a := range seen {
			for b := range seen {
				if a != b && strings.HasPrefix(b, a) {
					t.Errorf("%s: key %q begins with key %q", tc.name, b, a)
				}
			}
		}
	}
}

// For each rule that a conformance case of OPA queries: inputs with one key give
// one result. The inputs are the case's own, changed in one place after another.
func TestEqualKeysGiveEqualResults(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var asked, same, apart int
	for _, tc := range conformance(t) {
		q := question(t, &tc)
		if q == nil {
			continue
		}
		asked++
		results := map[string]string{}
		for _, input := range variants(r, q.input, q.report.Input) {
			key := string(q.report.Input.AppendKey(nil, input))
			got := q.result(t, input)
			want, seen := results[key]
			switch {
			case !seen:
				results[key] = got
				apart++
			case want != got:
				t.Errorf("%s: reads %v, but gives %s for %v and had given %s for an input of the same key",
					tc.Note, q.report.Input.Paths(), got, input, want)
			default:
				same++
			}
		}
	}
	t.Logf("%d cases, %d inputs with a key that was there before, %d with a new one", asked, same, apart)
	if asked < 800 || same < 8000 || apart < 3000 {
		t.Error("the cases do not cover enough")
	}
}

func conformance(t *testing.T) []opacases.TestCase {
	t.Helper()
	var all []opacases.TestCase
	err := fs.WalkDir(testdata.V1, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(p) != ".yaml" {
			return err
		}
		text, err := testdata.V1.ReadFile(p)
		if err != nil {
			return err
		}
		var set opacases.Set
		if err := util.Unmarshal(text, &set); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		all = append(all, set.Cases...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// asking is a rule that a case queries.
type asking struct {
	compiler *ast.Compiler
	query    ast.Body
	store    storage.Store
	report   *analysis.Report
	input    ast.Value // nil: none
}

// question returns nil for a case that does not query a rule, does not compile, or
// depends on more than its input.
func question(t *testing.T, tc *opacases.TestCase) *asking {
	t.Helper()
	body, err := ast.ParseBody(tc.Query)
	if err != nil || len(body) != 1 || len(tc.Env) > 0 {
		return nil
	}
	ref := queried(body[0])
	if ref == nil {
		return nil
	}
	modules := map[string]string{}
	for i, text := range tc.Modules {
		modules[fmt.Sprintf("test-%d.rego", i)] = text
	}
	c, err := ast.CompileModules(modules)
	if err != nil || len(c.GetRulesDynamicWithOpts(ref, ast.RulesOptions{IncludeHiddenModules: true})) == 0 {
		return nil
	}
	q := &asking{compiler: c, report: analysis.Of(c, ref), store: inmem.New()}
	if len(q.report.Nondeterministic) > 0 {
		return nil
	}
	if q.query, err = c.QueryCompiler().Compile(ast.NewBody(ast.Equality.Expr(ast.VarTerm("result"), ast.NewTerm(ref)))); err != nil {
		return nil
	}
	if tc.Data != nil {
		q.store = inmem.NewFromObject(*tc.Data)
	}
	switch {
	case tc.InputTerm != nil:
		q.input = ast.MustParseTerm(*tc.InputTerm).Value
	case tc.Input != nil:
		q.input = ast.MustInterfaceToValue(*tc.Input)
	}
	return q
}

// queried returns the constant path below data that expr looks at.
func queried(expr *ast.Expr) (found ast.Ref) {
	ast.WalkRefs(expr, func(ref ast.Ref) bool {
		if found == nil && ref.HasPrefix(ast.DefaultRootRef) && len(ref) > 1 {
			found = ref.ConstantPrefix()
		}
		return false
	})
	if len(found) < 2 {
		return nil
	}
	return found
}

func (q *asking) result(t *testing.T, input ast.Value) string {
	t.Helper()
	ctx := context.Background()
	txn, err := q.store.NewTransaction(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer q.store.Abort(ctx, txn)
	query := topdown.NewQuery(q.query).WithCompiler(q.compiler).WithStore(q.store).WithTransaction(txn)
	if input != nil {
		query = query.WithInput(ast.NewTerm(input))
	}
	rs, err := query.Run(ctx)
	if e := (*topdown.Error)(nil); errors.As(err, &e) {
		return e.Code
	}
	if err != nil {
		return err.Error()
	}
	out := make([]string, 0, len(rs))
	for _, r := range rs {
		out = append(out, r["result"].Value.String())
	}
	slices.Sort(out)
	return fmt.Sprint(out)
}

// variants returns the input itself and ones that differ from it: at each place
// that it has, at each that is read, and at ones that nobody knows.
func variants(r *rand.Rand, input ast.Value, reads *analysis.Node) []ast.Value {
	out := []ast.Value{input, input, nil}
	var places [][]*ast.Term
	if input != nil {
		places = append(places, placesIn(input, nil)...)
	}
	for _, p := range reads.Paths() {
		var place []*ast.Term
		for name := range strings.SplitSeq(strings.TrimSuffix(p, "?"), ".") {
			place = append(place, ast.StringTerm(name))
		}
		places = append(places, place[1:])
		places = append(places, append(slices.Clone(place[1:]), ast.StringTerm("unknown")))
	}
	for range 3 {
		places = append(places, []*ast.Term{ast.StringTerm(fmt.Sprintf("x%d", r.IntN(9)))})
	}
	r.Shuffle(len(places), func(i, j int) { places[i], places[j] = places[j], places[i] })
	for _, place := range places[:min(len(places), 25)] {
		out = append(out, changed(input, place, nil))
		out = append(out, changed(input, place, someValue(r)))
	}
	return out
}

func someValue(r *rand.Rand) ast.Value {
	texts := []string{"null", "true", "false", "0", "1", "2", `"a"`, `"x"`, `"foo"`, "[]", "[1, 2]", `["a"]`, "{}", `{"a": 1}`, `{"foo": "bar"}`}
	return ast.MustParseTerm(texts[r.IntN(len(texts))]).Value
}

// placesIn lists the paths to everything in v but what is in sets.
func placesIn(v ast.Value, at []*ast.Term) [][]*ast.Term {
	out := [][]*ast.Term{at}
	below := func(k, t *ast.Term) { out = append(out, placesIn(t.Value, append(slices.Clone(at), k))...) }
	switch v := v.(type) {
	case ast.Object:
		v.Foreach(below)
	case *ast.Array:
		for i := range v.Len() {
			below(ast.InternedTerm(i), v.Elem(i))
		}
	}
	return out
}

// changed returns v with the value at the path replaced, or removed for nil.
// Members on the way are made.
func changed(v ast.Value, at []*ast.Term, to ast.Value) ast.Value {
	if len(at) == 0 {
		return to
	}
	if a, ok := v.(*ast.Array); ok {
		return changedArray(a, at, to)
	}
	members := map[string][2]*ast.Term{}
	if obj, ok := v.(ast.Object); ok {
		obj.Foreach(func(k, t *ast.Term) { members[k.String()] = [2]*ast.Term{k, t} })
	}
	var old ast.Value
	if m, ok := members[at[0].String()]; ok {
		old = m[1].Value
	}
	delete(members, at[0].String())
	if next := changed(old, at[1:], to); next != nil {
		members[at[0].String()] = [2]*ast.Term{at[0], ast.NewTerm(next)}
	}
	return ast.NewObject(slices.Collect(maps.Values(members))...)
}

func changedArray(a *ast.Array, at []*ast.Term, to ast.Value) ast.Value {
	var terms []*ast.Term
	for i := range a.Len() {
		v := a.Elem(i).Value
		if ast.InternedTerm(i).Equal(at[0]) {
			v = changed(v, at[1:], to)
		}
		if v != nil {
			terms = append(terms, ast.NewTerm(v))
		}
	}
	return ast.NewArray(terms...)
}

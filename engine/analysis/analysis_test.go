package analysis_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/dependencies"

	"github.com/sallyport/sallyport/engine/analysis"
)

func compile(t *testing.T, text string) *ast.Compiler {
	t.Helper()
	c := ast.NewCompiler()
	c.Compile(map[string]*ast.Module{"p.rego": ast.MustParseModule(text)})
	if c.Failed() {
		t.Fatal(c.Errors)
	}
	return c
}

var cases = []struct {
	name, policy string
	want         string // sorted paths without "input.", separated by blanks
	nondet       string
}{
	{"nothing", `x := true`, "", ""},
	{"one field", `x if input.a == 1`, "a", ""},
	{"nested field", `x if input.a.b.c == 1`, "a.b.c", ""},
	{"whole input", `x := input`, "WHOLE", ""},
	{"whole input as an argument", "x if f(input)\n\nf(i) if i.a", "WHOLE", ""},
	{"part as an argument", "x if f(input.a)\n\nf(i) if i.b", "a", ""},
	{"other rule is not reached", "x if input.a\n\ny if input.b", "a", ""},
	{"rule by rule", "x if y\n\ny if z\n\nz if input.deep.er", "deep.er", ""},
	{"negation", `x if not input.a.b`, "a.b", ""},
	{"presence", `x if input.a`, "a", ""},
	{"else", "x := 1 if { input.a } else := 2 if { input.b }", "a b", ""},
	{"else value", "x := 1 if { input.a } else := input.b", "a b", ""},
	{"head value", `x := input.a`, "a", ""},
	{"head key", "x contains input.a if input.b", "a b", ""},
	{"head reference", "x[input.a.b] := 1 if input.c", "a.b c", ""},
	{"default function", "x if f(1)\n\ndefault f(_) := false\n\nf(v) if input.a == v", "a", ""},
	{"variable member", `x if { some h; input.headers[h] }`, "headers", ""},
	{"variable from input", `x if input.m[input.k]`, "k m", ""},
	{"index of an array", `x if input.a[0].b == 1`, "a", ""},
	{"some in", `x if { some k, v in input.a; v == k }`, "a", ""},
	{"every", `x if every k, v in input.a.b { k == v; input.c }`, "a.b c", ""},
	{"comprehensions", `x := [a | a := input.a[_]; count({b | b := input.b}) == count({c: d | c := input.c; d := input.d})]`, "a b c d", ""},
	{"template string", `x := $"{input.a.b} and {input.c}"`, "a.b c", ""},
	{"walk", `x if { walk(input.a, [p, v]); v == p }`, "a", ""},
	{"walk input", `x if { walk(input, [p, v]); v == p }`, "WHOLE", ""},
	{"object.get of input", `x if object.get(input, ["a", "b"], 1) == 2`, "WHOLE", ""},
	{"object.get of a part", `x if object.get(input.a, "b", 1) == 2`, "a", ""},
	{"import", "import input.a.b as ab\n\nx if ab.c == 1", "a.b.c", ""},
	{"import input", "import input as i\n\nx if i.a == 1", "a", ""},

	{"alias", `x if { r := input.a; r.b == 1 }`, "a.b", ""},
	{"alias of input", `x if { i := input; i.a.b == 1 }`, "a.b", ""},
	{"alias by unification", `x if { r = input.a; r.b == 1 }`, "a.b", ""},
	{"alias the other way round", `x if { input.a = r; r.b == 1 }`, "a.b", ""},
	{"alias of an alias", `x if { i := input; r := i.a; r.b == 1 }`, "a.b", ""},
	{"alias with a variable member", `x if { r := input.a; some k; r.b[k] }`, "a.b", ""},
	{"alias used bare", `x if { r := input.a; r.b == 1; count(r) > 0 }`, "a", ""},
	{"alias returned", `x := r if { r := input.a; r.b == 1 }`, "a", ""},
	{"alias unused", `x if { r := input.a; input.b }`, "a? b", ""},
	{"alias bound twice", `x if { r = input.a; r = input.b; r.c }`, "a b", ""},
	{"alias compared", `x if { r := input.a; r == input.b }`, "a b", ""},
	{"alias in a comprehension", `x if { r := input.a; count([y | y := r.b[_]]) > 0 }`, "a.b", ""},
	{"alias in an argument", "x if { r := input.a; f(r.b) }\n\nf(v) if v", "a.b", ""},
	{"alias whole in an argument", "x if { r := input.a; f(r) }\n\nf(v) if v.b", "a", ""},
	{"alias in a head reference", "x[r] := 1 if { r := input.a.b; input.c }", "a.b c", ""},
	{"alias deep in a head reference", `x[r].y[input.d] := 1 if { r := input.a.b; r.c }`, "a.b d", ""},
	{"alias under with", `x if { r := input.a with input.b as 1; r.c }`, "a b", ""},
	{"alias negated", `x if { not input.a = 1 }`, "a", ""},
	{"alias in two scopes", `x if { [1 | r = input.a; r.b]; [1 | r = input.c; r.d] }`, "a c", ""},
	{"argument of that name", "x if f(1)\n\nf(r) if { r = input.a }", "a", ""},
	{"destructured", `x if { [p, q] := [input.a, input.b]; p == q }`, "a b", ""},

	{"with input", "x if y with input as {\"a\": 1}\n\ny if input.a", "WHOLE", ""},
	{"with part of input", "x if y with input.a.b as input.c\n\ny if input.a.d", "a.b a.d c", ""},
	{"with data", "x if y with data.z as input.c\n\ny if data.z == 1", "c", ""},
	{"with a function as mock", "x if y with time.now_ns as mock\n\ny if time.now_ns() > 1\n\nmock() := input.a", "a", "time.now_ns"},
	{"with a built-in as mock", "x if y with data.p.f as rand.intn\n\ny if f(\"a\", 1) == 0\n\nf(a, b) := a", "", "rand.intn"},

	{"every rule below", "x if data.p.checks[input.k]\n\nchecks.a if input.a\n\nchecks.b if input.b", "a b k", ""},
	{"data as a whole", "x if count(data.q) == 0 \n\ny if input.a", "", ""},
	{"own package as a whole", "x if data.p[\"y\"]\n\ny if input.a", "a", ""},
	{"clock", `x if time.now_ns() > input.a`, "a", "time.now_ns"},
	{"network", `x if http.send({"url": input.u, "method": "get"}).status_code == 200`, "u", "http.send"},
	{"clock by and by", "x if y\n\ny if f\n\nf if uuid.rfc4122(\"a\") == \"b\"", "", "uuid.rfc4122"},
	{"clock of certificates", `x if { [ok, _] := crypto.x509.parse_and_verify_certificates(input.a); ok }`, "a", "crypto.x509.parse_and_verify_certificates"},
	{"clock not reached", "x if input.a\n\ny if time.now_ns() > 1", "a", ""},
}

func report(t *testing.T, text string) (*analysis.Report, *ast.Compiler) {
	t.Helper()
	c := compile(t, "package p\n\n"+text)
	return analysis.Of(c, ast.MustParseRef("data.p.x")), c
}

func TestOf(t *testing.T) {
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			r, _ := report(t, tc.policy)
			if got := short(r.Input.Paths()); got != tc.want {
				t.Errorf("reads %q, want %q", got, tc.want)
			}
			if got := strings.Join(r.Nondeterministic, " "); got != tc.nondet {
				t.Errorf("nondeterministic %q, want %q", got, tc.nondet)
			}
		})
	}
}

func short(paths []string) string {
	out := make([]string, len(paths))
	for i, p := range paths {
		out[i] = strings.TrimPrefix(strings.TrimPrefix(p, "input"), ".")
		if out[i] == "" {
			out[i] = "WHOLE"
		}
	}
	return strings.Join(out, " ")
}

// OPA's own analysis is another way to the same answer: whatever it finds must be
// covered.
func TestOfCoversOPAsAnalysis(t *testing.T) {
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			r, c := report(t, tc.policy)
			base, err := dependencies.Base(c, ast.MustParseBody("data.p.x"))
			if err != nil {
				t.Fatal(err)
			}
			for _, ref := range base {
				if !ref[0].Equal(ast.InputRootDocument) {
					continue
				}
				var path []string
				for _, term := range ref[1:] {
					s, ok := term.Value.(ast.String)
					if !ok {
						break
					}
					path = append(path, string(s))
				}
				if !r.Input.Has(path...) {
					t.Errorf("%v is not covered by %v", ref, r.Input.Paths())
				}
			}
		})
	}
}

func TestReadsBody(t *testing.T) {
	for policy, want := range map[string]bool{
		`x if input.request.method`:                            false,
		`x if input.request.body.a == 1`:                       true,
		`x if input.request.raw_body`:                          true,
		`x if input.request.body_error`:                        true,
		`x if input.request.body_truncated`:                    true,
		`x if { r := input.request; r.method }`:                false,
		`x if { r := input.request; r.body }`:                  true,
		`x if count(input.request) > 0`:                        true,
		`x := input`:                                           true,
		`x if input.request[input.k]`:                          true,
		"x if f(input.request)\n\nf(r) if r.method == \"GET\"": true,
	} {
		if r, _ := report(t, policy); r.ReadsBody() != want {
			t.Errorf("%s: %v", policy, !want)
		}
	}
	var none *analysis.Node
	if none.Has("request") || none.Paths() != nil || none.Child("x") != nil {
		t.Error("a nil node reads something")
	}
}

func TestBuiltins(t *testing.T) {
	r, _ := report(t, `x if { startswith(input.a, "b"); count(input.c) > 1 }`)
	for _, name := range []string{"startswith", "count", "gt"} {
		if !slices.Contains(r.Builtins, name) {
			t.Errorf("%s is not among %v", name, r.Builtins)
		}
	}
	if diff := cmp.Diff([]string(nil), r.Nondeterministic); diff != "" {
		t.Error(diff)
	}
}

// Package analysis says what a policy can read: which parts of the input
// document an entrypoint can reach, and whether its answer can depend on
// anything but input and data.
//
// The engine builds only the parts of the input that are reachable, and the front
// does not buffer a body that no rule can see, so an answer that is too small is
// a wrong decision. The analysis is therefore an over-approximation by
// construction: every occurrence of input in every rule that evaluation could
// reach counts as a read of the whole document that it names, with one
// exception, local names for a part of the input, which are followed.
package analysis

import (
	"maps"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Report is what one entrypoint can read.
type Report struct {
	// Input is the part of the input document that can be read; nil when none is.
	Input *Node
	// Builtins are the names of the built-in functions that can be called, sorted.
	Builtins []string
	// Nondeterministic are those of Builtins whose result depends on more than
	// their arguments. A built-in that OPA does not come with counts as one.
	Nondeterministic []string
}

// ReadsBody reports whether any form of the request body can be read.
func (r *Report) ReadsBody() bool {
	return r.Input.Has("request", "body") || r.Input.Has("request", "raw_body") ||
		r.Input.Has("request", "body_truncated") || r.Input.Has("request", "body_error")
}

// Of analyses the rules that a query for entrypoint can reach. The compiler must
// have compiled without errors.
func Of(c *ast.Compiler, entrypoint ast.Ref) *Report {
	return walk(c, entrypoint).report()
}

// Reachable returns the rules that a query for entrypoint can reach, in no
// particular order.
func Reachable(c *ast.Compiler, entrypoint ast.Ref) []*ast.Rule {
	return slices.Collect(maps.Keys(walk(c, entrypoint).seen))
}

func walk(c *ast.Compiler, entrypoint ast.Ref) *walker {
	w := &walker{
		compiler: c,
		seen:     map[*ast.Rule]struct{}{},
		builtins: map[string]struct{}{},
		input:    &Node{},
	}
	w.queueRules(entrypoint)
	for len(w.queue) > 0 {
		rule := w.queue[len(w.queue)-1]
		w.queue = w.queue[:len(w.queue)-1]
		w.walkRule(rule)
	}
	return w
}

type walker struct {
	compiler *ast.Compiler
	seen     map[*ast.Rule]struct{}
	queue    []*ast.Rule
	builtins map[string]struct{}
	input    *Node
	read     bool
}

func (w *walker) report() *Report {
	r := &Report{Builtins: slices.Sorted(maps.Keys(w.builtins))}
	if w.read {
		r.Input = w.input
	}
	for _, name := range r.Builtins {
		if nondeterministic(name) {
			r.Nondeterministic = append(r.Nondeterministic, name)
		}
	}
	return r
}

// nondeterministic asks OPA's own list, not the one that registered functions are
// added to without a word on it. It also knows two that OPA does not mark: they
// compare certificates with the clock.
func nondeterministic(name string) bool {
	if name == ast.CryptoX509ParseAndVerifyCertificates.Name || name == ast.CryptoX509ParseAndVerifyCertificatesWithOptions.Name {
		return true
	}
	for _, b := range ast.DefaultBuiltins {
		if b.Name == name {
			return b.Nondeterministic
		}
	}
	return true
}

// queueRules queues the rules that a reference below data can evaluate, which
// for a reference with a variable part are all that could match it.
func (w *walker) queueRules(ref ast.Ref) {
	for _, rule := range w.compiler.GetRulesDynamicWithOpts(ref, ast.RulesOptions{IncludeHiddenModules: true}) {
		if _, ok := w.seen[rule]; !ok {
			w.seen[rule] = struct{}{}
			w.queue = append(w.queue, rule)
		}
	}
}

// walkRule accounts for every reference in the rule, its head and its else
// branches.
func (w *walker) walkRule(rule *ast.Rule) {
	names := aliases(rule)
	visitor := ast.NewGenericVisitor(func(x any) bool { return w.visit(x, names) })
	// The visitor does not look into the reference of a head, whose variable parts
	// are bound in the body. Else branches have none: only a complete rule can have
	// one, and its reference is constant.
	for _, term := range rule.Head.Reference[min(1, len(rule.Head.Reference)):] {
		visitor.Walk(term)
	}
	visitor.Walk(rule)
}

// visit handles one AST node and reports whether the ones below it are done.
func (w *walker) visit(x any, names *aliasSet) bool {
	switch x := x.(type) {
	case *ast.Expr:
		if path, ok := names.defines(x); ok {
			w.mark(path, false)
			return true
		}
	case ast.Ref:
		return w.visitRef(x, names)
	case ast.Var:
		w.visitVar(x, names)
	}
	return false
}

func (w *walker) visitVar(v ast.Var, names *aliasSet) {
	if v == ast.InputRootDocument.Value {
		w.mark(nil, true)
		return
	}
	if path, ok := names.path(v); ok {
		w.mark(path, true)
	}
}

// visitRef accounts for ref; its head is done then, its other terms are walked
// here because they may hold further references.
func (w *walker) visitRef(ref ast.Ref, names *aliasSet) bool {
	if len(ref) == 0 {
		return true
	}
	switch head := ref[0].Value.(type) {
	case ast.Var:
		w.visitHead(head, ref, names)
	default: // a call or a composite value that is looked into
		ast.NewGenericVisitor(func(x any) bool { return w.visit(x, names) }).Walk(ref[0])
	}
	for _, term := range ref[1:] {
		ast.NewGenericVisitor(func(x any) bool { return w.visit(x, names) }).Walk(term)
	}
	return true
}

func (w *walker) visitHead(head ast.Var, ref ast.Ref, names *aliasSet) {
	switch head {
	case ast.DefaultRootDocument.Value:
		w.queueRules(ref)
	case ast.InputRootDocument.Value:
		path, _ := constantPath(ref[1:])
		w.mark(path, true)
	default:
		if base, ok := names.path(head); ok {
			rest, _ := constantPath(ref[1:])
			w.mark(slices.Concat(base, rest), true)
			return
		}
		if name := ref.String(); w.isBuiltin(name) {
			w.builtins[name] = struct{}{}
		}
	}
}

func (w *walker) isBuiltin(name string) bool {
	if _, ok := ast.BuiltinMap[name]; ok {
		return true
	}
	return w.compiler.Capabilities() != nil && w.compiler.Capabilities().ContainsBuiltin(name)
}

func (w *walker) mark(path []string, whole bool) {
	w.read = true
	w.input.add(path, whole)
}

// constantPath returns the leading terms of ref that are strings, and whether
// all of them are. A number is no member of the input's objects and ends the path
// at the array that it indexes.
func constantPath(ref ast.Ref) (path []string, all bool) {
	for _, term := range ref {
		s, ok := term.Value.(ast.String)
		if !ok {
			return path, false
		}
		path = append(path, string(s))
	}
	return path, true
}

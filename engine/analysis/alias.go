package analysis

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// aliasSet holds the local names of one rule that stand for a part of the input,
// as in
//
//	req := input.request
//	req.method == "GET"
//
// where only input.request.method is read. The first expression that equates a name
// with a constant path makes the alias; any other use of the bare name reads the
// whole part, and that includes whatever else binds it: a second equation, an
// argument, an iteration, or a name that is the same in another scope.
type aliasSet struct {
	paths map[ast.Var][]string
	exprs map[*ast.Expr]ast.Var
}

func (a *aliasSet) path(v ast.Var) ([]string, bool) {
	path, ok := a.paths[v]
	return path, ok
}

// defines returns the part of the input that expr only gives a name to.
func (a *aliasSet) defines(expr *ast.Expr) ([]string, bool) {
	v, ok := a.exprs[expr]
	if !ok {
		return nil, false
	}
	return a.path(v)
}

type binding struct {
	expr *ast.Expr
	name ast.Var
	ref  ast.Ref
}

func aliases(rule *ast.Rule) *aliasSet {
	bindings := bindingsOf(rule)
	set := &aliasSet{paths: map[ast.Var][]string{}, exprs: map[*ast.Expr]ast.Var{}}
	// A name may be bound to a part of another name: repeat until none is found.
	for found := true; found; {
		found = false
		for _, b := range bindings {
			if _, known := set.paths[b.name]; known {
				continue
			}
			if path, ok := set.resolve(b.ref); ok {
				set.paths[b.name], set.exprs[b.expr] = path, b.name
				found = true
			}
		}
	}
	return set
}

// resolve returns the path below input that ref names, if it is constant.
func (a *aliasSet) resolve(ref ast.Ref) ([]string, bool) {
	head, ok := ref[0].Value.(ast.Var)
	if !ok {
		return nil, false
	}
	rest, all := constantPath(ref[1:])
	if !all {
		return nil, false
	}
	if head == ast.InputRootDocument.Value {
		return rest, true
	}
	base, ok := a.paths[head]
	return slices.Concat(base, rest), ok
}

// bindingsOf collects the equations between a name and a reference in rule.
func bindingsOf(rule *ast.Rule) (bindings []binding) {
	ast.WalkExprs(rule, func(expr *ast.Expr) bool {
		if b, ok := bindingOf(expr); ok {
			bindings = append(bindings, b)
		}
		return false
	})
	return bindings
}

// bindingOf reads expr as such an equation. One that is negated or evaluated
// with replaced documents binds nothing of the real input.
func bindingOf(expr *ast.Expr) (binding, bool) {
	if expr.Negated || len(expr.With) > 0 || !expr.IsEquality() && !expr.IsAssignment() {
		return binding{}, false
	}
	left, right := expr.Operand(0), expr.Operand(1)
	if left == nil || right == nil {
		return binding{}, false
	}
	if name, ok := left.Value.(ast.Var); ok {
		ref, ok := right.Value.(ast.Ref)
		return binding{expr, name, ref}, ok && len(ref) > 0
	}
	if name, ok := right.Value.(ast.Var); ok {
		ref, ok := left.Value.(ast.Ref)
		return binding{expr, name, ref}, ok && len(ref) > 0
	}
	return binding{}, false
}

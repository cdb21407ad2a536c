package engine

import (
	"maps"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/types"

	"github.com/sallyport/sallyport/engine/analysis"
)

// headersSet returns the upstream headers that some answer of the entrypoint sets,
// as far as the policy names them: in the type that the compiler inferred, which
// sees through helper rules, or as the argument of a function that sets them,
// which it does not see through.
func headersSet(c *ast.Compiler, ref ast.Ref) []string {
	names := memberNames(member(member(alternatives(c.TypeEnv.GetByRef(ref)), "upstream"), "set_headers"))
	rules := analysis.Reachable(c, ref)
	sinks := map[string]int{} // function to its parameter that becomes set_headers
	for _, rule := range rules {
		visitSetHeaders(rule, func(value *ast.Term) {
			names = append(names, literalKeys(value)...)
			if i := slices.IndexFunc(rule.Head.Args, value.Equal); i >= 0 {
				sinks[rule.Ref().String()] = i
			}
		})
	}
	for _, rule := range rules {
		ast.WalkExprs(rule, func(e *ast.Expr) bool {
			if !e.IsCall() {
				return false
			}
			if i, ok := sinks[e.Operator().String()]; ok && i < len(e.Operands()) {
				names = append(names, literalKeys(e.Operand(i))...)
			}
			return false
		})
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// visitSetHeaders visits the values of set_headers below upstream.
func visitSetHeaders(rule *ast.Rule, visit func(*ast.Term)) {
	upstream, headers := ast.StringTerm("upstream"), ast.StringTerm("set_headers")
	ast.WalkTerms(rule, func(t *ast.Term) bool {
		if o, ok := t.Value.(ast.Object); ok {
			if u := o.Get(upstream); u != nil {
				if obligation, ok := u.Value.(ast.Object); ok && obligation.Get(headers) != nil {
					visit(obligation.Get(headers))
				}
			}
		}
		return false
	})
}

// literalKeys returns the keys of an object that are texts.
func literalKeys(t *ast.Term) []string {
	o, ok := t.Value.(ast.Object)
	if !ok {
		return nil
	}
	var out []string
	for _, k := range o.Keys() {
		if s, ok := k.Value.(ast.String); ok {
			out = append(out, string(s))
		}
	}
	return out
}

// alternatives returns the types that a value of t can have.
func alternatives(t types.Type) []types.Type {
	if union, ok := t.(types.Any); ok {
		var out []types.Type
		for _, a := range union {
			out = append(out, alternatives(a)...)
		}
		return out
	}
	return []types.Type{t}
}

// member returns the types that the member of that name can have.
func member(of []types.Type, name string) []types.Type {
	var out []types.Type
	for _, t := range of {
		if o, ok := t.(*types.Object); ok {
			for _, p := range o.StaticProperties() {
				if p.Key == name {
					out = append(out, alternatives(p.Value)...)
				}
			}
		}
	}
	return out
}

// memberNames returns the names of the members that some of the objects have, sorted.
func memberNames(of []types.Type) []string {
	names := map[string]struct{}{}
	for _, t := range of {
		if o, ok := t.(*types.Object); ok {
			for _, p := range o.StaticProperties() {
				if name, ok := p.Key.(string); ok {
					names[name] = struct{}{}
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

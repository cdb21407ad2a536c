package bundles

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/types"

	"github.com/sallyport/sallyport/policies"
)

// unsupported are obligations of the contract whose machinery this build does
// not have. The engine refuses them at run time; a policy that has them written
// down is refused before.
var unsupported = []string{"rate_limit", "upstream.token_exchange", "challenge.acr_values", "challenge.max_age"}

// checkDecision looks at the objects written in the entrypoint's rules, which
// have positions, and at what the compiler inferred about its value, which sees
// through functions.
func checkDecision(compiler *ast.Compiler, ref ast.Ref, rules []*ast.Rule) []*Problem {
	var out []*Problem
	for _, r := range rules {
		out = append(out, writtenObligations(r)...)
	}
	written := len(out) > 0
	known := decisionMembers()
	for _, member := range inferredMembers(compiler.TypeEnv.GetByRef(ref), "") {
		switch {
		case slices.Contains(unsupported, member):
			if !written {
				out = append(out, at(location(rules), "%s: %s is not supported by this build", ref, member))
			}
		case !closedParent(known, member) || slices.Contains(known, member):
		default:
			out = append(out, at(location(rules), "%s: a decision has no %q (it has %s)", ref, member, strings.Join(known, ", ")))
		}
	}
	return out
}

// writtenObligations finds unsupported obligations in object literals. Any object
// of the rule may become the decision, but for what is content: a body, labels, headers.
func writtenObligations(r *ast.Rule) []*Problem {
	var out []*Problem
	content := map[*ast.Term]bool{}
	ast.WalkTerms(r, func(t *ast.Term) bool {
		if content[t] {
			return true
		}
		for _, key := range []string{"body", "headers", "labels", "set_headers"} {
			content[member(t, key)] = true
		}
		for _, path := range unsupported {
			if found := member(t, strings.Split(path, ".")...); found != nil {
				out = append(out, at(found.Location, "%s: not supported by this build", path))
			}
		}
		return false
	})
	return out
}

// member returns the value at path in the object literal t, or nil.
func member(t *ast.Term, path ...string) *ast.Term {
	for _, key := range path {
		obj, ok := t.Value.(ast.Object)
		if !ok {
			return nil
		}
		if t = obj.Get(ast.StringTerm(key)); t == nil {
			return nil
		}
	}
	return t
}

// inferredMembers returns the paths of the members that some value of the type has.
func inferredMembers(t types.Type, prefix string) []string {
	out := map[string]bool{}
	switch t := t.(type) {
	case *types.Object:
		for _, p := range t.StaticProperties() {
			key, ok := p.Key.(string)
			if !ok {
				continue
			}
			out[prefix+key] = true
			if key != "body" {
				for _, m := range inferredMembers(p.Value, prefix+key+".") {
					out[m] = true
				}
			}
		}
	case types.Any:
		for _, alternative := range t {
			for _, m := range inferredMembers(alternative, prefix) {
				out[m] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(out))
}

// decisionMembers are the paths of the members that the decision schema names.
func decisionMembers() []string {
	type schema struct {
		AnyOf      []schema          `json:"anyOf"`
		Properties map[string]schema `json:"properties"`
	}
	var root schema
	if err := json.Unmarshal(policies.DecisionSchema(), &root); err != nil {
		return nil
	}
	var out []string
	var walk func(s schema, prefix string)
	walk = func(s schema, prefix string) {
		for _, alternative := range s.AnyOf {
			walk(alternative, prefix)
		}
		for key, p := range s.Properties {
			out = append(out, prefix+key)
			walk(p, prefix+key+".")
		}
	}
	walk(root, "")
	slices.Sort(out)
	return out
}

// closedParent reports whether the schema lists what may be beside the member: it
// does not for labels and headers.
func closedParent(known []string, member string) bool {
	i := strings.LastIndex(member, ".")
	if i < 0 {
		return true
	}
	return slices.ContainsFunc(known, func(k string) bool { return strings.HasPrefix(k, member[:i+1]) })
}

func location(rules []*ast.Rule) *ast.Location {
	if len(rules) == 0 {
		return nil
	}
	return rules[0].Loc()
}

func at(loc *ast.Location, format string, args ...any) *Problem {
	p := &Problem{Text: fmt.Sprintf(format, args...)}
	if loc != nil {
		p.File, p.Row, p.Col = loc.File, loc.Row, loc.Col
	}
	return p
}

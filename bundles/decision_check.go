package bundles

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/types"

	"github.com/sallyport/sallyport/engine"
	"github.com/sallyport/sallyport/policies"
)

// checkDecision looks for obligations that this build cannot carry out, and at
// what the compiler inferred about the entrypoint's value, which sees through
// functions: a member that no decision has would be a policy fault on each request.
func checkDecision(compiler *ast.Compiler, entrypoint string, exchange bool, ref ast.Ref, rules []*ast.Rule) []*Problem {
	out := flatten(engine.CheckObligations(compiler, exchange, entrypoint))
	known := decisionMembers()
	for _, member := range inferredMembers(compiler.TypeEnv.GetByRef(ref), "") {
		if closedParent(known, member) && !slices.Contains(known, member) {
			out = append(out, at(location(rules), "%s: a decision has no %q (it has %s)", ref, member, strings.Join(known, ", ")))
		}
	}
	return out
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

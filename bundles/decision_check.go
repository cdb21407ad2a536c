package bundles

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/types"

	"github.com/sallyport/sallyport/policies"
)

// unsupported are obligations of the contract whose machinery this build does
// not have. The engine refuses them at run time; a policy that has them written
// down is refused before.
var unsupported = []string{"rate_limit", "token_exchange"}

// checkDecision looks at what the compiler inferred about the entrypoint, which
// sees through functions, and at the objects written in its rules, which have
// positions.
func checkDecision(compiler *ast.Compiler, ref ast.Ref, rules []*ast.Rule) []*Problem {
	var out []*Problem
	seen := map[string]bool{}
	for _, r := range rules {
		ast.WalkTerms(r, func(t *ast.Term) bool {
			for _, key := range unsupportedKeys(t) {
				seen[t.Location.String()+key] = true
				out = append(out, at(t.Location, "%s: not supported by this build", key))
			}
			return false
		})
	}
	known := decisionKeys()
	for _, key := range inferredKeys(compiler.TypeEnv.GetByRef(ref)) {
		switch {
		case slices.Contains(unsupported, key):
			if len(seen) == 0 {
				out = append(out, at(location(rules), "%s: %s is not supported by this build", ref, key))
			}
		case !slices.Contains(known, key):
			out = append(out, at(location(rules), "%s: a decision has no %q (it has %s)", ref, key, strings.Join(known, ", ")))
		}
	}
	return out
}

func unsupportedKeys(t *ast.Term) []string {
	obj, ok := t.Value.(ast.Object)
	if !ok {
		return nil
	}
	var out []string
	for _, key := range obj.Keys() {
		if s, ok := key.Value.(ast.String); ok && slices.Contains(unsupported, string(s)) {
			out = append(out, string(s))
		}
	}
	return out
}

// inferredKeys returns the keys that every or some value of the type has.
func inferredKeys(t types.Type) []string {
	var out []string
	switch t := t.(type) {
	case *types.Object:
		for _, p := range t.StaticProperties() {
			if key, ok := p.Key.(string); ok && !slices.Contains(out, key) {
				out = append(out, key)
			}
		}
	case types.Any:
		for _, alternative := range t {
			for _, key := range inferredKeys(alternative) {
				if !slices.Contains(out, key) {
					out = append(out, key)
				}
			}
		}
	}
	return out
}

// decisionKeys are the keys that the decision schema has.
func decisionKeys() []string {
	var schema struct {
		AnyOf []struct {
			Properties map[string]any `json:"properties"`
		} `json:"anyOf"`
	}
	if err := json.Unmarshal(policies.DecisionSchema(), &schema); err != nil {
		return nil
	}
	var out []string
	for _, alternative := range schema.AnyOf {
		for key := range alternative.Properties {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return out
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

package engine

import (
	"cmp"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// ruleTracer watches which rules are entered, which hold, and where the others
// fail.
type ruleTracer struct {
	input   *ast.Term
	names   map[ast.Var]ast.Var // what a policy calls the compiler's locals
	byQuery map[uint64]*ruleTrace
	byRule  map[*ast.Rule]*ruleTrace
}

type ruleTrace struct {
	rule   *ast.Rule
	held   bool
	failed *ast.Expr // the furthest of the body that failed
	values []Value   // what its names stood for then
}

func newRuleTracer(input *ast.Term, names map[ast.Var]ast.Var) *ruleTracer {
	return &ruleTracer{input: input, names: names, byQuery: map[uint64]*ruleTrace{}, byRule: map[*ast.Rule]*ruleTrace{}}
}

// Enabled makes the evaluator report.
func (*ruleTracer) Enabled() bool { return true }

// Config asks for no variables: the values shown are those of the input.
func (*ruleTracer) Config() topdown.TraceConfig { return topdown.TraceConfig{} }

// TraceEvent takes one event of the evaluation. A rule's body is evaluated under
// the query id with which the rule is entered.
func (t *ruleTracer) TraceEvent(evt topdown.Event) {
	switch node := evt.Node.(type) {
	case *ast.Rule:
		r := t.byRule[node]
		if r == nil {
			r = &ruleTrace{rule: node}
			t.byRule[node] = r
		}
		t.byQuery[evt.QueryID] = r
		r.held = r.held || evt.Op == topdown.ExitOp
	case *ast.Expr:
		if evt.Op != topdown.FailOp {
			return
		}
		if r := t.byQuery[evt.QueryID]; r != nil && (r.failed == nil || node.Index > r.failed.Index) {
			r.failed, r.values = node, t.values(evt, statement(r.rule.Body, node))
		}
	}
}

func (t *ruleTracer) sorted() []*ruleTrace {
	out := make([]*ruleTrace, 0, len(t.byRule))
	for _, r := range t.byRule {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *ruleTrace) int {
		pa, pb := placeOf(a.rule.Location), placeOf(b.rule.Location)
		return cmp.Or(cmp.Compare(pa.File, pb.File), cmp.Compare(pa.Row, pb.Row))
	})
	return out
}

// condition describes the expression that failed as its author wrote it. The
// compiler splits expressions: what failed may be a part, then the whole is shown.
func (t *ruleTracer) condition(r *ruleTrace) Condition {
	parts := statement(r.rule.Body, r.failed)
	whole := parts[0]
	c := Condition{Text: whole.String(), Place: placeOf(whole.Location)}
	if whole.Location != nil && len(whole.Location.Text) > 0 {
		c.Text = strings.TrimSpace(string(whole.Location.Text))
	}
	c.Values = r.values
	return c
}

// statement returns the expressions of body that came from the same statement of
// the source as failed, the one with the longest text first.
func statement(body ast.Body, failed *ast.Expr) []*ast.Expr {
	whole := failed
	for _, expr := range body {
		if covers(expr.Location, whole.Location) {
			whole = expr
		}
	}
	parts := []*ast.Expr{whole}
	for _, expr := range body {
		if expr != whole && covers(whole.Location, expr.Location) {
			parts = append(parts, expr)
		}
	}
	return parts
}

// covers reports whether the text at outer includes that at inner.
func covers(outer, inner *ast.Location) bool {
	return outer != nil && inner != nil && outer.File == inner.File &&
		outer.Offset <= inner.Offset && inner.Offset+len(inner.Text) <= outer.Offset+len(outer.Text)
}

// values returns what is known of the names in parts at the time of evt.
func (t *ruleTracer) values(evt topdown.Event, parts []*ast.Expr) (out []Value) {
	add := func(name string, v ast.Value) {
		if slices.ContainsFunc(out, func(o Value) bool { return o.Ref == name }) {
			return
		}
		if v == nil {
			out = append(out, Value{Ref: name})
			return
		}
		if text, err := valueJSON(v); err == nil && len(text) <= maxShown {
			out = append(out, Value{Ref: name, JSON: text})
		}
	}
	for _, expr := range parts {
		ast.WalkTerms(expr, func(term *ast.Term) bool {
			switch v := term.Value.(type) {
			case ast.Ref:
				if v[0].Equal(ast.InputRootDocument) {
					prefix := v.ConstantPrefix()
					add(prefix.String(), find(t.input.Value, prefix))
					return false
				}
				if name, head, ok := t.local(evt, v[0]); ok {
					prefix := v.ConstantPrefix()
					add(name+strings.TrimPrefix(prefix.String(), v[0].String()), find(head, prefix))
					return true
				}
			case ast.Var:
				if name, bound, ok := t.local(evt, term); ok {
					add(name, bound)
				}
			}
			return false
		})
	}
	return out
}

// maxShown is how many bytes of a value an explanation shows at most.
const maxShown = 1024

// find returns the value that the constant ref stands for below its head, which
// is v; nil if there is none.
func find(v ast.Value, ref ast.Ref) ast.Value {
	found, err := v.Find(ref[1:])
	if err != nil {
		return nil
	}
	return found
}

// local returns the name in the policy and the value of a local that is bound.
func (t *ruleTracer) local(evt topdown.Event, term *ast.Term) (name string, value ast.Value, ok bool) {
	v, isVar := term.Value.(ast.Var)
	if !isVar {
		return "", nil, false
	}
	original, declared := t.names[v]
	if !declared || original.IsWildcard() || original.IsGenerated() {
		return "", nil, false
	}
	bound := evt.Plug(term)
	return string(original), bound.Value, bound.IsGround()
}

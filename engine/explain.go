package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/sallyport/sallyport/engine/authz"
)

// Explanation is a decision with its reasons. Rendering it is the caller's.
type Explanation struct {
	Revision   string `json:"revision"`
	Entrypoint string `json:"entrypoint"`
	// Input is the input document as a policy may see it; the body is in it only
	// if the entrypoint can read it.
	Input json.RawMessage `json:"input"`
	// Reads are the parts of the input that the entrypoint can read.
	Reads []string `json:"reads"`
	// Nondeterministic are the built-in functions that the entrypoint can call
	// whose results may differ the next time.
	Nondeterministic []string        `json:"nondeterministic,omitempty"`
	Decision         *authz.Decision `json:"-"`
	// Answer is the decision in the form of the contract, section 4.
	Answer *DecisionDocument `json:"decision"`
	// Held are the rules that were true, in order of their place.
	Held []RuleResult `json:"held"`
	// Failed are the rules that were tried and were not true.
	Failed []RuleFailure `json:"failed"`
	// BuiltinErrors are built-in functions that failed and so were undefined.
	BuiltinErrors []string `json:"builtin_errors,omitempty"`
	// Incomplete says that the rules were not all tried, because that took too long.
	Incomplete bool `json:"incomplete,omitempty"`
}

// Place is where something stands in the policy.
type Place struct {
	File string `json:"file"`
	Row  int    `json:"row"`
}

// RuleResult is one rule of the policy.
type RuleResult struct {
	Name    string `json:"name"` // data.gateway.allow
	Default bool   `json:"default,omitempty"`
	Place
}

// RuleFailure is a rule that was not true, and the first condition of its body
// that no values could satisfy.
type RuleFailure struct {
	RuleResult
	Condition Condition `json:"condition"`
}

// Condition is one expression of a rule's body.
type Condition struct {
	Text string `json:"text"`
	Place
	// Values are the parts of the input that the expression names.
	Values []Value `json:"values,omitempty"`
}

// Value is what a reference stood for; JSON is nil if it was undefined.
type Value struct {
	Ref  string          `json:"ref"`
	JSON json.RawMessage `json:"value"`
}

// explainTimeout bounds the second, traced evaluation, which tries all rules and
// so takes longer than a decision may.
const explainTimeout = 5 * time.Second

// Explain decides like Decide, on the same snapshot and the same input document,
// and says why: it evaluates once more with all rules tried and watched.
func (e *Engine) Explain(ctx context.Context, in *authz.Input) (*Explanation, error) {
	snap, ep, err := e.lookup(in)
	if err != nil {
		return nil, err
	}
	input, err := ep.plan.document(ctx, in)
	if err != nil {
		return nil, err
	}
	ev := evaluation{snapshot: snap, entrypoint: ep, input: input, now: e.deps.Now(), timeout: e.cfg.DecisionTimeout}
	d, err := e.decide(ctx, &ev)
	if err != nil {
		return nil, err
	}
	x := &Explanation{
		Revision: snap.id, Entrypoint: ep.path, Decision: d, Answer: NewDecisionDocument(d),
		Reads: ep.reads.Input.Paths(), Nondeterministic: ep.reads.Nondeterministic,
		Held: []RuleResult{}, Failed: []RuleFailure{},
	}
	if x.Input, err = explainInput(ctx, ep, in); err != nil {
		return nil, err
	}
	for i := range ev.errs {
		x.BuiltinErrors = append(x.BuiltinErrors, ev.errs[i].Error())
	}
	e.trace(ctx, &ev, x)
	return x, nil
}

func explainInput(ctx context.Context, ep *entrypoint, in *authz.Input) (json.RawMessage, error) {
	shown := *in
	if !ep.body {
		shown.Request.Body = nil
	}
	doc, err := InputDocument(ctx, &shown)
	if err != nil {
		return nil, err
	}
	return valueJSON(doc.Value)
}

func valueJSON(v ast.Value) (json.RawMessage, error) {
	x, err := ast.JSON(v)
	if err != nil {
		return nil, fmt.Errorf("convert value to JSON: %w", err)
	}
	return json.Marshal(x)
}

// trace evaluates once more. Rule indexing is off, so that rules which an index
// excludes are tried and say which condition fails, and so is early exit, so that
// all rules that hold are found; neither changes a result.
func (e *Engine) trace(ctx context.Context, decided *evaluation, x *Explanation) {
	t := &ruleTracer{input: decided.input, byQuery: map[uint64]*ruleTrace{}, byRule: map[*ast.Rule]*ruleTrace{}}
	ev := evaluation{
		snapshot: decided.snapshot, entrypoint: decided.entrypoint, input: decided.input,
		now: decided.now, timeout: explainTimeout, tracer: t,
	}
	_, fault := e.evaluate(ctx, &ev)
	x.Incomplete = fault != nil && fault.Kind == authz.FaultTimeout
	for _, rule := range t.sorted() {
		result := RuleResult{Name: ruleName(rule.rule), Default: rule.rule.Default, Place: placeOf(rule.rule.Location)}
		switch {
		case rule.held:
			x.Held = append(x.Held, result)
		case rule.failed != nil:
			x.Failed = append(x.Failed, RuleFailure{RuleResult: result, Condition: t.condition(rule)})
		}
	}
}

func ruleName(r *ast.Rule) string {
	if r.Module == nil {
		return r.Head.Ref().String()
	}
	return r.Ref().String()
}

func placeOf(l *ast.Location) Place {
	if l == nil {
		return Place{}
	}
	return Place{File: l.File, Row: l.Row}
}

// ruleTracer watches which rules are entered, which hold, and where the others
// fail.
type ruleTracer struct {
	input   *ast.Term
	byQuery map[uint64]*ruleTrace
	byRule  map[*ast.Rule]*ruleTrace
}

type ruleTrace struct {
	rule   *ast.Rule
	held   bool
	failed *ast.Expr // the furthest of the body that failed
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
			r.failed = node
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
// compiler splits expressions: what failed may be a part, then the whole is shown
// with the values of all its parts.
func (t *ruleTracer) condition(r *ruleTrace) Condition {
	parts := statement(r.rule.Body, r.failed)
	whole := parts[0]
	c := Condition{Text: whole.String(), Place: placeOf(whole.Location)}
	if whole.Location != nil && len(whole.Location.Text) > 0 {
		c.Text = strings.TrimSpace(string(whole.Location.Text))
	}
	for _, expr := range parts {
		ast.WalkRefs(expr, func(ref ast.Ref) bool {
			if ref[0].Equal(ast.InputRootDocument) {
				c.addValue(t.value(ref))
			}
			return false
		})
	}
	return c
}

func (c *Condition) addValue(v Value) {
	if !slices.ContainsFunc(c.Values, func(o Value) bool { return o.Ref == v.Ref }) {
		c.Values = append(c.Values, v)
	}
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

func (t *ruleTracer) value(ref ast.Ref) Value {
	prefix := ref.ConstantPrefix()
	out := Value{Ref: prefix.String()}
	if v, err := t.input.Value.Find(prefix[1:]); err == nil {
		out.JSON, _ = valueJSON(v) // what has no JSON is shown as undefined
	}
	return out
}

package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

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
	Nondeterministic []string `json:"nondeterministic,omitempty"`
	// Uncached is what keeps the entrypoint's decisions out of the decision cache:
	// parts of the input and built-in functions.
	Uncached []string        `json:"uncached,omitempty"`
	Decision *authz.Decision `json:"-"`
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
	// Values are what the parts of the input and the local names stood for that the
	// expression mentions.
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
		Revision: snap.id, Entrypoint: ep.path, Decision: d, Answer: NewDecisionDocument(authz.NewID(ev.now), d),
		Reads: ep.reads.Input.Paths(), Nondeterministic: ep.reads.Nondeterministic, Uncached: ep.key.off,
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
	t := newRuleTracer(decided.input, decided.snapshot.compiler.RewrittenVars)
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

package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/sallyport/sallyport/engine/authz"
)

// Decide asks the policy about in. A deny is a decision, as is a policy fault,
// which denies; an error means that there is none: authz.ErrNoPolicy,
// authz.ErrBodyTooLarge, authz.ErrBodyRead, or the end of ctx.
func (e *Engine) Decide(ctx context.Context, in *authz.Input) (*authz.Decision, error) {
	start := e.deps.Now()
	snap, ep, err := e.lookup(in)
	if err != nil {
		return nil, err
	}
	q := e.ask(snap, ep, in, start)
	defer e.done(q)
	d := q.answer()
	e.metrics.lookup(q, d)
	if d == nil {
		if d, start, err = e.decideAnew(ctx, snap, ep, in, q, start); err != nil {
			return nil, err
		}
	}
	e.metrics.decision(d, e.deps.Now().Sub(start))
	return d, nil
}

// decideAnew evaluates the policy and lets q keep what may be kept. It returns
// when the evaluation could begin.
func (e *Engine) decideAnew(
	ctx context.Context, snap *snapshot, ep *entrypoint, in *authz.Input, q *question, start time.Time,
) (*authz.Decision, time.Time, error) {
	input, err := ep.plan.document(ctx, in)
	if err != nil {
		return nil, start, err
	}
	if ep.body {
		start = e.deps.Now() // the client's time to send the body is not ours
	}
	ev := evaluation{snapshot: snap, entrypoint: ep, input: input, now: start, timeout: e.cfg.DecisionTimeout}
	d, err := e.decide(ctx, &ev)
	if err != nil {
		return nil, start, err
	}
	if len(ev.errs) == 0 {
		e.metrics.evicted(q.keep(d))
	}
	return d, start, nil
}

// decide evaluates ev and makes a checked decision of its result.
func (e *Engine) decide(ctx context.Context, ev *evaluation) (*authz.Decision, error) {
	result, fault := e.evaluate(ctx, ev)
	if ctx.Err() != nil && fault != nil {
		return nil, fmt.Errorf("evaluate policy: %w", ctx.Err())
	}
	e.reportBuiltinErrors(ctx, ev)
	d := &authz.Decision{}
	if fault == nil {
		d, fault = parseDecision(result)
	}
	if fault == nil {
		fault = e.unsupported(d)
	}
	if fault != nil {
		// Nothing of a refused answer is used: half of the obligations of a deny
		// would be another deny than the policy meant.
		d = &authz.Decision{Fault: fault}
	}
	d.Revision, d.Bundles = ev.snapshot.id, ev.snapshot.bundles
	d.Owned = ev.entrypoint.sets
	return d, nil
}

func (e *Engine) unsupported(d *authz.Decision) *authz.Fault {
	if e.deps.Supported == nil {
		return nil
	}
	if err := e.deps.Supported(d); err != nil {
		return &authz.Fault{Kind: authz.FaultUnsupported, Detail: err.Error()}
	}
	return nil
}

// evaluation is one run of an entrypoint.
type evaluation struct {
	snapshot   *snapshot
	entrypoint *entrypoint
	input      *ast.Term
	now        time.Time
	timeout    time.Duration
	tracer     topdown.QueryTracer // nil on the hot path
	errs       []topdown.Error     // of built-in functions

	deadline deadline
	result   *ast.Term
	results  int
}

// evaluate returns the entrypoint's value. A panic of the evaluator or of a
// built-in function denies this request and leaves the process alone.
func (e *Engine) evaluate(ctx context.Context, ev *evaluation) (result ast.Value, fault *authz.Fault) {
	defer func() {
		if p := recover(); p != nil {
			e.metrics.panics.Add(1)
			e.deps.Logger.ErrorContext(ctx, "policy evaluation panicked", slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			result, fault = nil, &authz.Fault{Kind: authz.FaultEval, Detail: fmt.Sprintf("panic: %v", p)}
		}
	}()
	// The clock of the deadline is the real one: an injected clock stands still
	// while a policy loops.
	ev.deadline.begin(ctx, time.Now(), ev.timeout, ev.entrypoint.network)
	if ev.entrypoint.network {
		// A built-in that waits for the network does not ask Cancelled.
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, ev.deadline.at)
		defer cancel()
	}
	if err := e.query(ev).Iter(ctx, ev.keep); err != nil {
		return nil, evalFault(err, ev.timeout)
	}
	switch {
	case ev.deadline.passed():
		return nil, evalFault(context.DeadlineExceeded, ev.timeout)
	case ev.results == 0:
		return nil, &authz.Fault{Kind: authz.FaultUndefined, Detail: ev.entrypoint.path + " has no value"}
	case ev.results > 1:
		return nil, &authz.Fault{Kind: authz.FaultEval, Detail: ev.entrypoint.path + " has more than one value"}
	}
	return ev.result.Value, nil
}

func (e *Engine) query(ev *evaluation) *topdown.Query {
	q := topdown.NewQuery(ev.entrypoint.compiled).
		WithQueryCompiler(ev.entrypoint.query).
		WithCompiler(ev.snapshot.compiler).
		WithStore(ev.snapshot.store).
		WithTransaction(ev.snapshot.txn).
		WithInput(ev.input).
		WithCancel(&ev.deadline).
		WithMetrics(metrics.NoOp()).
		WithTime(ev.now).
		WithRuntime(e.deps.Runtime).
		WithBuiltinErrorList(&ev.errs).
		WithInterQueryBuiltinCache(e.responses).
		WithInterQueryBuiltinValueCache(e.values)
	if ev.tracer != nil {
		q = q.WithQueryTracer(ev.tracer).WithIndexing(false).WithEarlyExit(false)
	}
	return q
}

func (ev *evaluation) keep(r topdown.QueryResult) error {
	ev.result = r[resultVar]
	ev.results++
	return nil
}

func evalFault(err error, timeout time.Duration) *authz.Fault {
	if topdown.IsCancel(err) || errors.Is(err, context.DeadlineExceeded) {
		return &authz.Fault{Kind: authz.FaultTimeout, Detail: fmt.Sprintf("%v of %v", authz.ErrDecisionTimeout, timeout)}
	}
	return &authz.Fault{Kind: authz.FaultEval, Detail: err.Error()}
}

// reportBuiltinErrors makes failed built-in functions visible. To the policy they
// are undefined, as OPA defines it, so that a rule that needs them does not hold.
func (e *Engine) reportBuiltinErrors(ctx context.Context, ev *evaluation) {
	if len(ev.errs) == 0 {
		return
	}
	e.metrics.builtinErrors.Add(int64(len(ev.errs)))
	e.deps.Logger.DebugContext(ctx, "built-in function failed",
		slog.String("entrypoint", ev.entrypoint.path), slog.Int("errors", len(ev.errs)), slog.String("first", ev.errs[0].Error()))
}

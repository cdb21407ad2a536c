package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"

	"github.com/sallyport/sallyport/engine/analysis"
	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/decisioncache"
	pace "github.com/sallyport/sallyport/engine/document"
)

// ErrUndefinedEntrypoint says that a revision has no rule that an entrypoint
// names, so it could never decide.
var ErrUndefinedEntrypoint = errors.New("no rule of the policy defines the entrypoint")

// Revision is a compiled policy with its data, as bundle activation leaves it.
type Revision struct {
	ID      string
	Bundles map[string]string // name to revision
	// Compiler has compiled the modules without error. The engine sets its
	// capabilities, which built-in functions consult for the hosts they may reach,
	// so one compiler belongs to one engine.
	Compiler *ast.Compiler
	// Store holds the data. It must be able to keep a past state, as engine/store
	// does: a snapshot keeps deciding on the data it was activated with.
	Store storage.Store
	// Txn sees the state to activate: within a commit trigger the write
	// transaction. Nil means what is committed now.
	Txn storage.Transaction
}

// pinner is a store that can keep a past state readable.
type pinner interface {
	Pin(storage.Transaction) (storage.Transaction, error)
}

// snapshot is one revision, ready to decide. Nothing but its cache ever changes.
type snapshot struct {
	id          string
	bundles     map[string]string
	since       time.Time
	compiler    *ast.Compiler
	store       storage.Store
	txn         storage.Transaction // pinned
	entrypoints map[string]*entrypoint
	cache       *decisioncache.Cache // nil: off
}

// entrypoint is one rule to ask, prepared.
type entrypoint struct {
	path     string
	query    ast.QueryCompiler
	compiled ast.Body
	reads    *analysis.Report
	plan     plan
	key      *keyPlan
	sets     []string // upstream headers that some answer of it sets
	body     bool     // can read the request body
	network  bool     // may wait for the network, so the deadline must reach it
}

// resultVar is the variable that the entrypoint's value is bound to.
const resultVar = ast.Var("result")

// Activate makes the revision the one that decides. All that can fail happens
// before the swap; on error the revision that was active stays.
func (e *Engine) Activate(ctx context.Context, rev Revision) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	snap, err := e.prepare(ctx, rev)
	if err != nil {
		e.metrics.activation(false)
		return fmt.Errorf("activate policy revision %q: %w", rev.ID, err)
	}
	// Point of no return: nothing below can fail.
	e.current.Store(snap)
	pace.Serving()
	e.metrics.activation(true)
	e.deps.Logger.DebugContext(ctx, "policy activated", slog.String("revision", rev.ID), slog.Any("bundles", snap.bundles))
	return nil
}

func (e *Engine) prepare(ctx context.Context, rev Revision) (*snapshot, error) {
	switch {
	case rev.Compiler == nil || rev.Store == nil:
		return nil, errors.New("revision has no compiler or no store")
	case rev.Compiler.Failed():
		return nil, rev.Compiler.Errors
	}
	if err := CheckBuiltins(rev.Compiler, e.caps); err != nil {
		return nil, err
	}
	// Written only when it differs: a delta bundle is activated with the compiler
	// that is evaluated at the same time.
	if rev.Compiler.Capabilities() != e.caps {
		rev.Compiler.WithCapabilities(e.caps)
	}
	txn, err := pin(ctx, rev)
	if err != nil {
		return nil, err
	}
	snap := &snapshot{
		id: rev.ID, bundles: maps.Clone(rev.Bundles), since: e.deps.Now(),
		compiler: rev.Compiler, store: rev.Store, txn: txn, cache: e.newCache(),
	}
	snap.entrypoints, err = prepareAll(rev.Compiler, e.required)
	return snap, err
}

func pin(ctx context.Context, rev Revision) (storage.Transaction, error) {
	p, ok := rev.Store.(pinner)
	if !ok {
		return nil, fmt.Errorf("store %T cannot keep the state of a revision", rev.Store)
	}
	if rev.Txn != nil {
		return p.Pin(rev.Txn)
	}
	txn, err := rev.Store.NewTransaction(ctx)
	if err != nil {
		return nil, err
	}
	defer rev.Store.Abort(ctx, txn)
	return p.Pin(txn)
}

func prepareAll(c *ast.Compiler, paths map[string]struct{}) (map[string]*entrypoint, error) {
	out := make(map[string]*entrypoint, len(paths))
	var problems []error
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		ep, err := prepareEntrypoint(c, path)
		if err != nil {
			problems = append(problems, fmt.Errorf("entrypoint %q: %w", path, err))
			continue
		}
		out[path] = ep
	}
	return out, errors.Join(problems...)
}

func prepareEntrypoint(c *ast.Compiler, path string) (*entrypoint, error) {
	ref, err := entrypointRef(path)
	if err != nil {
		return nil, err
	}
	if len(c.GetRulesDynamicWithOpts(ref, ast.RulesOptions{IncludeHiddenModules: true})) == 0 {
		return nil, ErrUndefinedEntrypoint
	}
	query := c.QueryCompiler().WithContext(ast.NewQueryContext())
	compiled, err := query.Compile(ast.NewBody(ast.Equality.Expr(ast.NewTerm(resultVar), ast.NewTerm(ref))))
	if err != nil {
		return nil, fmt.Errorf("compile query: %w", err)
	}
	reads := analysis.Of(c, ref)
	return &entrypoint{
		path: path, query: query, compiled: compiled, reads: reads, plan: planOf(reads.Input), key: keyPlanOf(path, reads),
		sets:    headersSet(c, ref),
		body:    reads.ReadsBody(),
		network: slices.Contains(reads.Builtins, "http.send") || slices.Contains(reads.Builtins, "net.lookup_ip_addr"),
	}, nil
}

// Require adds entrypoints that every revision must define from now on, and
// prepares them on the active one: the routes of a configuration that is about to
// become live. On error nothing changes.
func (e *Engine) Require(entrypoints ...string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	required := maps.Clone(e.required)
	for _, path := range entrypoints {
		if _, err := entrypointRef(path); err != nil {
			return fmt.Errorf("entrypoint %q: %w", path, err)
		}
		required[path] = struct{}{}
	}
	return e.setRequired(required)
}

// Retain drops the entrypoints that are not listed, apart from the configured
// default: a configuration that no longer routes to them has become live.
func (e *Engine) Retain(entrypoints ...string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	required := map[string]struct{}{e.cfg.Entrypoint: {}}
	for _, path := range entrypoints {
		required[path] = struct{}{}
	}
	return e.setRequired(required)
}

func (e *Engine) setRequired(required map[string]struct{}) error {
	snap := e.current.Load()
	if snap == nil {
		e.required = required
		return nil
	}
	prepared, err := prepareAll(snap.compiler, required)
	if err != nil {
		return fmt.Errorf("policy revision %q: %w", snap.id, err)
	}
	next := *snap
	next.entrypoints, next.cache = prepared, e.newCache()
	e.required = required
	e.current.Store(&next)
	return nil
}

// lookup returns the snapshot and the entrypoint that judge in.
func (e *Engine) lookup(in *authz.Input) (*snapshot, *entrypoint, error) {
	snap := e.current.Load()
	if snap == nil {
		return nil, nil, authz.ErrNoPolicy
	}
	path := in.Route.Entrypoint
	if path == "" {
		path = e.cfg.Entrypoint
	}
	ep, ok := snap.entrypoints[path]
	if !ok {
		return nil, nil, fmt.Errorf("entrypoint %q is not prepared: %w", path, authz.ErrNoPolicy)
	}
	return snap, ep, nil
}

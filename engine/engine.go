// Package engine owns OPA: it turns an active policy revision into one immutable
// snapshot and asks it for decisions.
//
// A snapshot holds all that a decision needs - compiled queries, the state of the
// data, what each entrypoint can read - behind one atomic pointer that a decision
// loads once. Activation prepares everything that can fail before it swaps the
// pointer, so a revision is live whole or not at all, and the last good one stays.
//
// The package does not fetch or verify policies (package bundles does) and does
// not know HTTP servers. A policy's answer is checked here: what leaves is an
// authz.Decision whose every obligation the gateway can carry out, or a deny.
package engine

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown/cache"

	"github.com/sallyport/sallyport/engine/analysis"
	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/meter"
)

// Deps are what the engine uses of its surroundings. All may be left out.
type Deps struct {
	Logger  *slog.Logger
	Metrics *meter.Registry
	Now     func() time.Time
	// Supported returns an error for a decision with an obligation that this
	// gateway cannot carry out; such a decision is a policy fault. Nil: there is
	// none. Who carries decisions out refuses what its own configuration lacks.
	Supported func(*authz.Decision) error
	// Runtime is what opa.runtime() returns, where that is allowed.
	Runtime *ast.Term
}

// Engine answers whether requests are allowed. It is safe for concurrent use.
type Engine struct {
	cfg     Config
	deps    Deps
	caps    *ast.Capabilities
	metrics *instruments

	values    cache.InterQueryValueCache // compiled globs and the like
	responses cache.InterQueryCache      // what http.send may keep

	current   atomic.Pointer[snapshot] // nil: no policy
	questions sync.Pool                // of *question

	mu       sync.Mutex          // one activation at a time
	required map[string]struct{} // entrypoints every snapshot must have
}

// Bounds of what built-in functions keep between decisions.
const (
	maxCachedValues        = 10_000
	maxCachedResponseBytes = 16 << 20
)

// New returns an engine without a policy: it decides nothing until a revision is
// activated.
func New(cfg Config, deps Deps) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	if deps.Metrics == nil {
		deps.Metrics = meter.New()
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	e := &Engine{
		cfg: cfg, deps: deps, metrics: newInstruments(deps.Metrics),
		caps:     capabilities(cfg.Builtins),
		required: map[string]struct{}{cfg.Entrypoint: {}},
	}
	caching := cacheConfig()
	e.values = cache.NewInterQueryValueCache(context.Background(), caching)
	e.responses = cache.NewInterQueryCache(caching)
	return e, nil
}

func cacheConfig() *cache.Config {
	entries, bytes := maxCachedValues, int64(maxCachedResponseBytes)
	percent, period := int64(100), int64(0)
	return &cache.Config{
		InterQueryBuiltinCache: cache.InterQueryBuiltinCacheConfig{
			MaxSizeBytes:                      &bytes,
			ForcedEvictionThresholdPercentage: &percent,
			StaleEntryEvictionPeriodSeconds:   &period,
		},
		InterQueryBuiltinValueCache: cache.InterQueryBuiltinValueCacheConfig{MaxNumEntries: &entries},
	}
}

// Capabilities returns what policies may use, for whoever compiles them. It is
// shared and not to be changed.
func (e *Engine) Capabilities() *ast.Capabilities { return e.caps }

// Active returns the revision that decides now: its id, the revision of each of
// its bundles and since when. ok is false when there is none.
func (e *Engine) Active() (id string, bundles map[string]string, since time.Time, ok bool) {
	snap := e.current.Load()
	if snap == nil {
		return "", nil, time.Time{}, false
	}
	return snap.id, maps.Clone(snap.bundles), snap.since, true
}

// Withdraw takes the active policy away: the gateway is closed until the next
// activation. The reason is logged.
func (e *Engine) Withdraw(reason string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.current.Swap(nil) != nil {
		e.deps.Logger.Warn("policy withdrawn", slog.String("reason", reason))
	}
}

// Reads returns what an entrypoint of the active policy can read.
func (e *Engine) Reads(entrypoint string) (*analysis.Report, bool) {
	snap := e.current.Load()
	if snap == nil {
		return nil, false
	}
	ep, ok := snap.entrypoints[entrypoint]
	if !ok {
		return nil, false
	}
	return ep.reads, true
}

// ConfigureCaches takes over the settings of an OPA configuration's "caching"
// section, for whatever built-in functions keep between decisions.
func (e *Engine) ConfigureCaches(cfg *cache.Config) {
	e.values.UpdateConfig(cfg)
	e.responses.UpdateConfig(cfg)
}

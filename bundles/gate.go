package bundles

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/plugins"
	"github.com/open-policy-agent/opa/v1/plugins/discovery"
	"github.com/open-policy-agent/opa/v1/storage"

	"github.com/sallyport/sallyport/engine"
	"github.com/sallyport/sallyport/engine/store"
)

// gate is the store that OPA's bundle plugin writes to. Each commit passes it: the
// policies are compiled with what this gateway lets them call, checked, and
// activated in the engine before anybody sees what was written. If that fails the
// commit fails, so that OPA reports the error, does not persist the bundle, and
// asks for it again.
//
// OPA has a trigger for this moment, but a trigger cannot refuse: the bundle
// would be live in OPA's view, ready, persisted, and in the status reports.
type gate struct {
	*store.Store
	deps        Deps
	journal     *journal
	allowSystem bool
	configured  func() []string // names of the bundles that make up a policy

	// writing is the open write transaction. The store admits one at a time.
	writing atomic.Pointer[writing]

	// compiled are the policies that were compiled last. Data changes alone do
	// not compile again. Guarded by the write transaction.
	compiled *policySet
}

type writing struct {
	id      uint64
	context *storage.Context
	changed bool
}

// byBundle reports whether the bundle plugin writes to activate a bundle: it puts
// its compiler there, and hears about an error.
func (w *writing) byBundle() bool {
	return w.context != nil && plugins.GetCompilerOnContext(w.context) != nil
}

type policySet struct {
	texts    map[string]string
	compiler *ast.Compiler
}

func (g *gate) NewTransaction(ctx context.Context, params ...storage.TransactionParams) (storage.Transaction, error) {
	txn, err := g.Store.NewTransaction(ctx, params...)
	if err == nil && len(params) > 0 && params[0].Write {
		g.writing.Store(&writing{id: txn.ID(), context: params[0].Context})
	}
	return txn, err
}

func (g *gate) Write(ctx context.Context, txn storage.Transaction, op storage.PatchOp, path storage.Path, value any) error {
	g.touched(txn)
	return g.Store.Write(ctx, txn, op, path, value)
}

func (g *gate) UpsertPolicy(ctx context.Context, txn storage.Transaction, id string, text []byte) error {
	g.touched(txn)
	return g.Store.UpsertPolicy(ctx, txn, id, text)
}

func (g *gate) DeletePolicy(ctx context.Context, txn storage.Transaction, id string) error {
	g.touched(txn)
	return g.Store.DeletePolicy(ctx, txn, id)
}

func (g *gate) Truncate(ctx context.Context, txn storage.Transaction, params storage.TransactionParams, it storage.Iterator) error {
	g.touched(txn)
	return g.Store.Truncate(ctx, txn, params, it)
}

func (g *gate) touched(txn storage.Transaction) {
	if w := g.writing.Load(); w != nil && w.id == txn.ID() {
		w.changed = true
	}
}

// Commit makes what was written live, in the engine first.
func (g *gate) Commit(ctx context.Context, txn storage.Transaction) error {
	w := g.writing.Load()
	if w == nil || w.id != txn.ID() || !w.changed {
		return g.Store.Commit(ctx, txn)
	}
	rev, err := g.admit(ctx, txn)
	if err == nil && rev != nil {
		err = g.deps.Engine.Activate(ctx, *rev)
	}
	if err != nil {
		if w.byBundle() {
			g.Abort(ctx, txn)
			return err
		}
		// OPA takes a bundle out that the configuration does not have any more,
		// and panics if it may not. The engine keeps what it has.
		g.deps.Logger.ErrorContext(ctx, "the last good policy stays in force", slog.Any("error", err))
		g.journal.failed(ctx, "", err)
		return g.Store.Commit(ctx, txn)
	}
	if err := g.Store.Commit(ctx, txn); err != nil {
		return err
	}
	if !w.byBundle() {
		g.journal.retain(append(g.configured(), discovery.Name))
	}
	switch {
	case rev != nil:
		g.journal.activated(ctx, rev.ID, rev.Bundles)
	case !w.byBundle() && g.journal.Status().Ready:
		g.journal.failed(ctx, "", errNoBundle)
	}
	return nil
}

// admit decides whether what txn would make of the store may become live, and
// returns it as a revision; nil without an error while bundles are missing.
func (g *gate) admit(ctx context.Context, txn storage.Transaction) (*engine.Revision, error) {
	if err := g.checkSystem(ctx, txn); err != nil {
		return nil, err
	}
	set, err := g.compile(ctx, txn)
	if err != nil {
		return nil, err
	}
	revisions, err := g.revisions(ctx, txn)
	if err != nil {
		return nil, err
	}
	g.compiled = set
	if len(revisions) == 0 {
		return nil, nil //nolint:nilnil // not an error: there is nothing to activate yet
	}
	return &engine.Revision{
		ID: revisionID(revisions), Bundles: revisions, Compiler: set.compiler, Store: g.Store, Txn: txn,
	}, nil
}

// revisions returns the revision of each configured bundle, and nothing while one
// of them is missing: half of a policy decides nothing.
func (g *gate) revisions(ctx context.Context, txn storage.Transaction) (map[string]string, error) {
	out := map[string]string{}
	for _, name := range g.configured() {
		rev, err := bundle.ReadBundleRevisionFromStore(ctx, g.Store, txn, name)
		if storage.IsNotFound(err) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("revision of bundle %s: %w", name, err)
		}
		if rev == "" {
			// A bundle without a revision still has the tag it was downloaded with.
			if rev, err = bundle.ReadBundleEtagFromStore(ctx, g.Store, txn, name); err != nil && !storage.IsNotFound(err) {
				return nil, fmt.Errorf("ETag of bundle %s: %w", name, err)
			}
		}
		out[name] = rev
	}
	return out, nil
}

// revisionID is the bundle's revision, or that of all of them with their names.
func revisionID(revisions map[string]string) string {
	if len(revisions) == 1 {
		for _, rev := range revisions {
			return rev
		}
	}
	parts := make([]string, 0, len(revisions))
	for _, name := range slices.Sorted(maps.Keys(revisions)) {
		parts = append(parts, name+"@"+revisions[name])
	}
	return strings.Join(parts, ",")
}

// compile compiles the stored policies anew: the plugin's compiler lets them call
// everything that OPA has, and does not know what the input looks like.
func (g *gate) compile(ctx context.Context, txn storage.Transaction) (*policySet, error) {
	texts, err := g.policies(ctx, txn)
	if err != nil {
		return nil, err
	}
	if g.compiled != nil && maps.Equal(g.compiled.texts, texts) {
		return g.compiled, nil
	}
	modules, err := g.parse(ctx, txn, texts)
	if err != nil {
		return nil, err
	}
	caps := g.deps.Engine.Capabilities()
	compiler, err := compilation{
		caps: caps, schemas: true, conflicts: storage.NonEmpty(ctx, g.Store, txn),
	}.compile(modules)
	if err != nil {
		return nil, err
	}
	return &policySet{texts: texts, compiler: compiler}, nil
}

func (g *gate) policies(ctx context.Context, txn storage.Transaction) (map[string]string, error) {
	ids, err := g.ListPolicies(ctx, txn)
	if err != nil {
		return nil, fmt.Errorf("list policies: %w", err)
	}
	out := make(map[string]string, len(ids))
	for _, id := range ids {
		if isTest(id) {
			continue
		}
		text, err := g.GetPolicy(ctx, txn, id)
		if err != nil {
			return nil, fmt.Errorf("read policy %s: %w", id, err)
		}
		out[id] = string(text)
	}
	return out, nil
}

func (g *gate) parse(ctx context.Context, txn storage.Transaction, texts map[string]string) (map[string]*ast.Module, error) {
	out := make(map[string]*ast.Module, len(texts))
	var errs []error
	for id, text := range texts {
		m, err := ast.ParseModuleWithOpts(id, text, ast.ParserOptions{
			ProcessAnnotation: true,
			RegoVersion:       g.regoVersion(ctx, txn, id),
		})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if !g.allowSystem && systemPackage(m) {
			errs = append(errs, at(m.Package.Location, "%s: %v", m.Package, errSystem))
		}
		out[id] = m
	}
	return out, errors.Join(errs...)
}

// regoVersion returns what activation noted beside a module that is not Rego v1.
func (g *gate) regoVersion(ctx context.Context, txn storage.Transaction, id string) ast.RegoVersion {
	path := append(slices.Clone(bundle.ModulesInfoBasePath), strings.Trim(id, "/"), "rego_version")
	v, err := g.Read(ctx, txn, path)
	if err != nil {
		return ast.RegoV1
	}
	if n, ok := v.(ast.Number); ok {
		if i, ok := n.Int(); ok {
			if version, err := ast.RegoVersionFromIntStrict(i); err == nil {
				return version
			}
		}
	}
	return ast.RegoV1
}

// errNoBundle is what is left when discovery names no bundle any more.
var errNoBundle = errors.New("no bundle is configured any more; the last policy stays in force")

var errSystem = errors.New("a bundle must not own data.system (allow_system_bundles permits it)")

func systemPackage(m *ast.Module) bool {
	return len(m.Package.Path) > 1 && m.Package.Path[1].Value.Compare(ast.String("system")) == 0
}

// checkSystem refuses what OPA would take for its own: masks of the decision log,
// authorization of its API. Its notes about bundles are what may be there.
func (g *gate) checkSystem(ctx context.Context, txn storage.Transaction) error {
	if g.allowSystem {
		return nil
	}
	for _, name := range g.configured() {
		roots, err := bundle.ReadBundleRootsFromStore(ctx, g.Store, txn, name)
		if err != nil && !storage.IsNotFound(err) {
			return fmt.Errorf("roots of bundle %s: %w", name, err)
		}
		for _, root := range roots {
			if root == "system" || strings.HasPrefix(root, "system/") {
				return fmt.Errorf("bundle %s has root %s: %w", name, root, errSystem)
			}
		}
	}
	v, err := g.Read(ctx, txn, storage.MustParsePath("/system"))
	if storage.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read data.system: %w", err)
	}
	obj, ok := v.(ast.Object)
	if !ok {
		return errSystem
	}
	return obj.Iter(func(key, _ *ast.Term) error {
		switch name, _ := key.Value.(ast.String); name {
		case "bundles", "modules", "version":
			return nil
		default:
			return fmt.Errorf("data.system.%s: %w", name, errSystem)
		}
	})
}

package bundles

import (
	"context"
	"fmt"
	"io/fs"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
)

// Checking says what policies are checked against.
type Checking struct {
	Entrypoints  []string          // rules that must exist, as "gateway/decision"
	Capabilities *ast.Capabilities // what policies may call; nil: all of OPA
	FS           fs.FS             // nil: the file system
	// Exchanges reports whether a route that asks the entrypoint can exchange tokens;
	// nil: it is not known, and every one may.
	Exchanges func(entrypoint string) bool
}

// Check reports everything wrong with the policies of cfg that can be known
// without a request: that they compile, use `input` as the schema has it, have
// the entrypoints, and answer with decisions that this build can carry out. It
// reads `paths`; of `opa` it checks the configuration and contacts nobody.
func Check(ctx context.Context, cfg Config, c Checking) []*Problem {
	if err := cfg.Validate(); err != nil { //nolint:contextcheck // nothing in it waits
		return Problems(err)
	}
	if len(cfg.Paths) == 0 {
		return nil
	}
	return CheckPaths(ctx, cfg.Paths, c)
}

// CheckPaths is Check for files and directories without a configuration.
func CheckPaths(ctx context.Context, paths []string, c Checking) []*Problem {
	t, err := loading{paths: paths, fsys: c.FS, caps: c.Capabilities}.load()
	if err != nil {
		return Problems(err)
	}
	compiler, err := t.compile(ctx, c.Capabilities)
	if err != nil {
		return Problems(err)
	}
	var out []*Problem
	for _, entrypoint := range c.Entrypoints {
		out = append(out, t.checkEntrypoint(compiler, entrypoint, c.Exchanges == nil || c.Exchanges(entrypoint))...)
	}
	return out
}

// compile compiles the tree as it would be live.
func (t *tree) compile(ctx context.Context, caps *ast.Capabilities) (*ast.Compiler, error) {
	store := inmem.NewFromObjectWithOpts(t.data, inmem.OptRoundTripOnWrite(false))
	txn, err := store.NewTransaction(ctx)
	if err != nil {
		return nil, fmt.Errorf("open data: %w", err)
	}
	defer store.Abort(ctx, txn)
	return t.compileOver(caps, storage.NonEmpty(ctx, store, txn))
}

func (t *tree) compileOver(caps *ast.Capabilities, nonEmpty func([]string) (bool, error)) (*ast.Compiler, error) {
	return compilation{caps: caps, strict: true, conflicts: nonEmpty, schemas: true}.compile(t.modules)
}

func (t *tree) checkEntrypoint(compiler *ast.Compiler, entrypoint string, exchange bool) []*Problem {
	ref, err := entrypointRef(entrypoint)
	if err != nil {
		return []*Problem{{Text: err.Error()}}
	}
	rules := compiler.GetRulesExact(ref)
	if len(rules) == 0 {
		return []*Problem{{Text: fmt.Sprintf("entrypoint %s: no rule %s in the policies", entrypoint, ref)}}
	}
	return checkDecision(compiler, entrypoint, exchange, ref, t.rules(ref))
}

// rules returns the rules of ref as they were written: compiling moves parts of
// a head into the body.
func (t *tree) rules(ref ast.Ref) []*ast.Rule {
	var out []*ast.Rule
	for _, m := range t.modules {
		for _, r := range m.Rules {
			if r.Ref().GroundPrefix().Equal(ref) {
				out = append(out, r)
			}
		}
	}
	return out
}

// entrypointRef turns "gateway/decision" into data.gateway.decision.
func entrypointRef(entrypoint string) (ast.Ref, error) {
	path, ok := storage.ParsePath("/" + strings.Trim(entrypoint, "/"))
	if !ok || len(path) == 0 {
		return nil, fmt.Errorf("entrypoint %q is not a path such as gateway/decision", entrypoint)
	}
	return path.Ref(ast.DefaultRootDocument), nil
}

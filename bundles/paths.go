package bundles

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"

	"github.com/sallyport/sallyport/engine"
)

// pathSource brings policies from files and directories.
type pathSource struct {
	*journal
	paths []string
	deps  Deps

	mu       sync.Mutex // one Reload at a time; it guards what follows
	data     dataFiles
	compiled *policySet // last
}

// Files returns the configured paths.
func (s *pathSource) Files() []string {
	if s.deps.FS != nil {
		return nil // embedded files do not change
	}
	return slices.Clone(s.paths)
}

// Run loads the policies if nobody has yet, and reports metrics until ctx ends.
func (s *pathSource) Run(ctx context.Context) error {
	stop, err := s.observe()
	if err != nil {
		return err
	}
	defer stop()
	if !s.Status().Ready {
		if err := s.Reload(ctx); err != nil {
			s.deps.Logger.ErrorContext(ctx, "no policy is active", slog.Any("error", err))
		}
	}
	<-ctx.Done()
	return nil
}

// Reload reads, compiles and activates the policies.
func (s *pathSource) Reload(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, err := s.activate(ctx)
	if err != nil {
		s.failed(ctx, pathsBundle, err)
		return err
	}
	if st := s.Status(); !st.Ready || st.Revision != id {
		s.activated(ctx, id, map[string]string{pathsBundle: id})
	}
	s.recovered(pathsBundle)
	return nil
}

func (s *pathSource) activate(ctx context.Context) (id string, err error) {
	l := loading{paths: s.paths, fsys: s.deps.FS, caps: s.deps.Engine.Capabilities(), aside: &s.data}
	defer s.data.release()
	t, err := l.load()
	if err = errors.Join(err, s.data.err); err != nil {
		return "", fmt.Errorf("load policies: %w", err)
	}
	if id, err = t.revision(); err != nil {
		return "", err
	}
	id = s.data.revision(id, l)
	if st := s.Status(); st.Ready && st.Revision == id {
		return id, nil // nothing changed, or a broken edit was taken back
	}
	data, err := s.data.load(t.data)
	if err != nil {
		return "", fmt.Errorf("load policies: %w", err)
	}
	txn, err := data.NewTransaction(ctx)
	if err != nil {
		return "", fmt.Errorf("open data: %w", err)
	}
	defer data.Abort(ctx, txn) // the engine pins what it keeps
	compiler, err := s.compile(t, storage.NonEmpty(ctx, data, txn))
	if err != nil {
		return "", fmt.Errorf("compile policies: %w", err)
	}
	err = s.deps.Engine.Activate(ctx, engine.Revision{
		ID: id, Bundles: map[string]string{pathsBundle: id}, Compiler: compiler, Store: data, Txn: txn,
	})
	return id, err
}

// compile compiles the policies, or returns what they were compiled to before if
// only data changed, which still must not have a path that a rule has too.
func (s *pathSource) compile(t *tree, nonEmpty func([]string) (bool, error)) (*ast.Compiler, error) {
	set := &policySet{texts: make(map[string]string, len(t.raw))}
	for name, text := range t.raw {
		set.texts[name] = string(text)
	}
	if s.compiled != nil && maps.Equal(s.compiled.texts, set.texts) {
		if errs := ast.CheckPathConflicts(s.compiled.compiler, nonEmpty); len(errs) > 0 {
			return nil, errs
		}
		return s.compiled.compiler, nil
	}
	var err error
	if set.compiler, err = t.compileOver(s.deps.Engine.Capabilities(), nonEmpty); err != nil {
		return nil, err
	}
	s.compiled = set
	return set.compiler, nil
}

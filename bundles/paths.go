package bundles

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/open-policy-agent/opa/v1/storage"

	"github.com/sallyport/sallyport/engine"
	"github.com/sallyport/sallyport/engine/store"
)

// pathSource brings policies from files and directories.
type pathSource struct {
	*journal
	paths []string
	deps  Deps

	mu sync.Mutex // one Reload at a time
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
	t, err := loading{paths: s.paths, fsys: s.deps.FS, caps: s.deps.Engine.Capabilities()}.load()
	if err != nil {
		return "", fmt.Errorf("load policies: %w", err)
	}
	if id, err = t.revision(); err != nil {
		return "", err
	}
	if st := s.Status(); st.Ready && st.Revision == id {
		return id, nil // nothing changed, or a broken edit was taken back
	}
	data, err := store.NewFromObject(t.data)
	if err != nil {
		return "", fmt.Errorf("load data: %w", err)
	}
	txn, err := data.NewTransaction(ctx)
	if err != nil {
		return "", fmt.Errorf("open data: %w", err)
	}
	defer data.Abort(ctx, txn) // the engine pins what it keeps
	compiler, err := t.compileOver(s.deps.Engine.Capabilities(), storage.NonEmpty(ctx, data, txn))
	if err != nil {
		return "", fmt.Errorf("compile policies: %w", err)
	}
	err = s.deps.Engine.Activate(ctx, engine.Revision{
		ID: id, Bundles: map[string]string{pathsBundle: id}, Compiler: compiler, Store: data, Txn: txn,
	})
	return id, err
}

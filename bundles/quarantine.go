package bundles

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// quarantine puts persisted bundles aside that are damaged or too large, before
// OPA reads them: it checks signatures, and neither checksums nor sizes.
func (s *serviceSource) quarantine(ctx context.Context) {
	for name, v := range object(s.cfg.OPA["bundles"]) {
		source := object(v)
		if persist, _ := source["persist"].(bool); !persist {
			continue
		}
		limit, ok := toInt64(source["size_limit_bytes"])
		if !ok || limit <= 0 {
			limit = defaultMaxBundle
		}
		s.sweep(name)
		if err := s.checkPersisted(name, limit); err != nil {
			s.failed(ctx, name, err)
			s.deps.Logger.ErrorContext(ctx, "persisted bundle refused", slog.String("bundle", name), slog.Any("error", err))
		}
	}
}

// leftoverAge is how old a half-written bundle must be to be nobody's any more:
// another source of this process may be writing one now.
const leftoverAge = time.Hour

// sweep removes what a process that was killed while it wrote a bundle has left.
func (s *serviceSource) sweep(name string) {
	left, err := filepath.Glob(filepath.Join(s.persistenceDirectory(), "bundles", name, ".bundle.tar.gz.*.tmp"))
	if err != nil {
		return // a name that is a bad pattern has left nothing that could be found
	}
	for _, file := range left {
		if info, err := os.Stat(file); err == nil && s.deps.Now().Sub(info.ModTime()) > leftoverAge {
			_ = os.Remove(file) // the next start tries again
		}
	}
}

func (s *serviceSource) checkPersisted(name string, limit int64) error {
	file := s.persistedFile(name)
	raw, err := os.ReadFile(file) //nolint:gosec // named by the configuration
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		if err = checkArchive(raw, limit); err == nil {
			return nil
		}
	}
	err = fmt.Errorf("persisted bundle %s: %w", file, err)
	return errors.Join(err, os.Rename(file, file+".refused"))
}

// persistenceDirectory is OPA's default where the configuration does not say.
func (s *serviceSource) persistenceDirectory() string {
	if dir, _ := s.cfg.OPA["persistence_directory"].(string); dir != "" {
		return dir
	}
	return ".opa"
}

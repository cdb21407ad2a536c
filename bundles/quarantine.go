package bundles

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
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
		if err := s.checkPersisted(name, limit); err != nil {
			s.failed(name, err)
			s.deps.Logger.ErrorContext(ctx, "persisted bundle refused", slog.String("bundle", name), slog.Any("error", err))
		}
	}
}

func (s *serviceSource) checkPersisted(name string, limit int64) error {
	file := filepath.Join(s.persistenceDirectory(), "bundles", name, "bundle.tar.gz")
	raw, err := os.ReadFile(file)
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

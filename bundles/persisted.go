package bundles

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/open-policy-agent/opa/v1/bundle"
	status "github.com/open-policy-agent/opa/v1/plugins/bundle"
)

// errNotPersisted says that the file which a restart begins with is an older
// bundle than the active one. OPA logs why, and reports success.
var errNotPersisted = errors.New("the active bundle could not be persisted, and an older one is what a restart without the bundle service would bring back: see that the disk has space and the directory can be written; the next revision is written again")

// persisted notes which file of each persisted bundle was there, to see whether
// an activation replaced it: OPA writes a new file and renames it.
type persisted struct {
	mu    sync.Mutex
	file  map[string]os.FileInfo // nil: no file
	stale map[string]error
}

// watchPersisted begins with the files that are there before OPA's plugins start.
func (s *serviceSource) watchPersisted() {
	s.persisted.file, s.persisted.stale = map[string]os.FileInfo{}, map[string]error{}
	for name, v := range object(s.cfg.OPA["bundles"]) {
		if persist, _ := object(v)["persist"].(bool); persist {
			s.persisted.file[name], _ = os.Stat(s.persistedFile(name)) // an error means that there is none
		}
	}
}

func (s *serviceSource) persistedFile(name string) string {
	return filepath.Join(s.persistenceDirectory(), "bundles", name, "bundle.tar.gz")
}

// persistError tells, of a bundle that OPA has no error for, whether its file is
// an older one.
func (s *serviceSource) persistError(st *status.Status) error {
	p := &s.persisted
	p.mu.Lock()
	defer p.mu.Unlock()
	before, watched := p.file[st.Name]
	activated := !st.LastSuccessfulActivation.IsZero() && !st.LastSuccessfulActivation.Before(st.LastRequest)
	if !watched || !activated || st.Type != bundle.SnapshotBundleType {
		return p.stale[st.Name]
	}
	file := s.persistedFile(st.Name)
	now, err := os.Stat(file)
	delete(p.stale, st.Name)
	switch {
	case err != nil:
		p.stale[st.Name] = fmt.Errorf("%w: %w", errNotPersisted, err)
	case before != nil && os.SameFile(before, now) && before.ModTime().Equal(now.ModTime()):
		p.stale[st.Name] = fmt.Errorf("%s: %w", file, errNotPersisted)
	default:
		p.file[st.Name] = now
	}
	return p.stale[st.Name]
}

// Package server serves bundles to gateways and to OPA over HTTP, as OPA's bundle
// service API has it: ETag, If-None-Match, long polling.
//
// It owns a directory of policies, builds and signs a bundle of each of its
// subdirectories, and keeps the last good bundle of one that does not compile any
// more. It owns no listener and no watcher: the caller serves the handler, watches
// Files and calls Reload. It is not an authorization service: who may read
// bundles is one optional bearer token.
package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/sallyport/sallyport/bundles"
)

// Config says what to serve.
type Config struct {
	// Directory holds the policies. Each subdirectory is one bundle, named after
	// it, unless Name is set. Files beside the subdirectories belong to no bundle.
	Directory string
	// Name makes the whole Directory one bundle of that name.
	Name string
	// Signing signs the bundles. Without it they are not signed.
	Signing *bundles.Signing
	// TokenFile holds a token that clients must present as bearer token. Empty:
	// everybody may read bundles.
	TokenFile string
	// MaxWait bounds how long one long poll is held; 0 means 5 minutes.
	MaxWait time.Duration
}

// Deps are what the server needs from its surroundings.
type Deps struct {
	Logger       *slog.Logger
	Capabilities *ast.Capabilities // what the policies may call; nil: all of OPA
	Now          func() time.Time  // nil: time.Now
}

// Server is an http.Handler. It is ready for use after New.
type Server struct {
	config Config
	deps   Deps

	reload sync.Mutex // one Reload at a time

	mu      sync.RWMutex
	token   []byte // SHA-256 of the token; nil: none asked for
	bundles map[string]*served
	drained chan struct{}
	closed  bool
}

// served is one bundle; immutable but for its problem, which Server.mu guards.
type served struct {
	built    *bundles.Built
	etag     string
	since    time.Time
	replaced chan struct{} // closed when another bundle took its place
	problem  error         // why the files on disk are not what is served
}

// Status is the state of one bundle.
type Status struct {
	Revision string    `json:"revision,omitempty"`
	ETag     string    `json:"etag,omitempty"`
	Since    time.Time `json:"since,omitzero"`
	Size     int       `json:"size,omitempty"` // bytes of the archive
	Error    string    `json:"error,omitempty"`
}

// New reads the directory and builds its bundles. A subdirectory that does not
// compile is a problem of that bundle (see Status and the returned handler's
// 404); it is an error when there is no bundle at all.
func New(ctx context.Context, cfg Config, deps Deps) (*Server, error) {
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxWait == 0 {
		cfg.MaxWait = 5 * time.Minute
	}
	s := &Server{config: cfg, deps: deps, bundles: map[string]*served{}, drained: make(chan struct{})}
	if err := s.reloadToken(); err != nil {
		return nil, err
	}
	err := s.Reload(ctx)
	if len(s.available()) == 0 {
		return nil, errors.Join(errors.New("no bundle could be built"), err)
	}
	return s, nil
}

// Files returns what to watch: a change below them wants a Reload.
func (s *Server) Files() []string {
	out := []string{s.config.Directory}
	for _, f := range []string{s.config.TokenFile, s.keyFile()} {
		if f != "" {
			out = append(out, f)
		}
	}
	return out
}

func (s *Server) keyFile() string {
	if s.config.Signing == nil {
		return ""
	}
	return s.config.Signing.KeyFile
}

// Reload builds the bundles anew. One that cannot be built keeps its last good
// archive; the error says why, of all that failed. A bundle whose directory is
// gone is no longer served.
func (s *Server) Reload(ctx context.Context) error {
	s.reload.Lock()
	defer s.reload.Unlock()

	tokenErr := s.reloadToken()
	dirs, err := s.directories()
	if err != nil {
		return errors.Join(tokenErr, err)
	}
	errs := []error{tokenErr}
	for _, name := range slices.Sorted(maps.Keys(dirs)) {
		if err := s.rebuild(ctx, name, dirs[name]); err != nil {
			errs = append(errs, fmt.Errorf("bundle %s: %w", name, err))
		}
	}
	s.forget(dirs)
	return errors.Join(errs...)
}

// directories returns the directory of each bundle by its name.
func (s *Server) directories() (map[string]string, error) {
	if s.config.Name != "" {
		return map[string]string{s.config.Name: s.config.Directory}, nil
	}
	entries, err := os.ReadDir(s.config.Directory)
	if err != nil {
		return nil, fmt.Errorf("list bundles: %w", err)
	}
	out := map[string]string{}
	for _, e := range entries {
		path := filepath.Join(s.config.Directory, e.Name())
		// os.Stat follows the symbolic links that a mounted ConfigMap is made of.
		if info, err := os.Stat(path); err == nil && info.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			out[e.Name()] = path
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("list bundles: %s has no subdirectory, and each is one bundle", s.config.Directory)
	}
	return out, nil
}

func (s *Server) rebuild(ctx context.Context, name, dir string) error {
	built, err := bundles.Build(ctx, bundles.Building{
		Paths:        []string{dir},
		Capabilities: s.deps.Capabilities,
		Signing:      s.config.Signing,
	})
	if err != nil {
		s.fail(ctx, name, err)
		return err
	}
	s.publish(ctx, name, built)
	return nil
}

func (s *Server) fail(ctx context.Context, name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.bundles[name]
	if b == nil {
		b = &served{replaced: make(chan struct{})}
		s.bundles[name] = b
	}
	b.problem = err
	s.deps.Logger.ErrorContext(ctx, "bundle cannot be built, the last good one stays",
		slog.String("bundle", name), slog.Bool("available", b.built != nil), slog.Any("error", err))
}

func (s *Server) publish(ctx context.Context, name string, built *bundles.Built) {
	etag := s.etag(name, built)
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.bundles[name]
	if old != nil && old.etag == etag {
		old.problem = nil
		return
	}
	s.bundles[name] = &served{built: built, etag: etag, since: s.deps.Now(), replaced: make(chan struct{})}
	if old != nil {
		close(old.replaced)
	}
	s.deps.Logger.InfoContext(ctx, "bundle built", slog.String("bundle", name),
		slog.String("revision", built.Revision), slog.Int("size", len(built.Archive)))
}

// etag depends on the content and on who signs it, not on the bytes of the
// signature: those of ES and PS keys are different each time, and replicas of
// this server must agree.
func (s *Server) etag(name string, built *bundles.Built) string {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%s\n%s\n%s\n", name, built.Content, built.Revision)
	if sign := s.config.Signing; sign != nil {
		_, _ = fmt.Fprintf(h, "%s\n%s\n", sign.KeyID, sign.Algorithm)
		if key, err := os.ReadFile(sign.KeyFile); err == nil {
			h.Write(key)
		}
	}
	return `"` + hex.EncodeToString(h.Sum(nil)[:16]) + `"`
}

func (s *Server) forget(dirs map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, b := range s.bundles {
		if _, ok := dirs[name]; !ok {
			delete(s.bundles, name)
			close(b.replaced)
		}
	}
}

// Status returns the state of every bundle by its name.
func (s *Server) Status() map[string]Status {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make(map[string]Status, len(s.bundles))
	for name, b := range s.bundles {
		st := Status{ETag: b.etag, Since: b.since}
		if b.built != nil {
			st.Revision, st.Size = b.built.Revision, len(b.built.Archive)
		}
		if b.problem != nil {
			st.Error = b.problem.Error()
		}
		out[name] = st
	}
	return out
}

func (s *Server) available() []string {
	var out []string
	for name, st := range s.Status() {
		if st.ETag != "" {
			out = append(out, name)
		}
	}
	return out
}

// Drain ends the long polls that are held, now and from now on, so that a
// shutdown does not wait for them. Use it with http.Server.RegisterOnShutdown.
func (s *Server) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.drained)
	}
}

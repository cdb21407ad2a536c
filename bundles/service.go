package bundles

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/hooks"
	"github.com/open-policy-agent/opa/v1/logging"
	"github.com/open-policy-agent/opa/v1/plugins"
	"github.com/open-policy-agent/opa/v1/plugins/bundle"
	"github.com/open-policy-agent/opa/v1/plugins/discovery"
	"github.com/open-policy-agent/opa/v1/topdown/cache"

	"github.com/sallyport/sallyport/engine/store"
)

const (
	// listenerName is what we call ourselves towards OPA's plugins.
	listenerName = "sallyport"
	// stopTimeout bounds how long OPA's plugins get to send their last reports.
	stopTimeout = 10 * time.Second
	// attachInterval is how often to look for a bundle plugin that discovery made.
	attachInterval = 250 * time.Millisecond
)

// serviceSource brings policies from bundle services, through OPA's plugins.
type serviceSource struct {
	*journal
	cfg  Config
	deps Deps
	raw  []byte

	persisted persisted
}

func newServiceSource(cfg Config, deps Deps, j *journal) (*serviceSource, error) {
	raw, err := rawOPA(cfg.OPA)
	if err != nil {
		return nil, err
	}
	return &serviceSource{journal: j, cfg: cfg, deps: deps, raw: raw}, nil
}

// Files returns nothing: bundles are polled.
func (*serviceSource) Files() []string { return nil }

// Reload does nothing: bundles are polled, and OPA's downloaders cannot be asked
// for more while they do.
func (*serviceSource) Reload(context.Context) error { return nil }

// Run starts OPA's plugins, which activate persisted bundles first and download
// then, and stops them when ctx ends.
func (s *serviceSource) Run(ctx context.Context) error {
	s.warn(ctx)
	s.quarantine(ctx)
	s.watchPersisted()
	g := newGuard(object(s.cfg.OPA["bundles"]))
	defer g.close()
	m, err := s.manager(ctx, g)
	if err != nil {
		return err
	}
	stopReport, err := s.observe()
	if err != nil {
		return err
	}
	defer stopReport()
	defer s.stop(ctx, m)
	if s.deps.OnManager != nil {
		s.deps.OnManager(m)
	}
	s.configureCaches(m)
	s.attach(m)
	// Plugins that were not started cannot be stopped: one that waits for them
	// would wait for ever. So a start is always completed.
	if err := m.Start(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("start OPA's plugins: %w", err)
	}
	s.follow(ctx, m)
	return nil
}

func (s *serviceSource) manager(ctx context.Context, g *guard) (*plugins.Manager, error) {
	gate := &gate{
		Store: store.New(), deps: s.deps, journal: s.journal,
		allowSystem: s.cfg.AllowSystemBundles,
	}
	logger := opaLogger(ctx, s.deps.Logger)
	hook := hooks.New(&discovered{keyed: len(object(s.cfg.OPA["keys"])) > 0, guard: g})
	options := []func(*plugins.Manager){
		plugins.Logger(logger),
		plugins.ConsoleLogger(logger),
		plugins.WithDistributedTracingOpts(g.options()),
		plugins.WithParserOptions(ast.ParserOptions{ProcessAnnotation: true, RegoVersion: ast.RegoV1}),
		plugins.WithHooks(hook),
		plugins.WithStoreCloseOnStop(false),
		plugins.GracefulShutdownPeriod(int(stopTimeout.Seconds())),
	}
	if s.deps.Info != nil {
		options = append(options, plugins.Info(s.deps.Info))
	}
	m, err := plugins.New(s.raw, s.deps.ID, gate, options...)
	if err != nil {
		return nil, fmt.Errorf("OPA's configuration: %w", err)
	}
	gate.configured = func() []string { return configuredBundles(m) }
	d, err := discovery.New(m, discovery.Hooks(hook), discovery.BootConfig(s.cfg.OPA))
	if err != nil {
		m.Stop(ctx)
		return nil, fmt.Errorf("OPA's configuration: %w", err)
	}
	d.RegisterListener(listenerName, s.heard)
	m.Register(discovery.Name, d)
	return m, nil
}

// opaLogger hands OPA's log lines to ours, on stderr like everything that is not
// a decision.
func opaLogger(ctx context.Context, l *slog.Logger) logging.Logger {
	level := logging.Info
	if l.Enabled(ctx, slog.LevelDebug) {
		level = logging.Debug
	}
	return logging.NewLoggerFromSlogHandler(l.Handler(), level)
}

func configuredBundles(m *plugins.Manager) []string {
	p := bundle.Lookup(m)
	if p == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(p.Config().Bundles))
}

// follow waits for the end, and for a bundle plugin that discovery makes.
func (s *serviceSource) follow(ctx context.Context, m *plugins.Manager) {
	ticker := time.NewTicker(attachInterval)
	defer ticker.Stop()
	for attached := bundle.Lookup(m) != nil; !attached; attached = s.attach(m) {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
	<-ctx.Done()
}

// attach listens to the bundle plugin, and reports whether there is one.
func (s *serviceSource) attach(m *plugins.Manager) bool {
	p := bundle.Lookup(m)
	if p == nil {
		return false
	}
	for _, name := range configuredBundles(m) {
		s.update(name, func(*BundleStatus) {})
	}
	p.Register(listenerName, s.heard)
	return true
}

// heard takes over what a plugin reports after each request for a bundle.
func (s *serviceSource) heard(st bundle.Status) {
	s.update(st.Name, func(b *BundleStatus) {
		b.LastRequest = st.LastRequest
		b.LastSuccessfulRequest = st.LastSuccessfulRequest
		b.LastSuccessfulDownload = st.LastSuccessfulDownload
		b.Size = st.Size
	})
	if err := statusError(&st); err != nil {
		s.failed(context.Background(), st.Name, err) // OPA gives listeners no context
		return
	}
	if err := s.persistError(&st); err != nil {
		if s.Status().Bundles[st.Name].LastError != err.Error() { // told once, not with each poll
			s.failed(context.Background(), st.Name, err)
		}
		return
	}
	s.recovered(st.Name)
}

// statusError is the error that the status tells, in one line per cause.
func statusError(st *bundle.Status) error {
	if st.Code == "" { // a message without a code is no error: discovery tells what it overrode
		return nil
	}
	lines := []string{st.Message}
	for _, err := range st.Errors {
		lines = append(lines, err.Error())
	}
	return fmt.Errorf("bundle %s: %s", st.Name, strings.Join(lines, "\n\t"))
}

func (s *serviceSource) warn(ctx context.Context) {
	if len(object(s.cfg.OPA["keys"])) == 0 {
		s.deps.Logger.WarnContext(ctx, "bundles are not verified: policy.opa has no keys")
	}
	if s.cfg.OPA["nd_builtin_cache"] != nil {
		s.deps.Logger.WarnContext(ctx, "policy.opa.nd_builtin_cache has no effect: decisions are not logged with it")
	}
}

// configureCaches hands `caching` to the engine, of this configuration and of one
// that discovery brings. Without it the engine keeps the bounds that it has; OPA's
// default has none.
func (s *serviceSource) configureCaches(m *plugins.Manager) {
	e, ok := s.deps.Engine.(interface{ ConfigureCaches(*cache.Config) })
	if !ok {
		return
	}
	if s.cfg.OPA["caching"] != nil {
		e.ConfigureCaches(m.InterQueryBuiltinCacheConfig())
	}
	m.RegisterCacheTrigger(func(c *cache.Config) {
		if size := c.InterQueryBuiltinCache.MaxSizeBytes; size != nil && *size > 0 {
			e.ConfigureCaches(c)
		}
	})
}

// stop ends everything that the manager started. Its context is a new one: the
// one of Run has ended, and reports are still to be sent.
func (s *serviceSource) stop(ctx context.Context, m *plugins.Manager) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	m.Stop(ctx)
}

package bundles

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/plugins"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/sallyport/sallyport/engine"
	"github.com/sallyport/sallyport/engine/setting"
)

// Config is `policy` as far as it says where policies come from. At most one of
// its sources is set; with none the gateway is not ready and answers 503.
type Config struct {
	// Paths are files and directories with policies: .rego, data in .json and
	// .yaml, and bundle archives (.tar.gz), rooted as `opa run` roots them. Files
	// whose name ends in _test.rego and hidden files are not loaded. They are
	// watched.
	Paths []string `yaml:"paths" sallyport:"path"`
	// OPA is OPA's own configuration, as OPA documents it: services, bundles,
	// discovery, decision_logs, status, keys, labels, persistence_directory,
	// caching. When keys are configured, every bundle must be signed and name its
	// key. A bundle is at most 64 MiB unpacked unless its size_limit_bytes says
	// otherwise.
	OPA map[string]any `yaml:"opa"`
	// AllowSystemBundles lets a bundle of a bundle service own policies and data
	// below data.system, where OPA keeps what it decides about itself: the masks
	// of its decision log, for example.
	AllowSystemBundles bool `yaml:"allow_system_bundles"`
}

// Validate reports every problem. It reads no policy and contacts nobody.
func (c *Config) Validate() error {
	var errs []error
	if len(c.Paths) > 0 && len(c.OPA) > 0 {
		errs = append(errs, setting.Problemf("opa", "policies come from paths or from opa, not from both"))
	}
	for _, p := range c.Paths {
		if p == "" {
			errs = append(errs, setting.Problemf("paths", "an empty path"))
		}
		if strings.Contains(p, ":") {
			errs = append(errs, setting.Problemf("paths", "%q: OPA reads what is before a colon as a place in data; use folders for that", p))
		}
	}
	if len(c.OPA) > 0 {
		errs = append(errs, setting.Under("opa", validateOPA(c.OPA)))
	}
	return errors.Join(errs...)
}

// Activator is the engine: it makes a revision live or says why not.
type Activator interface {
	Activate(ctx context.Context, r engine.Revision) error
	Capabilities() *ast.Capabilities
}

// Deps are what a source needs from its surroundings.
type Deps struct {
	Engine Activator
	Logger *slog.Logger
	Meter  metric.Meter
	Now    func() time.Time // nil: time.Now
	// FS is where paths are looked up; nil: the file system. The embedded policy
	// of the demo comes this way.
	FS fs.FS
	// ID tells this gateway from its replicas in OPA's reports; empty: random.
	ID string
	// Info is what opa.runtime() tells policies, where they may call it; optional.
	Info *ast.Term
	// OnManager sees OPA's plugin manager before it starts, so that the decision
	// log can find OPA's plugin; optional.
	OnManager func(*plugins.Manager)
}

func (d Deps) withDefaults() Deps {
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	if d.Meter == nil {
		d.Meter = noop.Meter{}
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.ID == "" {
		d.ID = rand.Text()
	}
	return d
}

// Source brings policies to the engine. Its methods may be called from any
// goroutine.
type Source interface {
	// Run brings policies in until ctx ends, and returns when everything it
	// started has stopped.
	Run(ctx context.Context) error
	// Status tells what is live and what went wrong last.
	Status() Status
	// Files returns what to watch: a change below them wants a Reload.
	Files() []string
	// Reload reads the policies anew. On error the last good ones stay in force.
	Reload(ctx context.Context) error
}

// New returns the source that cfg asks for. It loads nothing yet: Reload does,
// and Run.
func New(cfg Config, deps Deps) (Source, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	deps = deps.withDefaults()
	j, err := newJournal(deps)
	if err != nil {
		return nil, err
	}
	switch {
	case len(cfg.Paths) > 0:
		return &pathSource{paths: cfg.Paths, deps: deps, journal: j, data: dataFiles{fsys: deps.FS}}, nil
	case len(cfg.OPA) > 0:
		return newServiceSource(cfg, deps, j)
	default:
		j.failed(context.Background(), "", errNoSource)
		return &noSource{journal: j}, nil
	}
}

var errNoSource = errors.New("no policy source is configured: set policy.paths or policy.opa")

// noSource has nothing to offer. The engine answers ErrNoPolicy.
type noSource struct{ *journal }

func (*noSource) Run(ctx context.Context) error { <-ctx.Done(); return nil }
func (*noSource) Files() []string               { return nil }
func (*noSource) Reload(context.Context) error  { return nil }

package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/sallyport/sallyport/bundles"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/admin"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport/sallyport/engine"
	"github.com/sallyport/sallyport/proxy/authn/jwt"
	"github.com/sallyport/sallyport/proxy/certs"
)

// status remembers how reloads of the configuration went.
type status struct {
	mu      sync.Mutex
	at      time.Time // of the configuration that serves
	err     string    // of the newest reload, empty when it served
	errAt   time.Time
	reloads metric.Int64Counter
}

func newStatus(meter metric.Meter) (*status, error) {
	c, err := meter.Int64Counter("sallyport.config.reloads",
		metric.WithDescription("Reloads of the configuration file, by outcome: ok or refused."))
	if err != nil {
		return nil, fmt.Errorf("register sallyport.config.reloads: %w", err)
	}
	return &status{at: time.Now(), reloads: c}, nil
}

func (s *status) reloaded(ctx context.Context, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	outcome := "ok"
	if err != nil {
		outcome, s.err, s.errAt = "refused", err.Error(), time.Now()
	} else {
		s.at, s.err, s.errAt = time.Now(), "", time.Time{}
	}
	s.reloads.Add(ctx, 1, metric.WithAttributes(attribute.String("outcome", outcome)))
}

// page is /v1/status.
type page struct {
	Gateway        string                   `json:"gateway"`
	Config         configPage               `json:"config"`
	Policy         bundles.Status           `json:"policy"`
	Authenticators map[string]keySetPage    `json:"authenticators"`
	Certificates   map[string]certificateOf `json:"certificates,omitempty"`
}

type configPage struct {
	File     string    `json:"file"`
	Revision string    `json:"revision"`
	Since    time.Time `json:"since"`
	Error    string    `json:"error,omitempty"`
	ErrorAt  time.Time `json:"error_at,omitzero"`
}

type keySetPage struct {
	Kind    string    `json:"kind"`
	Keys    int       `json:"keys,omitempty"`
	Fetched time.Time `json:"fetched,omitzero"`
	Error   string    `json:"error,omitempty"`
}

type certificateOf struct {
	NotAfter     time.Time `json:"not_after"`
	StapledUntil time.Time `json:"stapled_until,omitzero"` // the OCSP answer that is shown with it
}

func (a *App) statusPage() any {
	g := a.current.Load()
	out := page{
		Gateway: a.name(g.cfg), Policy: g.policy.source.Status(),
		Authenticators: map[string]keySetPage{}, Certificates: map[string]certificateOf{},
	}
	a.status.mu.Lock()
	out.Config = configPage{File: a.opts.ConfigFile, Revision: a.revision(g.cfg), Since: a.status.at, Error: a.status.err, ErrorAt: a.status.errAt}
	a.status.mu.Unlock()
	for name, x := range g.authenticators {
		out.Authenticators[name] = x.page()
	}
	for name, s := range g.sockets {
		if s.certs != nil {
			out.Certificates[name] = certificateOf{NotAfter: s.certs.NotAfter(), StapledUntil: s.certs.StapledUntil()}
		}
	}
	return out
}

func (x *authenticator) page() keySetPage {
	j, ok := x.Authenticator.(*jwt.Authenticator)
	if !ok {
		return keySetPage{Kind: x.cfg.Kind()}
	}
	s := j.Status()
	p := keySetPage{Kind: x.cfg.Kind(), Keys: s.Keys, Fetched: s.Fetched}
	if s.Err != nil {
		p.Error = s.Err.Error()
	}
	return p
}

// ready lists what must hold before traffic may come. An issuer whose keys are
// not there is no reason to keep all traffic away: it shows in the status.
func (a *App) ready() []admin.Check {
	s := a.current.Load().policy.source.Status()
	checks := []admin.Check{
		{Name: "not shutting down", OK: !a.stopping.Load()},
		{Name: "policy", OK: s.Ready, Detail: s.Error},
	}
	for _, name := range slices.Sorted(maps.Keys(s.Bundles)) {
		b := s.Bundles[name]
		checks = append(checks, admin.Check{Name: "bundle " + name, OK: !b.ActivatedAt.IsZero(), Detail: b.LastError})
	}
	for i := range checks {
		if checks[i].OK {
			checks[i].Detail = "" // a later revision that was refused shows in the status
		}
	}
	return checks
}

// engineCapabilities returns what policies of cfg may call.
func engineCapabilities(cfg *config.Config) (*ast.Capabilities, error) {
	e, err := engine.New(cfg.Policy.Engine, engine.Deps{})
	if err != nil {
		return nil, err
	}
	return e.Capabilities(), nil
}

// checkCerts reads the TLS files of every listener.
func checkCerts(cfg *config.Config) error {
	var errs []error
	for i, l := range cfg.Listeners {
		if l.TLS == nil {
			continue
		}
		if _, err := certs.New(*l.TLS, certs.Deps{}); err != nil {
			errs = append(errs, cfg.At(fmt.Sprintf("listeners[%d].tls", i), err))
		}
	}
	return errors.Join(errs...)
}

// plainPasswords returns the listeners at which passwords arrive readable by whoever
// is on the way, by key, and what that means.
func plainPasswords(cfg *config.Config) map[string]string {
	out := map[string]string{}
	for name, x := range cfg.Authenticators {
		for i, l := range cfg.Listeners {
			if x.Basic != nil && l.TLS == nil && !l.RedirectToHTTPS && !isLoopback(l.Address) {
				out[fmt.Sprintf("listeners[%d].tls", i)] = "is missing: whoever controls the network reads the passwords of authenticator " + name
			}
		}
	}
	return out
}

func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// warn names the choices that weaken the gateway, once, at start.
func (a *App) warn(ctx context.Context, cfg *config.Config) {
	choices := insecureChoices(cfg)
	for _, key := range slices.Sorted(maps.Keys(choices)) {
		a.logger.WarnContext(ctx, "insecure choice", slog.String("key", key), slog.String("means", choices[key]))
	}
}

// insecureChoices returns what in cfg weakens the gateway, by key, and what it means.
func insecureChoices(cfg *config.Config) map[string]string {
	out := map[string]string{}
	say := func(key, means string) { out[key] = means }
	for name, x := range cfg.Authenticators {
		for key, means := range x.Insecure() {
			say("authenticators."+name+"."+key, means)
		}
	}
	for key, means := range insecureOutgoing(cfg) {
		say(key, means)
	}
	for i, l := range cfg.Listeners {
		if l.TLS != nil {
			for key, means := range l.TLS.Insecure() {
				say(fmt.Sprintf("listeners[%d].tls.%s", i, key), means)
			}
		}
		for _, t := range l.TrustedProxies {
			if strings.HasSuffix(t, "/0") {
				say(fmt.Sprintf("listeners[%d].trusted_proxies", i), "every client says who it is and where it came from")
			}
		}
	}
	for key, means := range plainPasswords(cfg) {
		say(key, means)
	}
	for name, u := range cfg.Upstreams {
		if u.TLS.InsecureSkipVerify {
			say("upstreams."+name+".tls.insecure_skip_verify", "whoever controls the network can answer for the upstream")
		}
	}
	if len(cfg.Policy.Engine.Builtins.Allow) > 0 {
		say("policy.builtins.allow", "policies may reach outside of their evaluation")
	}
	return out
}

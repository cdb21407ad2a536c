package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"

	"go.opentelemetry.io/otel/trace"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/certs"
	"github.com/sallyport/sallyport/proxy/judge"
	"github.com/sallyport/sallyport/proxy/route"
	"github.com/sallyport/sallyport/proxy/upstream"
)

// Parts are what a Snapshot needs besides its Config.
type Parts struct {
	// Decider asks the policy.
	Decider judge.Decider
	// Chain makes the chain of a route's authenticators, in order. It is called once per distinct list.
	Chain func(authenticators []string) (judge.Chain, error)
	// Endpoints are what mechanisms serve themselves, before any route.
	Endpoints []authn.Endpoint
	// ResourceMetadata returns where clients learn who issues tokens for a request to
	// host and path, empty for none; nil: for no request.
	ResourceMetadata func(host, path string) string
	// CredentialHeaders are further header names that carry credentials.
	CredentialHeaders []string
	// AssertedHeaders are those of them that are forwarded only when verified.
	AssertedHeaders []string
	// Vouchers report who is believed what it says of clients' certificates; none: every
	// trusted peer that has shown a certificate.
	Vouchers []func(*authn.Request) bool
	// Outbound returns what gets the upstream's credentials for a route; nil, also
	// for one route: none.
	Outbound func(route.Config) (judge.Outbound, error)
	// Limiter takes the tokens of policies' rate limits; nil: requests with one are denied.
	Limiter judge.Limiter
	// TLSOptions tell which TLS settings belong to which host, by listener; nil or none
	// for a listener: all hosts have the same.
	TLSOptions map[string]*certs.Names
	// Gateway names the gateway in the input document; the listener is filled in.
	Gateway authz.Gateway
	// PolicyBodyBytes bounds how much of a body a policy may read; 0: 1 MiB.
	PolicyBodyBytes int64
	// Tracer makes spans; nil: requests are not traced.
	Tracer trace.Tracer
}

// Snapshot is one configuration, ready to serve. It is immutable, and requests
// keep the one that they began with.
type Snapshot struct {
	judge     *judge.Judge
	upstreams map[string]*target
	listeners map[string]*listener
	bodyCap   int64

	users atomic.Int64 // requests, and one for being the current snapshot
}

// target is an upstream with its metrics.
type target struct {
	pool  *upstream.Pool
	stats *upstreamStats
}

// listener is what a connection needs to know of its listener.
type listener struct {
	cfg    ListenerConfig
	limits Limits
	judge  judge.Listener
	stats  stats
}

// Build makes a snapshot; all that can fail fails here. It opens no connection.
// A snapshot that is never given to Swap needs no closing.
func Build(cfg Config, parts Parts) (*Snapshot, error) {
	if err := cfg.Validate(nil); err != nil {
		return nil, err
	}
	table, err := route.New(cfg.Routes)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{
		upstreams: map[string]*target{}, listeners: map[string]*listener{}, bodyCap: parts.PolicyBodyBytes,
	}
	if s.bodyCap <= 0 {
		s.bodyCap = 1 << 20
	}
	if err := s.addUpstreams(cfg.Upstreams); err != nil {
		return nil, err
	}
	chains, err := buildChains(table, parts.Chain)
	if err != nil {
		return nil, err
	}
	if parts.Decider == nil {
		return nil, errors.New("build proxy snapshot: no decider")
	}
	outbound, err := buildOutbound(table, parts.Outbound)
	if err != nil {
		return nil, err
	}
	s.judge = judge.New(judge.Config{
		Routes: table, Chains: chains, Decider: parts.Decider, IdentityHeaders: cfg.IdentityHeaders, Tracer: parts.Tracer,
		Endpoints: parts.Endpoints, CredentialHeaders: parts.CredentialHeaders, AssertedHeaders: parts.AssertedHeaders, Vouchers: parts.Vouchers, Outbound: outbound,
		ResourceMetadata: parts.ResourceMetadata, Limiter: parts.Limiter,
		Upstream: func(name string) bool { return s.upstreams[name] != nil },
	})
	for _, l := range cfg.Listeners {
		if s.listeners[l.Name], err = newListener(l, parts, table); err != nil {
			return nil, err
		}
	}
	s.users.Store(1)
	return s, nil
}

func (s *Snapshot) addUpstreams(cfgs map[string]upstream.Config) error {
	var errs []error
	for name, c := range cfgs {
		p, err := upstream.New(name, c)
		if err != nil {
			errs = append(errs, fmt.Errorf("upstream %s: %w", name, err))
		}
		s.upstreams[name] = &target{p, &upstreamStats{name: name}}
	}
	return errors.Join(errs...)
}

func buildChains(table *route.Table, make func([]string) (judge.Chain, error)) ([]judge.Chain, error) {
	if make == nil {
		return nil, errors.New("build proxy snapshot: no authenticators")
	}
	var out []judge.Chain
	var errs []error
	made := map[string]judge.Chain{}
	for _, r := range table.Routes() {
		key := strings.Join(r.Config.Authenticate, "\x00")
		if made[key] == nil {
			c, err := make(r.Config.Authenticate)
			if err != nil {
				errs = append(errs, fmt.Errorf("route %s: %w", r.Config.Name, err))
			}
			made[key] = c
		}
		out = append(out, made[key])
	}
	return out, errors.Join(errs...)
}

func buildOutbound(table *route.Table, make func(route.Config) (judge.Outbound, error)) ([]judge.Outbound, error) {
	if make == nil {
		return nil, nil
	}
	var out []judge.Outbound
	var errs []error
	for _, r := range table.Routes() {
		o, err := make(r.Config)
		if err != nil {
			errs = append(errs, fmt.Errorf("route %s: %w", r.Config.Name, err))
		}
		out = append(out, o)
	}
	return out, errors.Join(errs...)
}

func newListener(cfg ListenerConfig, parts Parts, table *route.Table) (*listener, error) {
	gw := parts.Gateway
	gw.Listener = cfg.Name
	l := &listener{cfg: cfg, limits: cfg.Limits}
	l.judge = judge.Listener{PathParameters: cfg.AllowPathParameters, Gateway: &gw, TLSOptions: parts.TLSOptions[cfg.Name]}
	var err error
	if l.judge.Trusted, err = prefixes(cfg.TrustedProxies); err != nil {
		return nil, fmt.Errorf("listener %s: %w", cfg.Name, err)
	}
	l.stats = newStats(cfg.Name, table)
	return l, nil
}

func prefixes(list []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, t := range list {
		p, err := parsePrefix(t)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// Judge returns the judge, for tools that judge without forwarding.
func (s *Snapshot) Judge() *judge.Judge { return s.judge }

// Listener returns what judging depends on for a listener, or nil.
func (s *Snapshot) Listener(name string) *judge.Listener {
	if l := s.listeners[name]; l != nil {
		return &l.judge
	}
	return nil
}

// release ends a use. The last one after retirement closes the upstreams.
func (s *Snapshot) release() {
	if s.users.Add(-1) == 0 {
		for _, p := range s.upstreams {
			p.pool.Retire()
		}
	}
}

// tryAcquire begins a use unless the snapshot is already gone.
func (s *Snapshot) tryAcquire() bool {
	for {
		n := s.users.Load()
		if n == 0 {
			return false
		}
		if s.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

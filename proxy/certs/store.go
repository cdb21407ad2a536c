package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Deps is what a Store uses of the process. The zero value logs nothing and
// offers HTTP/1.1.
type Deps struct {
	Logger     *slog.Logger
	Now        func() time.Time
	NextProtos []string // ALPN (RFC 7301); http/1.1 if empty
}

// Store holds what the files of one listener held when they were last read
// without error. It is safe for concurrent use.
type Store struct {
	config  Config
	deps    Deps
	names   *Names          // nil: all server names have the same settings
	base    *tls.Config     // owns the session ticket keys, which Go renews daily
	ocsp    []*statuses     // by index of names; nil: no responder is asked
	fetched []*fetchedLists // by index of names; nil: no lists are fetched
	current atomic.Pointer[state]

	reloading sync.Mutex
	pending   atomic.Bool   // files were not taken for want of an answer to staple
	changed   chan struct{} // tells Run of a new state
}

// New reads the files of c. It starts nothing.
func New(c Config, deps Deps) (*Store, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if len(deps.NextProtos) == 0 {
		deps.NextProtos = []string{"http/1.1"}
	}
	s := &Store{config: c, deps: deps, names: NewNames(c), changed: make(chan struct{}, 1)}
	for _, one := range c.all() {
		asks, err := newStatuses(one.OCSP, deps)
		if err != nil {
			return nil, err
		}
		lists, err := newFetchedLists(one.CRL, deps)
		if err != nil {
			return nil, err
		}
		s.ocsp, s.fetched = append(s.ocsp, asks), append(s.fetched, lists)
	}
	st, err := load(c, deps.Now)
	if err != nil {
		return nil, err
	}
	s.base = s.newBase()
	s.use(context.Background(), st)
	return s, nil
}

// newBase makes the configuration that the listener holds for its life. Each
// handshake takes the newest state's from it.
func (s *Store) newBase() *tls.Config {
	oldest, _ := minVersion(s.config.MinVersion)
	return &tls.Config{
		MinVersion:   oldest,
		CipherSuites: cipherSuites(),
		NextProtos:   s.deps.NextProtos,
		Time:         s.deps.Now,
		ClientAuth:   s.config.clientAuth(),
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			return s.partOf(hello).config, nil
		},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return s.partOf(hello).shown()
		},
	}
}

func (s *Store) partOf(hello *tls.ClientHelloInfo) *part {
	return s.current.Load().parts[s.names.index(strings.ToLower(hello.ServerName))]
}

// cipherSuites are those of TLS 1.2 with forward secrecy and authenticated
// encryption (RFC 9325 section 4.2). Those of TLS 1.3 are not configurable.
func cipherSuites() []uint16 {
	return []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
		tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
}

// TLS returns the configuration for the listener. It serves the newest state
// for ever: a reload needs no new listener.
func (s *Store) TLS() *tls.Config { return s.base }

// Files returns the files that Reload reads.
func (s *Store) Files() []string {
	var files []string
	for _, c := range s.config.all() {
		for _, name := range append([]string{c.CertFile, c.KeyFile, c.ClientCAFile, c.Staple.File, c.Staple.IssuerFile, c.CRL.CAFile}, c.CRLFiles...) {
			if name != "" && !slices.Contains(files, name) {
				files = append(files, name)
			}
		}
	}
	return files
}

// Reload reads all files again and takes all of them into use, or none: on error
// the state before stays. Connections that are open keep what they negotiated.
//
// A certificate that must be shown with an OCSP answer is in use once there is one;
// Run tries again where there is none yet.
func (s *Store) Reload(ctx context.Context) error {
	defer func() {
		wake(s.changed)
		for _, f := range s.fetched {
			f.wake()
		}
	}()
	return s.reload(ctx)
}

// wake has the goroutine that waits for c look again.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (s *Store) reload(ctx context.Context) error {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	s.pending.Store(false)
	st, err := load(s.config, s.deps.Now)
	for _, f := range s.fetched {
		err = errors.Join(err, f.reload())
	}
	if err != nil {
		return err
	}
	if err := s.handOver(ctx, st); err != nil {
		s.pending.Store(true)
		return err
	}
	s.use(ctx, st)
	return nil
}

// handOver gives next the answers about certificates that it still has, and asks about
// the others. Only where nothing would be shown without, that is an error.
func (s *Store) handOver(ctx context.Context, next *state) error {
	prev := s.current.Load()
	for i, p := range next.parts {
		if p.staple != nil && prev.parts[i].staple != nil {
			p.staple.inherit(prev.parts[i].staple)
		}
	}
	err := next.prime(ctx)
	for i, p := range next.parts {
		_, was := prev.parts[i].shown()
		if _, will := p.shown(); will != nil && was == nil {
			return errors.Join(will, err)
		}
	}
	return nil
}

// use is the point of no return: nothing fails from here.
func (s *Store) use(ctx context.Context, st *state) {
	all := s.config.all()
	for i, p := range st.parts {
		p.config = s.base.Clone()
		p.config.GetConfigForClient = nil
		p.config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return p.shown() }
		p.config.ClientAuth = all[i].clientAuth()
		if p.clients != nil {
			p.clients = p.clients.with(s.fetched[i])
			p.clients.ocsp = s.ocsp[i]
			p.config.ClientCAs = p.clients.pool
			p.config.VerifyConnection = p.clients.verifyConnection
		}
		if p.clients != nil || s.names != nil {
			ss := newSessions(s.base, all[i].clientsKey(), p.clients)
			p.config.WrapSession, p.config.UnwrapSession = ss.wrap, ss.unwrap
		}
	}
	s.current.Store(st)
	for i, p := range st.parts {
		s.warn(ctx, all[i], p)
	}
}

func (s *Store) warn(ctx context.Context, c Config, p *part) {
	if end := p.notAfter; s.deps.Now().After(end) {
		s.deps.Logger.WarnContext(ctx, "server certificate has expired",
			slog.String("file", c.CertFile), slog.Time("not_after", end))
	}
	if p.clients == nil || p.clients.crls == nil {
		return
	}
	refused, passed := p.clients.crls.outdated(s.deps.Now())
	for _, problem := range refused {
		s.deps.Logger.WarnContext(ctx, "clients are refused for want of a current revocation list", slog.Any("error", problem))
	}
	for _, problem := range passed {
		s.deps.Logger.WarnContext(ctx, "clients pass without a current revocation list, because crl.mode is soft", slog.Any("error", problem))
	}
}

// NotAfter returns when the first certificate of the server's chains expires.
func (s *Store) NotAfter() time.Time { return s.current.Load().notAfter }

// ListsUntil returns when the first of the revocation lists in use ends, the zero time if
// there are none, and the beginning of Unix time while one that is to be fetched is missing.
func (s *Store) ListsUntil() (end time.Time) {
	for _, p := range s.current.Load().parts {
		if p.clients == nil || p.clients.crls == nil {
			continue
		}
		if p.clients.missing {
			return time.Unix(0, 0)
		}
		for _, l := range p.clients.crls.lists {
			if end.IsZero() || l.nextDate.Before(end) {
				end = l.nextDate
			}
		}
	}
	return end
}

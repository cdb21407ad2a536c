package certs

import (
	"context"
	"crypto/tls"
	"log/slog"
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
	base    *tls.Config // owns the session ticket keys, which Go renews daily
	ocsp    *statuses   // nil: no responder is asked
	current atomic.Pointer[state]
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
	s := &Store{config: c, deps: deps}
	var err error
	if s.ocsp, err = newStatuses(c.OCSP, deps); err != nil {
		return nil, err
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
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return s.current.Load().config, nil
		},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return s.current.Load().certificate, nil
		},
	}
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
	files := []string{s.config.CertFile, s.config.KeyFile}
	if s.config.ClientCAFile != "" {
		files = append(files, s.config.ClientCAFile)
	}
	return append(files, s.config.CRLFiles...)
}

// Reload reads all files again and takes all of them into use, or none: on error
// the state before stays. Connections that are open keep what they negotiated.
func (s *Store) Reload(ctx context.Context) error {
	st, err := load(s.config, s.deps.Now)
	if err != nil {
		return err
	}
	s.use(ctx, st)
	return nil
}

// use is the point of no return: nothing fails from here.
func (s *Store) use(ctx context.Context, st *state) {
	st.config = s.base.Clone()
	st.config.GetConfigForClient, st.config.GetCertificate = nil, nil
	st.config.Certificates = []tls.Certificate{*st.certificate}
	if st.clients != nil {
		st.clients.ocsp = s.ocsp
		st.config.ClientCAs = st.clients.pool
		st.config.VerifyConnection = st.clients.verifyConnection
		st.config.WrapSession = st.clients.wrapSession(s.base)
		st.config.UnwrapSession = st.clients.unwrapSession(s.base)
	}
	s.current.Store(st)
	s.warn(ctx, st)
}

func (s *Store) warn(ctx context.Context, st *state) {
	if end := st.notAfter; s.deps.Now().After(end) {
		s.deps.Logger.WarnContext(ctx, "server certificate has expired",
			slog.String("file", s.config.CertFile), slog.Time("not_after", end))
	}
	if st.clients == nil {
		return
	}
	for _, problem := range st.clients.outdated(s.deps.Now()) {
		s.deps.Logger.WarnContext(ctx, "clients are refused for want of a current revocation list", slog.Any("error", problem))
	}
}

// NotAfter returns when the first certificate of the server's chain expires.
func (s *Store) NotAfter() time.Time { return s.current.Load().notAfter }

package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ocsp"
	"golang.org/x/sync/errgroup"

	"github.com/sallyport/sallyport/engine/setting"
)

// Staple says whether the server's certificate is shown together with its OCSP answer
// (RFC 6066 section 8).
type Staple struct {
	// Mode is off, soft or hard; off by default, which a certificate that demands an
	// answer (RFC 7633, "must-staple") does not allow. Without an answer that says good,
	// soft shows the certificate alone, and hard refuses handshakes.
	Mode string `yaml:"mode"`
	// File holds the answer, DER, which something else keeps fresh. It is watched, and
	// nobody is asked.
	File string `yaml:"file" sallyport:"path"`
	// IssuerFile holds the PEM certificate of the authority that issued the server's
	// certificate, where cert_file does not have it as the second one.
	IssuerFile string `yaml:"issuer_file" sallyport:"path"`
	// ResponderURL is who is asked, whatever the certificate names.
	ResponderURL string `yaml:"responder_url"`
	// Timeout bounds one question; 2s by default.
	Timeout time.Duration `yaml:"timeout"`
}

func (s Staple) on() bool { return s.Mode == ocspSoft || s.Mode == ocspHard }

func (s Staple) validate() error {
	errs := []error{OCSP{Mode: s.Mode, ResponderURL: s.ResponderURL, Timeout: s.Timeout}.validate()}
	if s.File != "" && s.ResponderURL != "" {
		errs = append(errs, setting.Problemf("responder_url", "has no effect with file: nobody is asked"))
	}
	if !s.on() && (s.File != "" || s.ResponderURL != "") {
		errs = append(errs, setting.Problemf("mode", "is off, so nothing is stapled; say soft or hard"))
	}
	return errors.Join(errs...)
}

const (
	// An answer is renewed at half its time, and not more often than this.
	stapleMinRenewal = time.Second
	stapleMaxRenewal = 12 * time.Hour
	stapleFirstRetry = 5 * time.Second
	stapleMaxRetry   = 5 * time.Minute
)

// errNoStaple: a handshake that must show an answer has none to show.
var errNoStaple = errors.New("there is no OCSP answer to staple to the server's certificate, and staple.mode is hard")

// stapler keeps the answer about one server certificate.
type stapler struct {
	config       Staple
	asker        *asker // nil with a file
	leaf, issuer *x509.Certificate
	plain        *tls.Certificate
	now          func() time.Time
	current      atomic.Pointer[stapled]
}

// stapled is the certificate with an answer, good from and until.
type stapled struct {
	certificate *tls.Certificate
	from, until time.Time
}

// newStapler returns nil if nothing is to be stapled. It reads files and asks nobody.
func newStapler(c Config, certificate *tls.Certificate, now func() time.Time) (*stapler, error) {
	leaf, err := x509.ParseCertificate(certificate.Certificate[0])
	if err != nil {
		return nil, err
	}
	if !c.Staple.on() {
		if mustStaple(leaf) {
			return nil, fmt.Errorf("certificate %s demands an OCSP answer (must-staple): set staple.mode to soft or hard", c.CertFile)
		}
		return nil, nil
	}
	s := &stapler{config: c.Staple, leaf: leaf, plain: certificate, now: now}
	if s.issuer, err = issuerOf(leaf, certificate.Certificate[1:], c.Staple.IssuerFile); err != nil {
		return nil, err
	}
	if c.Staple.File != "" {
		return s, s.load()
	}
	if s.config.Timeout == 0 {
		s.config.Timeout = ocspTimeout
	}
	s.asker, err = newAsker(c.Staple.ResponderURL, 1, now)
	return s, err
}

// mustStaple looks for status_request in the TLS feature extension (RFC 7633 section 4.2).
func mustStaple(leaf *x509.Certificate) bool {
	for _, e := range leaf.Extensions {
		if !e.Id.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}) {
			continue
		}
		var features []int
		if _, err := asn1.Unmarshal(e.Value, &features); err != nil {
			return true // it demands something, and this is all that there is
		}
		return slices.Contains(features, 5)
	}
	return false
}

// issuerOf returns the authority that issued leaf.
func issuerOf(leaf *x509.Certificate, chain [][]byte, file string) (*x509.Certificate, error) {
	var candidates []*x509.Certificate
	if file != "" {
		list, _, err := loadAuthorities(file)
		if err != nil {
			return nil, fmt.Errorf("staple.issuer_file: %w", err)
		}
		candidates = list
	}
	for _, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		candidates = append(candidates, c)
	}
	for _, c := range candidates {
		if bytes.Equal(c.RawSubject, leaf.RawIssuer) && leaf.CheckSignatureFrom(c) == nil {
			return c, nil
		}
	}
	return nil, fmt.Errorf("the certificate of the issuer %q is neither in cert_file nor in staple.issuer_file: answers about the server's certificate cannot be checked", leaf.Issuer)
}

// load takes the answer of the file. One that is out of date, or that does not say
// good, is an error with hard alone.
func (s *stapler) load() error {
	data, err := os.ReadFile(s.config.File)
	if err != nil {
		return fmt.Errorf("read staple.file: %w", err)
	}
	if _, err := ocsp.ParseResponseForCert(data, s.leaf, s.issuer); err != nil {
		return fmt.Errorf("staple.file %s: %w", s.config.File, err)
	}
	r, err := readOCSP(data, s.leaf, s.issuer, s.now())
	if err == nil {
		err = s.use(r)
	}
	if err != nil && s.config.Mode == ocspHard {
		return fmt.Errorf("staple.file %s: %w", s.config.File, err)
	}
	return nil
}

// use staples an answer. One that does not say good helps nobody who would be let in
// with it.
func (s *stapler) use(r *ocsp.Response) error {
	if r.Status != ocsp.Good {
		s.current.Store(nil)
		return errors.New("the responder does not call the server's certificate good: it is revoked or unknown; renew it")
	}
	with := *s.plain
	with.OCSPStaple = r.Raw
	next := &stapled{certificate: &with, from: r.ThisUpdate, until: r.NextUpdate}
	if next.until.IsZero() {
		next.until = r.ThisUpdate.Add(ocspSkew)
	}
	s.current.Store(next)
	return nil
}

// renew asks for an answer. On error the one before stays for its time, but not one
// that says otherwise.
func (s *stapler) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()
	r, err := s.asker.ask(ctx, s.leaf, s.issuer)
	if err != nil {
		return err
	}
	return s.use(r)
}

// certificate returns what a handshake shows.
func (s *stapler) certificate() (*tls.Certificate, error) {
	if c := s.current.Load(); c != nil && s.now().Before(c.until) {
		return c.certificate, nil
	}
	if s.config.Mode == ocspHard {
		return nil, errNoStaple
	}
	return s.plain, nil
}

// inherit takes the answer of prev if it is about the same certificate.
func (s *stapler) inherit(prev *stapler) {
	c := prev.current.Load()
	if c == nil || s.asker == nil || !s.leaf.Equal(prev.leaf) {
		return
	}
	with := *s.plain
	with.OCSPStaple = c.certificate.OCSPStaple
	s.current.CompareAndSwap(nil, &stapled{certificate: &with, from: c.from, until: c.until})
}

// due returns how long from now the answer is to be renewed.
func (s *stapler) due(failures int) time.Duration {
	if failures > 0 {
		return min(stapleFirstRetry<<min(failures-1, 10), stapleMaxRetry)
	}
	c := s.current.Load()
	if c == nil {
		return 0
	}
	half := c.from.Add(c.until.Sub(c.from) / 2).Sub(s.now())
	return min(max(half, stapleMinRenewal), stapleMaxRenewal)
}

// Staples reports whether answers to staple are asked for.
func (s *Store) Staples() bool {
	for _, p := range s.current.Load().parts {
		if p.staple != nil && p.staple.asker != nil {
			return true
		}
	}
	return false
}

// StapledUntil returns when the first of the answers ends that are stapled now; zero if
// none is.
func (s *Store) StapledUntil() (end time.Time) {
	for _, p := range s.current.Load().parts {
		if p.staple == nil {
			continue
		}
		if c := p.staple.current.Load(); c != nil && (end.IsZero() || c.until.Before(end)) {
			end = c.until
		}
	}
	return end
}

// Prime asks once for the answers that are to be stapled and for the revocation lists that
// are to be fetched, where they are not there. An error is no reason not to start:
// staple.mode and crl.mode say what happens without them.
func (s *Store) Prime(ctx context.Context) error {
	lists := make(chan error, 1)
	go func() { lists <- s.primeLists(ctx) }()
	return errors.Join(s.current.Load().prime(ctx), <-lists)
}

// Renews reports whether Run has something to do.
func (s *Store) Renews() bool { return s.Staples() || len(s.urls()) > 0 }

// Run keeps fresh what is stapled and the revocation lists that are fetched, until ctx
// ends, and returns nil then.
func (s *Store) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.runStaples(ctx) })
	for _, u := range s.urls() {
		g.Go(func() error { return s.runList(ctx, u) })
	}
	return g.Wait()
}

func (st *state) prime(ctx context.Context) error {
	var errs []error
	for _, p := range st.parts {
		if p.staple != nil && p.staple.asker != nil && p.staple.current.Load() == nil {
			errs = append(errs, p.staple.renew(ctx))
		}
	}
	return errors.Join(errs...)
}

// runStaples keeps the answers fresh that are to be stapled, until ctx ends.
func (s *Store) runStaples(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	tries := map[*stapler]*attempt{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.changed: // another certificate
		case <-timer.C:
		}
		timer.Reset(s.renewDue(ctx, tries))
	}
}

// attempt is when a stapler is to ask next.
type attempt struct {
	failures int
	at       time.Time
}

// renewDue asks for what is due and returns how long nothing will be. The clock is the
// machine's: it is for waiting.
func (s *Store) renewDue(ctx context.Context, tries map[*stapler]*attempt) time.Duration {
	wait := stapleMaxRenewal
	if s.pending.Load() { // a renewed certificate waits for its answer
		if err := s.reload(ctx); err != nil {
			s.deps.Logger.WarnContext(ctx, "the new server certificate is not in use: there is no OCSP answer for it", slog.Any("error", err))
			wait = stapleFirstRetry
		}
	}
	known := map[*stapler]bool{}
	for _, p := range s.current.Load().parts {
		if p.staple == nil || p.staple.asker == nil {
			continue
		}
		known[p.staple] = true
		try := tries[p.staple]
		if try == nil {
			try = &attempt{at: time.Now().Add(p.staple.due(0))}
			tries[p.staple] = try
		}
		if !time.Now().Before(try.at) {
			s.renewOne(ctx, p.staple, try)
		}
		wait = min(wait, max(time.Until(try.at), 0))
	}
	for old := range tries {
		if !known[old] {
			delete(tries, old)
		}
	}
	return wait
}

func (s *Store) renewOne(ctx context.Context, staple *stapler, try *attempt) {
	if err := staple.renew(ctx); err != nil {
		try.failures++
		s.deps.Logger.WarnContext(ctx, "the OCSP answer for the server's certificate was not renewed", slog.String("mode", staple.config.Mode),
			slog.String("serial", staple.leaf.SerialNumber.Text(16)), slog.Any("error", err))
	} else {
		try.failures = 0
	}
	try.at = time.Now().Add(staple.due(try.failures))
}

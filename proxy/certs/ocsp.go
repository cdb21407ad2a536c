package certs

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"golang.org/x/crypto/ocsp"
	"golang.org/x/sync/singleflight"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn/tokencache"
)

// OCSP says whether the authority's responder is asked about a client certificate (RFC
// 6960) before the handshake ends.
type OCSP struct {
	// Mode is off, soft or hard; off by default. In both others a certificate that the
	// responder calls revoked, or does not know, is refused. Without an answer that can
	// be relied on, hard refuses the client and soft lets it in: whoever can keep the
	// gateway from its responder can then use a revoked certificate.
	Mode string `yaml:"mode"`
	// ResponderURL is who is asked, whatever the certificate names. Answers are signed, so
	// http is as good as https.
	ResponderURL string `yaml:"responder_url"`
	// Timeout bounds one question, the wait for its turn included; 2s by default.
	Timeout time.Duration `yaml:"timeout"`
	// MaxCalls is how many questions may be under way at once, 16 by default. A handshake
	// that finds no turn within the timeout has no answer.
	MaxCalls int `yaml:"max_calls"`
	// MaxStapleAge is how long after its thisUpdate an answer counts that the client
	// staples to its certificate (TLS 1.3, RFC 8446 section 4.4.2.1); 1h by default. The
	// responder is then not asked. A client can go on to staple what was said before its
	// certificate was revoked.
	MaxStapleAge time.Duration `yaml:"max_staple_age"`
}

// Values of ocsp.mode.
const (
	ocspOff  = "off"
	ocspSoft = "soft"
	ocspHard = "hard"
)

func (o OCSP) on() bool { return o.Mode == ocspSoft || o.Mode == ocspHard }

func (o OCSP) validate() error {
	var errs []error
	switch o.Mode {
	case "", ocspOff, ocspSoft, ocspHard:
	default:
		errs = append(errs, setting.Problemf("mode", "%q is not off, soft or hard", o.Mode))
	}
	if o.ResponderURL != "" {
		if u, err := url.Parse(o.ResponderURL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
			errs = append(errs, setting.Problemf("responder_url", "%q is not an http or https URL", o.ResponderURL))
		}
	}
	if o.Timeout < 0 || o.Timeout > 30*time.Second {
		errs = append(errs, setting.Problemf("timeout", "%s is not between 0s and 30s", o.Timeout))
	}
	if o.MaxCalls < 0 || o.MaxCalls > 1<<12 {
		errs = append(errs, setting.Problemf("max_calls", "%d is not between 0 and %d", o.MaxCalls, 1<<12))
	}
	if o.MaxStapleAge < 0 || o.MaxStapleAge > 7*24*time.Hour {
		errs = append(errs, setting.Problemf("max_staple_age", "%s is not between 0s and 168h", o.MaxStapleAge))
	}
	return errors.Join(errs...)
}

const (
	ocspTimeout   = 2 * time.Second
	ocspCalls     = 16
	ocspCertified = 16384 // certificates about which an answer is kept
	ocspBytes     = 8 << 20
	// An answer counts until its nextUpdate, and this long at most.
	ocspKeep = time.Hour
	// One without nextUpdate says that there is always a newer one (RFC 6960 section
	// 2.4): it must be fresh, and is kept for the handshakes of a moment.
	ocspKeepOpen = time.Minute
	// With soft, a responder that is down does not hold up each handshake anew.
	ocspKeepFailure = 10 * time.Second
	ocspSkew        = 5 * time.Minute // between the responder's clock and ours
)

// statuses asks responders about certificates. It outlives the files: what a responder
// said about a certificate does not depend on them.
type statuses struct {
	*asker
	config  OCSP
	flights singleflight.Group
	known   *tokencache.Cache[certStatus]
	logger  *slog.Logger
	lines   *lines
}

// certStatus is what is known of one certificate; err says why nothing is.
type certStatus struct {
	status int // ocsp.Good, ocsp.Revoked or ocsp.Unknown
	err    error
}

// newStatuses returns nil if nobody is to be asked.
func newStatuses(c OCSP, deps Deps) (*statuses, error) {
	if !c.on() {
		return nil, nil
	}
	if c.Timeout == 0 {
		c.Timeout = ocspTimeout
	}
	if c.MaxCalls == 0 {
		c.MaxCalls = ocspCalls
	}
	if c.MaxStapleAge == 0 {
		c.MaxStapleAge = ocspKeep
	}
	a, err := newAsker(c.ResponderURL, c.MaxCalls, deps.Now)
	return &statuses{
		asker: a, config: c, logger: deps.Logger,
		known: tokencache.New[certStatus](ocspCertified, ocspBytes), lines: newLines(),
	}, err
}

// check refuses a client whose certificate is revoked. Its authorities' certificates
// are not asked about: they are few, and in revocation lists. It may block for the
// timeout, in the goroutine of one handshake. Stapled is what the client sent along;
// empty for nothing.
func (s *statuses) check(chain []*x509.Certificate, stapled []byte) error {
	if len(chain) < 2 {
		return s.undecided(chain[0], errors.New("it is its own authority, and nobody can be asked"))
	}
	leaf, issuer := chain[0], chain[1]
	st := s.statusOf(leaf, issuer, stapled)
	switch {
	case st.err != nil:
		return s.undecided(leaf, st.err)
	case st.status == ocsp.Good:
		return nil
	case st.status == ocsp.Revoked:
		return fmt.Errorf("%w: %x of %q, its responder says", ErrRevoked, leaf.SerialNumber, leaf.Issuer)
	}
	return fmt.Errorf("%w: %x of %q is not one that its responder knows", ErrStatusUnknown, leaf.SerialNumber, leaf.Issuer)
}

// undecided is what becomes of a client whose status is not known.
func (s *statuses) undecided(leaf *x509.Certificate, why error) error {
	if left, ok := s.lines.next(s.now()); ok {
		s.logger.Warn("the status of a client certificate is not known", slog.String("mode", s.config.Mode),
			slog.String("serial", clip(leaf.SerialNumber.Text(16))), slog.String("issuer", clip(leaf.Issuer.String())),
			slog.Int64("not_logged", left), slog.Any("error", why))
	}
	if s.config.Mode == ocspSoft {
		return nil
	}
	return fmt.Errorf("%w: %x of %q: %w", ErrStatusUnknown, leaf.SerialNumber, leaf.Issuer, why)
}

// statusOf looks into what is known and what is stapled, and asks once for all who
// wait. What a responder has said to us comes before what the client picks.
func (s *statuses) statusOf(leaf, issuer *x509.Certificate, stapled []byte) certStatus {
	of, by := sha256.Sum256(leaf.Raw), authorityOf(issuer)
	key := string(of[:]) + string(by[:])
	st, found := s.known.Get(key, s.now())
	if found && st.err == nil {
		return st
	}
	if said, ok := s.stapled(leaf, issuer, stapled); ok {
		return said
	}
	if found {
		return st
	}
	v, _, _ := s.flights.Do(key, func() (any, error) { return s.find(key, leaf, issuer), nil })
	st, ok := v.(certStatus)
	if !ok {
		return certStatus{err: errors.New("there is no answer")}
	}
	return st
}

// stapled reads what the client sent along; false if it does not count, and others are
// to be asked.
func (s *statuses) stapled(leaf, issuer *x509.Certificate, data []byte) (certStatus, bool) {
	if len(data) == 0 {
		return certStatus{}, false
	}
	r, err := readOCSP(data, leaf, issuer, s.now())
	if err != nil || r.Status == ocsp.Good && s.now().Sub(r.ThisUpdate) > s.config.MaxStapleAge {
		return certStatus{}, false
	}
	return certStatus{status: r.Status}, true
}

// find asks and keeps the answer.
func (s *statuses) find(key string, leaf, issuer *x509.Certificate) certStatus {
	ctx, cancel := context.WithTimeout(context.Background(), s.config.Timeout)
	defer cancel()
	r, err := s.ask(ctx, leaf, issuer)
	now := s.now()
	if err != nil {
		st := certStatus{err: err}
		if s.config.Mode == ocspSoft {
			s.known.Put(key, st, 256, now.Add(ocspKeepFailure))
		}
		return st
	}
	until := now.Add(ocspKeep)
	switch {
	case r.NextUpdate.IsZero():
		until = now.Add(ocspKeepOpen)
	case r.NextUpdate.Before(until):
		until = r.NextUpdate
	}
	st := certStatus{status: r.Status}
	s.known.Put(key, st, 64, until)
	return st
}

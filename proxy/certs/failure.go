package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	"github.com/sallyport/sallyport/engine/meter"
)

var (
	// ErrRevoked says that the authority of a client's certificate has taken it back.
	ErrRevoked = errors.New("client certificate is revoked")
	// ErrStatusUnknown says that it cannot be told whether a client's certificate is revoked, and
	// the listener insists on knowing.
	ErrStatusUnknown = errors.New("status of the client certificate is not known")
)

// Reasons of failed handshakes, all that there are.
const (
	reasonNoCertificate  = "no_certificate"
	reasonExpired        = "expired" // or not yet valid
	reasonAuthority      = "unknown_authority"
	reasonRevoked        = "revoked"
	reasonStatusUnknown  = "status_unknown"
	reasonBadCertificate = "bad_certificate"
	reasonSignature      = "bad_signature"
	reasonVersion        = "protocol_version"
	reasonParameters     = "no_common_parameters"
	reasonStaple         = "no_staple"
	reasonNotTLS         = "not_tls"
	reasonClient         = "refused_by_client"
	reasonTimeout        = "timeout"
	reasonClosed         = "closed"
	reasonOther          = "other"
)

// notable are the reasons that an operator of certificates looks for. The others are
// the noise of every open port.
func notable(reason string) bool {
	switch reason {
	case reasonNoCertificate, reasonExpired, reasonAuthority, reasonRevoked, reasonStatusUnknown, reasonBadCertificate, reasonSignature, reasonStaple:
		return true
	}
	return false
}

// reasonOf classifies the error of a server's handshake.
func reasonOf(err error) string {
	switch {
	case errors.Is(err, ErrRevoked):
		return reasonRevoked
	case errors.Is(err, ErrStatusUnknown):
		return reasonStatusUnknown
	case errors.Is(err, errNoStaple):
		return reasonStaple
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return reasonClient // an alert of the client's
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return reasonNotTLS
	}
	if reason := reasonOfChain(err); reason != "" {
		return reason
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return reasonTimeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return reasonClosed
	}
	return reasonOfText(err.Error())
}

// reasonOfChain says why a chain was not verified; empty if that was not the reason.
func reasonOfChain(err error) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return reasonAuthority
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return reasonExpired
	} else if ok {
		return reasonBadCertificate
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return reasonBadCertificate
	}
	return ""
}

// reasonOfText reads what crypto/tls has no types for.
func reasonOfText(text string) string {
	for _, known := range []struct{ part, reason string }{
		{"client didn't provide a certificate", reasonNoCertificate},
		{"invalid signature by the client certificate", reasonSignature},
		{"client certificate used with invalid signature algorithm", reasonSignature},
		{"failed to parse client certificate", reasonBadCertificate},
		{"client certificate contains an unsupported public key", reasonBadCertificate},
		{"client sent certificate containing RSA key larger", reasonBadCertificate},
		{"client offered only unsupported versions", reasonVersion},
		{"client using inappropriate protocol fallback", reasonVersion},
		{"no cipher suite supported by both", reasonParameters},
		{"no key exchanges supported by both", reasonParameters},
		{"client requested unsupported application protocols", reasonParameters},
		{"peer doesn't support any of the certificate's signature algorithms", reasonParameters},
	} {
		if strings.Contains(text, known.part) {
			return known.reason
		}
	}
	return reasonOther
}

// Handshake is the server's side of a handshake that failed; *tls.Conn is one.
type Handshake interface {
	ConnectionState() tls.ConnectionState
	RemoteAddr() net.Addr
}

// Failures counts failed handshakes and logs them, each reason at a bounded rate: who
// can connect must not be able to fill the log. It is safe for concurrent use.
type Failures struct {
	logger *slog.Logger
	counts *meter.Counter
	now    func() time.Time
	lines  map[string]*lines // by reason; immutable
}

const (
	linesAtOnce = 10
	linesEvery  = time.Second
)

// lines bounds the lines of one kind.
type lines struct {
	*rate.Limiter
	left atomic.Int64 // out since the last that was let through
}

func newLines() *lines { return &lines{Limiter: rate.NewLimiter(rate.Every(linesEvery), linesAtOnce)} }

// next reports whether a line may be written, and how many were left out before it.
func (l *lines) next(now time.Time) (left int64, ok bool) {
	if !l.AllowN(now, 1) {
		l.left.Add(1)
		return 0, false
	}
	return l.left.Swap(0), true
}

// NewFailures returns what counts and logs. A nil clock is time.Now.
func NewFailures(logger *slog.Logger, metrics *meter.Registry, now func() time.Time) *Failures {
	if now == nil {
		now = time.Now
	}
	f := &Failures{
		logger: logger, now: now, lines: map[string]*lines{},
		counts: metrics.Counter("sallyport.tls.handshake.failures", "{handshake}",
			"TLS handshakes of clients that failed, by listener and reason."),
	}
	for _, reason := range []string{
		reasonNoCertificate, reasonExpired, reasonAuthority, reasonRevoked, reasonStatusUnknown, reasonBadCertificate, reasonSignature,
		reasonVersion, reasonParameters, reasonStaple, reasonNotTLS, reasonClient, reasonTimeout, reasonClosed, reasonOther,
	} {
		f.lines[reason] = newLines()
	}
	return f
}

// Add takes note of a handshake that ended with err on a listener.
func (f *Failures) Add(ctx context.Context, listener string, h Handshake, err error) {
	reason := reasonOf(err)
	f.counts.With(meter.String("listener", listener), meter.String("reason", reason)).Add(1)
	level := slog.LevelDebug
	if notable(reason) {
		level = slog.LevelInfo
	}
	if !f.logger.Enabled(ctx, level) {
		return
	}
	left, ok := f.lines[reason].next(f.now())
	if !ok {
		return
	}
	state := h.ConnectionState()
	attrs := []slog.Attr{
		slog.String("listener", listener), slog.String("reason", reason), slog.String("peer", h.RemoteAddr().String()),
		slog.String("server_name", clip(state.ServerName)), slog.String("error", clip(err.Error())),
	}
	if leaf := presented(state, err); leaf != nil {
		attrs = append(attrs, slog.Group("certificate", // as the client showed it: nothing of it need be true
			slog.String("subject", clip(leaf.Subject.String())), slog.String("issuer", clip(leaf.Issuer.String())),
			slog.String("serial", clip(leaf.SerialNumber.Text(16)))))
	}
	if left > 0 {
		attrs = append(attrs, slog.Int64("not_logged", left))
	}
	f.logger.LogAttrs(ctx, level, "TLS handshake failed", attrs...)
}

// presented returns the certificate that the client showed, verified or not.
func presented(state tls.ConnectionState, err error) *x509.Certificate {
	if refused, ok := errors.AsType[*tls.CertificateVerificationError](err); ok && len(refused.UnverifiedCertificates) > 0 {
		return refused.UnverifiedCertificates[0]
	}
	if len(state.PeerCertificates) > 0 {
		return state.PeerCertificates[0]
	}
	return nil
}

// clip bounds what a client can put into a line, in bytes.
func clip(text string) string {
	if len(text) > 256 {
		return strings.ToValidUTF8(text[:256], "") + "..."
	}
	return text
}

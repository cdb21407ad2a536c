package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"
)

// state is what the files held at one time. It is immutable once in use.
type state struct {
	parts    []*part // by index of Names
	notAfter time.Time
}

// part is what belongs to the server names with the same settings.
type part struct {
	config      *tls.Config // serves this part
	certificate *tls.Certificate
	notAfter    time.Time
	staple      *stapler // nil: the certificate is shown alone
	clients     *clients // nil: no client certificates
}

// shown returns the certificate that a handshake shows.
func (p *part) shown() (*tls.Certificate, error) {
	if p.staple == nil {
		return p.certificate, nil
	}
	return p.staple.certificate()
}

func load(c Config, now func() time.Time) (*state, error) {
	st := &state{}
	for _, one := range c.all() {
		p, err := loadPart(one, now)
		if err != nil {
			return nil, err
		}
		if st.notAfter.IsZero() || p.notAfter.Before(st.notAfter) {
			st.notAfter = p.notAfter
		}
		st.parts = append(st.parts, p)
	}
	return st, nil
}

func loadPart(c Config, now func() time.Time) (*part, error) {
	certificate, err := loadKeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, err
	}
	p := &part{certificate: certificate}
	if p.notAfter, err = chainEnd(certificate); err != nil {
		return nil, fmt.Errorf("read certificate %s: %w", c.CertFile, err)
	}
	if p.staple, err = newStapler(c, certificate, now); err != nil || c.ClientCAFile == "" {
		return p, err
	}
	p.clients, err = loadClients(c, now)
	return p, err
}

func loadKeyPair(certFile, keyFile string) (*tls.Certificate, error) {
	certPEM, err := os.ReadFile(certFile) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	keyPEM, err := os.ReadFile(keyFile) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("read private key: %w", err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("read certificate %s with key %s: %w", certFile, keyFile, err)
	}
	return &pair, nil
}

// chainEnd returns when the first certificate of the chain expires.
func chainEnd(c *tls.Certificate) (time.Time, error) {
	var end time.Time
	for _, der := range c.Certificate {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return time.Time{}, err
		}
		if end.IsZero() || cert.NotAfter.Before(end) {
			end = cert.NotAfter
		}
	}
	return end, nil
}

// loadAuthorities reads every certificate of a PEM file, or of a trust bundle. Anything else in the
// file is an error: a damaged authority must not pass unnoticed.
func loadAuthorities(name string) ([]*x509.Certificate, []byte, error) {
	data, err := os.ReadFile(name) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, nil, fmt.Errorf("read client CA: %w", err)
	}
	list, err := parseAuthorities(data)
	if err != nil {
		return nil, nil, fmt.Errorf("read client CA %s: %w", name, err)
	}
	return list, data, nil
}

// Authorities reads a PEM file of authorities, as client_ca_file of a listener is read.
func Authorities(name string) (*x509.CertPool, error) {
	list, _, err := loadAuthorities(name)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, a := range list {
		pool.AddCert(a)
	}
	return pool, nil
}

func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		data = rest
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a PEM block %q", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		if !cert.IsCA {
			return nil, fmt.Errorf("certificate %q is not one of an authority", cert.Subject)
		}
		list = append(list, cert)
	}
	if len(list) == 0 {
		return nil, errors.New("holds no PEM certificate")
	}
	return list, checkRest(data)
}

// checkRest refuses what follows the last PEM block if it looks like a block that
// was cut off: without it, fewer authorities or lists would count than there are.
func checkRest(rest []byte) error {
	if bytes.Contains(rest, []byte("-----BEGIN")) {
		return errors.New("ends within a PEM block")
	}
	return nil
}

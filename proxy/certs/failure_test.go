package certs_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/engine/meter/metertest"
	"github.com/sallyport/sallyport/proxy/certs"
	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

// refusal has a client do something to a server, and returns the server's connection
// with the error of its handshake.
func refusal(t *testing.T, server *tls.Config, client func(net.Conn)) (*tls.Conn, error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	ended := make(chan struct{})
	defer func() { <-ended }()
	go func() {
		defer close(ended)
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", ln.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		client(c)
	}()
	raw, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Server(raw, server)
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	err = conn.HandshakeContext(t.Context())
	_ = conn.Close()
	return conn, err
}

// speak has a client make its handshake and wait for the server's word on it.
func speak(c *tls.Config) func(net.Conn) {
	return func(raw net.Conn) {
		conn := tls.Client(raw, c)
		if conn.Handshake() == nil {
			_, _ = conn.Read(make([]byte, 1))
		}
	}
}

// TestFailures is the table of what can be wrong with a handshake, and how it is
// counted and logged.
func TestFailures(t *testing.T) {
	s := newSite(t)
	revoked := s.clients.Issue(t, "mallory", nil)
	team := s.clients.Intermediate(t, "team CA")
	certstest.Write(t, s.config.ClientCAFile, append(s.clients.PEM(), team.PEM()...))
	s.withCRL(t, s.clients.RevocationList(t, time.Now().Add(time.Hour), revoked))
	server := s.open(t).TLS()
	issue := func(change func(*x509.Certificate)) tls.Certificate { return s.clients.Issue(t, "eve", change) }
	stolen := issue(nil)
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	stolen.PrivateKey = other
	shows := func(c tls.Certificate) func(*tls.Config) {
		return func(conf *tls.Config) {
			conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c, nil }
		}
	}
	both := []uint16{tls.VersionTLS12, tls.VersionTLS13}
	for _, tt := range []struct {
		reason   string
		level    string
		subject  string
		versions []uint16
		change   func(*tls.Config)
		client   func(net.Conn) // instead of a handshake
	}{
		{"revoked", "INFO", "CN=mallory", both, shows(revoked), nil},
		{"status_unknown", "INFO", "CN=eve", both, shows(team.Issue(t, "eve", nil)), nil},
		{"expired", "INFO", "CN=eve", both, shows(issue(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })), nil},
		{"unknown_authority", "INFO", "CN=eve", both, shows(certstest.NewCA(t, "client CA").Issue(t, "eve", nil)), nil},
		{"bad_certificate", "INFO", "CN=eve", both, shows(issue(func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		})), nil},
		{"bad_signature", "INFO", "CN=eve", both, shows(stolen), nil},
		{"no_certificate", "INFO", "", both, func(*tls.Config) {}, nil},
		{"protocol_version", "DEBUG", "", []uint16{tls.VersionTLS11}, func(*tls.Config) {}, nil},
		{"no_common_parameters", "DEBUG", "", []uint16{tls.VersionTLS12}, func(c *tls.Config) {
			c.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
		}, nil},
		{"refused_by_client", "DEBUG", "", both, func(c *tls.Config) { c.RootCAs = s.clients.Pool() }, nil},
		{"not_tls", "DEBUG", "", nil, nil, func(c net.Conn) { _, _ = c.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n")) }},
		{"closed", "DEBUG", "", nil, nil, func(net.Conn) {}},
	} {
		for _, version := range append(tt.versions, 0)[:max(len(tt.versions), 1)] {
			t.Run(tt.reason+" "+tls.VersionName(version), func(t *testing.T) {
				client := tt.client
				if client == nil {
					conf := s.client()
					conf.MinVersion, conf.MaxVersion = version, version
					tt.change(conf)
					client = speak(conf)
				}
				conn, err := refusal(t, server, client)
				if err == nil {
					t.Fatal("the handshake did not fail")
				}
				var log bytes.Buffer
				metrics := meter.New()
				certs.NewFailures(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})), metrics, nil).
					Add(t.Context(), "public", conn, err)
				if got := metertest.Counts(metrics); got["sallyport.tls.handshake.failures listener=public,reason="+tt.reason] != 1 || len(got) != 1 {
					t.Errorf("counted %v for %v", got, err)
				}
				for _, want := range []string{"level=" + tt.level, "reason=" + tt.reason, "listener=public", "peer=127.0.0.1:"} {
					if !strings.Contains(log.String(), want) {
						t.Errorf("log lacks %q: %s", want, log.String())
					}
				}
				if got := strings.Contains(log.String(), "certificate.subject="); got != (tt.subject != "") || !strings.Contains(log.String(), tt.subject) {
					t.Errorf("log has a certificate: %v; want %q: %s", got, tt.subject, log.String())
				}
			})
		}
	}
	t.Run("timeout", func(t *testing.T) {
		here, there := net.Pipe()
		defer func() { _ = there.Close() }()
		conn := tls.Server(here, server)
		_ = conn.SetDeadline(time.Now().Add(-time.Second))
		err := conn.HandshakeContext(t.Context())
		metrics := meter.New()
		certs.NewFailures(slog.New(slog.DiscardHandler), metrics, nil).Add(t.Context(), "public", conn, err)
		if got := metertest.Counts(metrics); got["sallyport.tls.handshake.failures listener=public,reason=timeout"] != 1 {
			t.Errorf("counted %v for %v", got, err)
		}
	})
}

// TestFailuresBound: whoever can connect cannot fill the log, and each line is of
// bounded length.
func TestFailuresBound(t *testing.T) {
	s := newSite(t)
	eve := certstest.NewCA(t, "client CA").Issue(t, strings.Repeat("e", 2000), nil)
	conf := s.client()
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &eve, nil }
	conn, err := refusal(t, s.open(t).TLS(), speak(conf))
	if err == nil {
		t.Fatal("the handshake did not fail")
	}
	var log bytes.Buffer
	metrics, now := meter.New(), time.Now()
	failures := certs.NewFailures(slog.New(slog.NewTextHandler(&log, nil)), metrics, func() time.Time { return now })
	for range 1000 {
		failures.Add(t.Context(), "public", conn, err)
	}
	if n := strings.Count(log.String(), "\n"); n != 10 || log.Len() > n*1500 {
		t.Errorf("1000 failures made %d lines, %d bytes", n, log.Len())
	}
	if got := metertest.Counts(metrics)["sallyport.tls.handshake.failures listener=public,reason=unknown_authority"]; got != 1000 {
		t.Errorf("counted %d of 1000", got)
	}
	log.Reset()
	now = now.Add(time.Second)
	failures.Add(t.Context(), "public", conn, err)
	if !strings.Contains(log.String(), "not_logged=990") {
		t.Errorf("the line after says %s", log.String())
	}
}

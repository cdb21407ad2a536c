package certs_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/certs"
	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

// site is a listener's files and the authorities behind them.
type site struct {
	server, clients *certstest.CA
	config          certs.Config
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{
		server: certstest.NewCA(t, "server CA"), clients: certstest.NewCA(t, "client CA"),
		config: certs.Config{
			CertFile: filepath.Join(dir, "server.pem"), KeyFile: filepath.Join(dir, "server.key"),
			ClientCAFile: filepath.Join(dir, "clients-ca.pem"), ClientAuth: "required",
		},
	}
	certstest.WritePair(t, s.server.Issue(t, "gateway", nil), s.config.CertFile, s.config.KeyFile)
	certstest.Write(t, s.config.ClientCAFile, s.clients.PEM())
	return s
}

func (s *site) withCRL(t *testing.T, list []byte) {
	t.Helper()
	if len(s.config.CRLFiles) == 0 {
		s.config.CRLFiles = []string{filepath.Join(t.TempDir(), "clients.crl")}
	}
	certstest.Write(t, s.config.CRLFiles[0], list)
}

func (s *site) open(t *testing.T) *certs.Store {
	t.Helper()
	store, err := certs.New(s.config, certs.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// client returns the configuration of a client with a certificate, if any.
func (s *site) client(certificates ...tls.Certificate) *tls.Config {
	return &tls.Config{
		RootCAs: s.server.Pool(), ServerName: "localhost", Certificates: certificates, MinVersion: tls.VersionTLS12,
	}
}

// handshake connects over a real connection, and has both sides say something,
// because a TLS 1.3 client learns only then that its certificate was refused. It
// returns the server's view.
func handshake(t *testing.T, server, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	type result struct {
		state tls.ConnectionState
		err   error
	}
	done := make(chan result, 1)
	go func() {
		raw, err := ln.Accept()
		if err != nil {
			done <- result{err: err}
			return
		}
		defer func() { _ = raw.Close() }()
		conn := tls.Server(raw, server)
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		if err = conn.HandshakeContext(t.Context()); err == nil {
			_, err = conn.Write([]byte("hello"))
		}
		done <- result{conn.ConnectionState(), err}
	}()
	dialer := tls.Dialer{Config: client}
	conn, dialErr := dialer.DialContext(t.Context(), "tcp", ln.Addr().String())
	if dialErr == nil {
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		_, dialErr = conn.Read(make([]byte, 5))
		defer func() { _ = conn.Close() }()
	}
	r := <-done
	return r.state, errors.Join(r.err, dialErr)
}

func TestHandshake(t *testing.T) {
	s := newSite(t)
	stranger := certstest.NewCA(t, "client CA") // the same name and another key
	good := s.clients.Issue(t, "alice", nil)
	intermediate := s.clients.Intermediate(t, "team CA")
	for _, tt := range []struct {
		name     string
		auth     string
		client   []tls.Certificate
		want     string // part of the error; empty: accepted
		verified bool
	}{
		{"good", "required", []tls.Certificate{good}, "", true},
		{"good through an intermediate", "required", []tls.Certificate{intermediate.Issue(t, "bob", nil)}, "", true},
		{"none, required", "required", nil, "certificate required", false},
		{"none, optional", "optional", nil, "", false},
		{"good, optional", "optional", []tls.Certificate{good}, "", true},
		{"wrong CA", "required", []tls.Certificate{stranger.Issue(t, "eve", nil)}, "unknown certificate authority", false},
		{"wrong CA, optional", "optional", []tls.Certificate{stranger.Issue(t, "eve", nil)}, "unknown certificate authority", false},
		{"expired", "required", []tls.Certificate{s.clients.Issue(t, "old", func(c *x509.Certificate) {
			c.NotAfter = time.Now().Add(-time.Minute)
		})}, "expired", false},
		{"not yet valid", "required", []tls.Certificate{s.clients.Issue(t, "new", func(c *x509.Certificate) {
			c.NotBefore = time.Now().Add(time.Hour)
		})}, "expired", false},
		{"for servers only", "required", []tls.Certificate{s.clients.Issue(t, "server", func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		})}, "bad certificate", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			config := s.config
			config.ClientAuth = tt.auth
			store, err := certs.New(config, certs.Deps{})
			if err != nil {
				t.Fatal(err)
			}
			client := s.client()
			if len(tt.client) > 0 { // sent whatever authorities the server names
				client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tt.client[0], nil }
			}
			state, err := handshake(t, store.TLS(), client)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Fatalf("got error %v, want %q", err, tt.want)
			}
			if got := certs.CertificateOf(&state) != nil; got != tt.verified {
				t.Errorf("CertificateOf returned one: %v, want %v", got, tt.verified)
			}
		})
	}
}

func TestVersionsAndCiphers(t *testing.T) {
	s := newSite(t)
	s.config.ClientCAFile, s.config.ClientAuth = "", ""
	only := func(version uint16, suites ...uint16) *tls.Config {
		c := s.client()
		c.MinVersion, c.MaxVersion, c.CipherSuites = version, version, suites
		return c
	}
	for _, tt := range []struct {
		name, min string
		client    *tls.Config
		ok        bool
	}{
		{"1.1", "1.2", only(tls.VersionTLS11), false},
		{"1.2", "1.2", only(tls.VersionTLS12), true},
		{"1.2 with 1.3 asked for", "1.3", only(tls.VersionTLS12), false},
		{"1.3", "1.3", only(tls.VersionTLS13), true},
		{"1.2 with CBC", "1.2", only(tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.config.MinVersion = tt.min
			state, err := handshake(t, s.open(t).TLS(), tt.client)
			if (err == nil) != tt.ok {
				t.Fatalf("handshake: %v, want accepted: %v", err, tt.ok)
			}
			if tt.ok && certs.TLSOf(&state).Version != tls.VersionName(tt.client.MaxVersion) {
				t.Errorf("version is %q", certs.TLSOf(&state).Version)
			}
		})
	}
}

func TestProtocols(t *testing.T) {
	s := newSite(t)
	s.config.ClientAuth = "optional"
	client := s.client()
	client.NextProtos = []string{"h2", "http/1.1"}
	state, err := handshake(t, s.open(t).TLS(), client)
	if err != nil || state.NegotiatedProtocol != "http/1.1" {
		t.Errorf("negotiated %q, %v; want http/1.1", state.NegotiatedProtocol, err)
	}
	store, err := certs.New(s.config, certs.Deps{NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	if state, err = handshake(t, store.TLS(), client); err != nil || state.NegotiatedProtocol != "h2" {
		t.Errorf("negotiated %q, %v; want h2", state.NegotiatedProtocol, err)
	}
}

func TestReload(t *testing.T) {
	s := newSite(t)
	store := s.open(t)
	listener := store.TLS() // held for ever, as a listener does
	alice := s.clients.Issue(t, "alice", nil)
	before := store.NotAfter()

	renewed := s.server.Issue(t, "gateway", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(48 * time.Hour) })
	certstest.WritePair(t, renewed, s.config.CertFile, s.config.KeyFile)
	if err := store.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !store.NotAfter().After(before) {
		t.Errorf("NotAfter is %s after the renewal, was %s", store.NotAfter(), before)
	}
	if serial := servedSerial(t, listener, s.client(alice)); serial != renewed.Leaf.SerialNumber.Text(16) {
		t.Errorf("the old certificate is still served")
	}

	next := certstest.NewCA(t, "next client CA")
	certstest.Write(t, s.config.ClientCAFile, next.PEM())
	if err := store.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := handshake(t, listener, s.client(alice)); err == nil {
		t.Error("a client of the authority that was removed got in")
	}
	if _, err := handshake(t, listener, s.client(next.Issue(t, "bob", nil))); err != nil {
		t.Errorf("a client of the new authority: %v", err)
	}
}

// servedSerial returns the serial number that a client sees.
func servedSerial(t *testing.T, server, client *tls.Config) string {
	t.Helper()
	var serial string
	client.VerifyConnection = func(cs tls.ConnectionState) error {
		serial = cs.PeerCertificates[0].SerialNumber.Text(16)
		return nil
	}
	if _, err := handshake(t, server, client); err != nil {
		t.Fatal(err)
	}
	return serial
}

// TestReloadKeepsTheOld: all or nothing.
func TestReloadKeepsTheOld(t *testing.T) {
	for name, spoil := range map[string]func(*testing.T, *site){
		"key of another certificate": func(t *testing.T, s *site) {
			certstest.WritePair(t, s.server.Issue(t, "other", nil), filepath.Join(t.TempDir(), "x"), s.config.KeyFile)
		},
		"broken certificate": func(t *testing.T, s *site) { certstest.Write(t, s.config.CertFile, []byte("-----BEGIN")) },
		"broken CA":          func(t *testing.T, s *site) { certstest.Write(t, s.config.ClientCAFile, []byte("junk")) },
		"CA that is cut off": func(t *testing.T, s *site) {
			certstest.Write(t, s.config.ClientCAFile, append(s.clients.PEM(), s.clients.PEM()[:100]...))
		},
		"empty CA": func(t *testing.T, s *site) { certstest.Write(t, s.config.ClientCAFile, nil) },
		"CA that is none": func(t *testing.T, s *site) {
			certstest.WritePair(t, s.clients.Issue(t, "leaf", nil), s.config.ClientCAFile, filepath.Join(t.TempDir(), "x"))
		},
		"CA file gone": func(t *testing.T, s *site) {
			if err := os.Remove(s.config.ClientCAFile); err != nil {
				t.Fatal(err)
			}
		},
		"broken CRL": func(t *testing.T, s *site) { s.withCRL(t, []byte("junk")) },
		"CRL of a stranger": func(t *testing.T, s *site) {
			s.withCRL(t, certstest.NewCA(t, "client CA").RevocationList(t, time.Now().Add(time.Hour)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.withCRL(t, s.clients.RevocationList(t, time.Now().Add(time.Hour)))
			store := s.open(t)
			alice := s.clients.Issue(t, "alice", nil)
			serial := servedSerial(t, store.TLS(), s.client(alice))
			spoil(t, s)
			if err := store.Reload(t.Context()); err == nil {
				t.Error("Reload returned no error")
			}
			if got := servedSerial(t, store.TLS(), s.client(alice)); got != serial {
				t.Errorf("serves %s, want the old %s", got, serial)
			}
			if _, err := certs.New(s.config, certs.Deps{}); err == nil {
				t.Error("New returned no error with the same files")
			}
		})
	}
}

// TestAuthoritiesOnly: the CA file holds authorities and nothing else.
func TestAuthoritiesOnly(t *testing.T) {
	s := newSite(t)
	leaf := s.clients.Issue(t, "leaf", nil)
	cert, key := filepath.Join(t.TempDir(), "cert"), filepath.Join(t.TempDir(), "key")
	certstest.WritePair(t, leaf, cert, key)
	for name, file := range map[string]string{"a leaf": cert, "a private key": key} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		certstest.Write(t, s.config.ClientCAFile, append(s.clients.PEM(), data...))
		if _, err := certs.New(s.config, certs.Deps{}); err == nil {
			t.Errorf("a CA file with %s was taken", name)
		}
	}
}

func TestRevocation(t *testing.T) {
	s := newSite(t)
	alice, bob := s.clients.Issue(t, "alice", nil), s.clients.Issue(t, "bob", nil)
	current := time.Now().Add(time.Hour)
	s.withCRL(t, s.clients.RevocationList(t, current, bob))
	store := s.open(t)
	if _, err := handshake(t, store.TLS(), s.client(alice)); err != nil {
		t.Errorf("alice, not revoked: %v", err)
	}
	if _, err := handshake(t, store.TLS(), s.client(bob)); err == nil {
		t.Error("bob got in, who is revoked")
	}

	s.withCRL(t, s.clients.RevocationList(t, current.Add(time.Minute), alice, bob))
	if err := store.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := handshake(t, store.TLS(), s.client(alice)); err == nil {
		t.Error("alice got in after her certificate was revoked")
	}

	s.withCRL(t, s.clients.RevocationList(t, time.Now().Add(-time.Minute)))
	if err := store.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := handshake(t, store.TLS(), s.client(alice)); err == nil {
		t.Error("alice got in although the revocation list is out of date")
	}
}

// TestRevocationOfIntermediates: each authority of the chain needs a list.
func TestRevocationOfIntermediates(t *testing.T) {
	s := newSite(t)
	team := s.clients.Intermediate(t, "team CA")
	carol := team.Issue(t, "carol", nil)
	certstest.Write(t, s.config.ClientCAFile, append(s.clients.PEM(), team.PEM()...))
	until := time.Now().Add(time.Hour)

	s.withCRL(t, s.clients.RevocationList(t, until))
	if _, err := handshake(t, s.open(t).TLS(), s.client(carol)); err == nil {
		t.Error("carol got in without a list of the authority that issued her certificate")
	}
	s.withCRL(t, append(s.clients.RevocationList(t, until), team.RevocationList(t, until)...))
	if _, err := handshake(t, s.open(t).TLS(), s.client(carol)); err != nil {
		t.Errorf("carol, with both lists: %v", err)
	}
	revoked := s.clients.RevocationList(t, until, tls.Certificate{Leaf: team.Certificate})
	s.withCRL(t, append(revoked, team.RevocationList(t, until)...))
	if _, err := handshake(t, s.open(t).TLS(), s.client(carol)); err == nil {
		t.Error("carol got in although her authority is revoked")
	}
}

// TestRevocationAboveTheNearest: an authority whose issuer is revoked speaks for nobody,
// however many trusted authorities are between it and the root.
func TestRevocationAboveTheNearest(t *testing.T) {
	s := newSite(t)
	region := s.clients.Intermediate(t, "region CA")
	team := region.Intermediate(t, "team CA")
	carol := team.Issue(t, "carol", nil)
	until := time.Now().Add(time.Hour)
	lists := append(region.RevocationList(t, until), team.RevocationList(t, until)...)
	certstest.Write(t, s.config.ClientCAFile, slices.Concat(s.clients.PEM(), region.PEM(), team.PEM()))
	bare := tls.Certificate{Certificate: carol.Certificate[:1], PrivateKey: carol.PrivateKey, Leaf: carol.Leaf}
	for name, client := range map[string]tls.Certificate{"with its chain": carol, "alone": bare} {
		s.withCRL(t, slices.Concat(s.clients.RevocationList(t, until), lists))
		if _, err := handshake(t, s.open(t).TLS(), s.client(client)); err != nil {
			t.Errorf("carol %s: %v", name, err)
		}
		s.withCRL(t, slices.Concat(s.clients.RevocationList(t, until, tls.Certificate{Leaf: region.Certificate}), lists))
		if _, err := handshake(t, s.open(t).TLS(), s.client(client)); err == nil {
			t.Errorf("carol %s got in although the authority of her authority is revoked", name)
		}
		s.withCRL(t, lists)
		if _, err := handshake(t, s.open(t).TLS(), s.client(client)); err == nil {
			t.Errorf("carol %s got in although nobody knows whether the authority of her authority is revoked", name)
		}
	}
}

// TestRevocationOfTheCrossCertified: an authority with certificates of two roots speaks for
// its clients as long as one of them has not taken its own back.
func TestRevocationOfTheCrossCertified(t *testing.T) {
	s := newSite(t)
	other := certstest.NewCA(t, "other root")
	team := s.clients.Intermediate(t, "team CA")
	cross := other.Cross(t, team)
	carol := team.Issue(t, "carol", nil)
	until := time.Now().Add(time.Hour)
	certstest.Write(t, s.config.ClientCAFile, slices.Concat(s.clients.PEM(), other.PEM(), team.PEM(), cross.PEM()))
	list := func(by, of *certstest.CA, revoked bool) []byte {
		if revoked {
			return by.RevocationList(t, until, tls.Certificate{Leaf: of.Certificate})
		}
		return by.RevocationList(t, until)
	}
	for _, tt := range []struct{ one, two, in bool }{{false, false, true}, {true, false, true}, {false, true, true}, {true, true, false}} {
		s.withCRL(t, slices.Concat(list(s.clients, team, tt.one), list(other, cross, tt.two), team.RevocationList(t, until)))
		if _, err := handshake(t, s.open(t).TLS(), s.client(carol)); (err == nil) != tt.in {
			t.Errorf("revoked by the first root %v, by the second %v: %v", tt.one, tt.two, err)
		}
	}
}

// TestResumption: a session lives no longer than the trust it was made with.
func TestResumption(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			s := newSite(t)
			until := time.Now().Add(time.Hour)
			s.withCRL(t, s.clients.RevocationList(t, until))
			store := s.open(t)
			alice := s.clients.Issue(t, "alice", nil)
			client := s.client(alice)
			client.MinVersion, client.MaxVersion = version, version
			client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
			connect := func() (tls.ConnectionState, error) { return handshake(t, store.TLS(), client) }

			if _, err := connect(); err != nil {
				t.Fatal(err)
			}
			if state, err := connect(); err != nil || !state.DidResume || certs.CertificateOf(&state) == nil {
				t.Fatalf("resumed: %v, %v; the test would show nothing", state.DidResume, err)
			}
			certstest.WritePair(t, s.server.Issue(t, "gateway", nil), s.config.CertFile, s.config.KeyFile)
			if err := store.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
			if state, err := connect(); err != nil || !state.DidResume {
				t.Errorf("after renewing the server's certificate: resumed %v, %v; want resumed", state.DidResume, err)
			}
			s.withCRL(t, s.clients.RevocationList(t, until.Add(time.Minute)))
			if err := store.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
			if state, err := connect(); err != nil || state.DidResume {
				t.Errorf("after a new revocation list: resumed %v, %v; want a full handshake", state.DidResume, err)
			}
			s.withCRL(t, s.clients.RevocationList(t, until.Add(2*time.Minute), alice))
			if err := store.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
			if state, err := connect(); err == nil {
				t.Errorf("alice got in after her revocation, resumed: %v", state.DidResume)
			}
		})
	}
}

// TestResumptionExpires: a session does not outlive the client's certificate.
func TestResumptionExpires(t *testing.T) {
	s := newSite(t)
	now := time.Now()
	store, err := certs.New(s.config, certs.Deps{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	client := s.client(s.clients.Issue(t, "alice", func(c *x509.Certificate) { c.NotAfter = now.Add(time.Hour) }))
	client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	if _, err := handshake(t, store.TLS(), client); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * time.Hour)
	if state, err := handshake(t, store.TLS(), client); err == nil {
		t.Errorf("the client got in after its certificate expired, resumed: %v", state.DidResume)
	}
}

func TestFiles(t *testing.T) {
	s := newSite(t)
	s.withCRL(t, s.clients.RevocationList(t, time.Now().Add(time.Hour)))
	if got := len(s.open(t).Files()); got != 4 {
		t.Errorf("%d files to watch, want certificate, key, CA and list", got)
	}
}

package certs_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"path/filepath"
	"testing"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/certs"
	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

// named is a site whose listener asks nobody for a certificate, but those who name
// admin.test (required) or something below mesh.test (optional, another authority).
func named(t *testing.T) (s *site, mesh *certstest.CA) {
	t.Helper()
	s = newSite(t)
	mesh = certstest.NewCA(t, "mesh CA")
	file := filepath.Join(t.TempDir(), "mesh.pem")
	certstest.Write(t, file, mesh.PEM())
	s.config.Options = []certs.Options{
		{ServerNames: []string{"admin.test"}, ClientAuth: "required", ClientCAFile: s.config.ClientCAFile},
		{ServerNames: []string{"*.Mesh.test", "plain.admin.test"}, ClientAuth: "optional", ClientCAFile: file},
		{ServerNames: []string{"open.mesh.test"}, ClientAuth: "none"},
	}
	s.config.ClientAuth, s.config.ClientCAFile = "none", ""
	names := []string{"localhost", "admin.test", "a.mesh.test", "a.b.mesh.test", "open.mesh.test", "plain.admin.test", "mesh.test", "x.admin.test"}
	certstest.WritePair(t, s.server.Issue(t, "gateway", func(c *x509.Certificate) { c.DNSNames = names }), s.config.CertFile, s.config.KeyFile)
	return s, mesh
}

// TestOptions: the server name chooses whether and by whom a client is verified.
func TestOptions(t *testing.T) {
	s, mesh := named(t)
	store := s.open(t)
	ours, theirs := s.clients.Issue(t, "alice", nil), mesh.Issue(t, "bob", nil)
	const (
		in = iota // without a certificate that counts
		verified
		refused
	)
	for name, want := range map[string][3]int{ // without a certificate, with ours, with theirs
		"localhost":        {in, in, in},
		"mesh.test":        {in, in, in},
		"x.admin.test":     {in, in, in},
		"admin.test":       {refused, verified, refused},
		"ADMIN.test":       {refused, verified, refused},
		"a.mesh.test":      {in, refused, verified},
		"a.b.mesh.test":    {in, refused, verified},
		"plain.admin.test": {in, refused, verified},
		"open.mesh.test":   {in, in, in},
	} {
		for i, shown := range []*tls.Certificate{nil, &ours, &theirs} {
			client := s.client()
			client.ServerName = name
			if shown != nil {
				client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return shown, nil }
			}
			state, err := handshake(t, store.TLS(), client)
			got := refused
			switch {
			case err == nil && certs.VerifiedLeaf(&state) != nil:
				got = verified
			case err == nil:
				got = in
			}
			if got != want[i] {
				t.Errorf("%s, certificate %d: got %d (%v), want %d", name, i, got, err, want[i])
			}
		}
	}
}

// TestOptionsOwnCertificate: names can have a server certificate of their own.
func TestOptionsOwnCertificate(t *testing.T) {
	s, _ := named(t)
	dir := t.TempDir()
	own := s.server.Issue(t, "admin", func(c *x509.Certificate) { c.DNSNames = []string{"open.mesh.test"} })
	s.config.Options[2].CertFile, s.config.Options[2].KeyFile = filepath.Join(dir, "own.pem"), filepath.Join(dir, "own.key")
	certstest.WritePair(t, own, s.config.Options[2].CertFile, s.config.Options[2].KeyFile)
	store := s.open(t)
	client := s.client()
	client.ServerName = "open.mesh.test"
	if got := servedSerial(t, store.TLS(), client); got != own.Leaf.SerialNumber.Text(16) {
		t.Error("the listener's certificate is shown")
	}
	if got := len(store.Files()); got != 6 {
		t.Errorf("%d files to watch, want two pairs and two authorities", got)
	}
	certstest.Write(t, s.config.Options[2].KeyFile, []byte("junk"))
	if err := store.Reload(t.Context()); err == nil {
		t.Error("a broken key of one name was taken")
	}
}

// TestResumptionStaysWithinOptions: a session that was made under the rules of one
// name is not resumed under those of another, with and without a certificate.
func TestResumptionStaysWithinOptions(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		s, mesh := named(t)
		// An authority that both trust: only the settings differ.
		certstest.Write(t, s.config.Options[1].ClientCAFile, append(mesh.PEM(), s.clients.PEM()...))
		store := s.open(t)
		alice := s.clients.Issue(t, "alice", nil)
		for _, tt := range []struct {
			made, offered string
			resumed       bool
		}{
			{"admin.test", "admin.test", true},
			{"a.mesh.test", "a.b.mesh.test", true},
			{"localhost", "localhost", true},
			{"admin.test", "a.mesh.test", false},
			{"a.mesh.test", "admin.test", false},
			{"admin.test", "localhost", false},
			{"localhost", "admin.test", false},
			{"localhost", "a.mesh.test", false},
			{"open.mesh.test", "a.mesh.test", false},
		} {
			client := s.client(alice)
			client.MinVersion, client.MaxVersion = version, version
			cache := &anyName{tls.NewLRUClientSessionCache(1)}
			client.ClientSessionCache, client.ServerName = cache, tt.made
			if _, err := handshake(t, store.TLS(), client); err != nil {
				t.Fatal(err)
			}
			if _, kept := cache.Get(""); !kept {
				t.Fatal("no session was kept; the test would show nothing")
			}
			client.ServerName = tt.offered
			state, err := handshake(t, store.TLS(), client)
			if err != nil || state.DidResume != tt.resumed {
				t.Errorf("%s: made for %s, offered to %s: resumed %v, %v; want %v", tls.VersionName(version), tt.made, tt.offered, state.DidResume, err, tt.resumed)
			}
			if asked := tt.offered != "localhost"; (certs.VerifiedLeaf(&state) != nil) != asked {
				t.Errorf("%s: made for %s, offered to %s: a verified certificate is there: %v", tls.VersionName(version), tt.made, tt.offered, !asked)
			}
		}
	}
}

// anyName offers the last session to whomever.
type anyName struct{ tls.ClientSessionCache }

func (a *anyName) Get(string) (*tls.ClientSessionState, bool) { return a.ClientSessionCache.Get("") }

func (a *anyName) Put(_ string, session *tls.ClientSessionState) {
	a.ClientSessionCache.Put("", session)
}

// TestNames: hosts belong together if the same is said of their clients.
func TestNames(t *testing.T) {
	s, _ := named(t)
	s.config.Options = append(s.config.Options, certs.Options{ServerNames: []string{"second.test"}, ClientAuth: "required", ClientCAFile: s.config.Options[0].ClientCAFile})
	n := certs.NewNames(s.config)
	for host, same := range map[string]string{
		"admin.test": "second.test", "a.mesh.test": "plain.admin.test", "anything": "localhost", "127.0.0.1": "[::1]", "": "other.test", "open.mesh.test": "localhost",
	} {
		if n.Of(host) != n.Of(same) {
			t.Errorf("%q and %q differ", host, same)
		}
	}
	different := []string{"localhost", "admin.test", "a.mesh.test"}
	for _, a := range different {
		for _, b := range different {
			if (a == b) != (n.Of(a) == n.Of(b)) {
				t.Errorf("%s and %s: same %v", a, b, n.Of(a) == n.Of(b))
			}
		}
	}
	if s.config.Options = nil; certs.NewNames(s.config) != nil {
		t.Error("names of a configuration without options")
	}
}

// TestConnOptions: a connection has the options of the name in its handshake.
func TestConnOptions(t *testing.T) {
	s, _ := named(t)
	store, n := s.open(t), certs.NewNames(s.config)
	client := s.client(s.clients.Issue(t, "alice", nil))
	client.ServerName = "Admin.Test"
	here, there := net.Pipe()
	defer func() { _ = here.Close() }()
	go func() { _ = tls.Client(there, client).Handshake() }()
	conn := store.Server(here)
	if err := conn.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := conn.Options(); got != n.Of("admin.test") || got == n.Of("localhost") {
		t.Errorf("options are %q", got)
	}
}

func TestOptionsConfig(t *testing.T) {
	good := certs.Config{CertFile: "a", KeyFile: "b", Options: []certs.Options{{ServerNames: []string{"a.test", "*.b.test"}, ClientAuth: "required", ClientCAFile: "c"}}}
	if err := good.Validate(); err != nil || !good.AsksForCertificates() {
		t.Fatalf("%v, asks %v", err, good.AsksForCertificates())
	}
	for _, tt := range []struct {
		key    string
		change func(*certs.Options)
	}{
		{"server_names", func(o *certs.Options) { o.ServerNames = nil }},
		{"server_names", func(o *certs.Options) { o.ServerNames = []string{"*"} }},
		{"server_names", func(o *certs.Options) { o.ServerNames = []string{"a.*.test"} }},
		{"server_names", func(o *certs.Options) { o.ServerNames = []string{"192.0.2.1"} }},
		{"server_names", func(o *certs.Options) { o.ServerNames = []string{"a.test."} }},
		{"server_names", func(o *certs.Options) { o.ServerNames = []string{"a.test", "A.test"} }},
		{"client_auth", func(o *certs.Options) { o.ClientAuth = "" }},
		{"client_auth", func(o *certs.Options) { o.ClientAuth = "maybe" }},
		{"client_auth", func(o *certs.Options) { o.ClientAuth = "none" }},
		{"client_ca_file", func(o *certs.Options) { o.ClientCAFile = "" }},
		{"cert_file", func(o *certs.Options) { o.CertFile = "x" }},
		{"ocsp.mode", func(o *certs.Options) { o.OCSP.Mode = "on" }},
	} {
		c := good
		c.Options = []certs.Options{good.Options[0]}
		tt.change(&c.Options[0])
		if problems := setting.Problems(c.Validate()); len(problems) != 1 || problems[0].Key != "options[0]."+tt.key {
			t.Errorf("%s: problems are %v", tt.key, problems)
		}
	}
}

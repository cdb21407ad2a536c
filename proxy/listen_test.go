package proxy

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/engine/meter/metertest"
	"github.com/sallyport/sallyport/proxy/upstream"
)

// certificate makes a self-signed certificate for 127.0.0.1.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spiffe, _ := url.Parse("spiffe://example.org/api")
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(255), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"gateway.test"}, URIs: []*url.URL{spiffe},
		BasicConstraintsValid: true, // an SVID cannot sign
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool,
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestTLSListener(t *testing.T) {
	cert, pool, _ := certificate(t)
	up := listenRaw(t, nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var in *authz.Input
	metrics := meter.New()
	g := startOn(t, tls.NewListener(ln, &tls.Config{
		Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.VerifyClientCertIfGiven, MinVersion: tls.VersionTLS12,
	}), up.addr(), func(_ *Config, _ *Parts, d *Deps) { d.Metrics = metrics }, withDecider(func(i *authz.Input) (*authz.Decision, error) {
		in = i
		return &authz.Decision{Allow: i.Request.Path == "/"}, nil
	}))
	c, err := tls.Dial("tcp", g.addr, &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	resp, _ := exchangeOn(t, c, bufio.NewReader(c), "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if resp.StatusCode != 200 || !hasLine(up.received(), "X-Forwarded-Proto: https") {
		t.Errorf("got %d, upstream received %q", resp.StatusCode, up.received())
	}
	crt := in.TLS.ClientCertificate
	if in.TLS.Version != "TLS 1.3" || in.Request.Scheme != "https" || in.Request.Port != 443 || crt == nil ||
		crt.SPIFFEID != "spiffe://example.org/api" || crt.Serial != "ff" || len(crt.SHA256) != 64 || crt.Subject != "CN=test" {
		t.Errorf("input %+v %+v", in.TLS, crt)
	}
	// A deny with an unread body must reach the client before the end does.
	resp, _ = exchangeOn(t, c, bufio.NewReader(c), "POST /no HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"+strings.Repeat("x", 100000))
	if resp.StatusCode != 403 || !resp.Close {
		t.Errorf("got %d", resp.StatusCode)
	}
	if plain := send(t, g.addr, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); strings.Contains(plain, "200") {
		t.Errorf("plain text on a TLS port: %q", plain)
	}
	if n := metertest.Counts(metrics)["sallyport.tls.handshake.failures listener=public,reason=not_tls"]; n != 1 {
		t.Errorf("the failed handshake was counted %d times", n)
	}
}

func TestTLSUpstream(t *testing.T) {
	cert, pool, ca := certificate(t)
	dir := t.TempDir()
	caFile := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(caFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				answerOK(c, bufio.NewReader(c))
			}()
		}
	}()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	tests := []struct {
		name, host string
		tls        upstream.TLSConfig
		status     int
	}{
		{"known CA", "127.0.0.1", upstream.TLSConfig{CAFile: caFile}, 200},
		{"unknown CA", "127.0.0.1", upstream.TLSConfig{}, 502},
		{"wrong name", "127.0.0.1", upstream.TLSConfig{CAFile: caFile, ServerName: "other.test"}, 502},
		{"given name", "127.0.0.1", upstream.TLSConfig{CAFile: caFile, ServerName: "gateway.test"}, 200},
		{"not verified", "127.0.0.1", upstream.TLSConfig{InsecureSkipVerify: true}, 200},
	}
	for _, tc := range tests {
		g := start(t, "unused", withUpstream(func(u *upstream.Config) {
			u.Endpoints, u.TLS = []string{"https://" + net.JoinHostPort(tc.host, port)}, tc.tls
		}))
		for range 2 {
			if resp, _ := get(t, g.addr, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok"); resp.StatusCode != tc.status {
				t.Errorf("%s: got %d, want %d", tc.name, resp.StatusCode, tc.status)
			}
		}
	}
}

func TestProxyProtocol(t *testing.T) {
	const header = "PROXY TCP4 203.0.113.7 127.0.0.1 4711 80\r\n"
	const request = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 198.51.100.1\r\n\r\n"
	tests := []struct {
		name, trusted, raw, source string
	}{
		{"from a trusted peer", "127.0.0.1", header + request, "203.0.113.7"},
		{"missing from a trusted peer", "127.0.0.1", request, ""},
		{"from another peer", "192.0.2.1", header + request, ""},
		{"none from another peer", "192.0.2.1", request, "127.0.0.1"},
	}
	for _, tc := range tests {
		up := listenRaw(t, nil)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		cfg := ListenerConfig{ProxyProtocol: true, TrustedProxies: []string{tc.trusted}}
		wrapped, err := WithPROXY(ln, cfg)
		if err != nil {
			t.Fatal(err)
		}
		source := ""
		g := startOn(t, wrapped, up.addr(), withListener(func(l *ListenerConfig) { l.ProxyProtocol, l.TrustedProxies = true, cfg.TrustedProxies }),
			withDecider(func(in *authz.Input) (*authz.Decision, error) {
				source = in.Source.IP
				return allow(in)
			}))
		got := send(t, ln.Addr().String(), tc.raw)
		if source != tc.source || strings.HasPrefix(got, "HTTP/1.1 200") != (tc.source != "") {
			t.Errorf("%s: source %q, response %.40q", tc.name, source, got)
		}
		_ = g
	}
}

func TestClientsBehindTLSWhoLeaveAreNoticed(t *testing.T) {
	cert, pool, _ := certificate(t)
	gone := make(chan struct{})
	up := listenRaw(t, func(c net.Conn, r *bufio.Reader) {
		_, _ = r.ReadString('\n')
		_, _ = io.Copy(io.Discard, c)
		close(gone)
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := startOn(t, tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}), up.addr())
	c, err := tls.Dial("tcp", g.addr, &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	eventually(t, "the request arrives", func() bool { return up.received() != "" })
	c.Close()
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		t.Error("the upstream still works for a client that has gone")
	}
}

package certs_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/certs"
	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

// staples is a site whose server certificate names a responder, which says good.
func staples(t *testing.T, mode string) (*site, *responder, *tls.Certificate) {
	t.Helper()
	s, r := newSite(t), newResponder(t)
	s.config.ClientAuth, s.config.ClientCAFile = "", ""
	s.config.Staple = certs.Staple{Mode: mode, IssuerFile: filepath.Join(t.TempDir(), "issuer.pem")}
	certstest.Write(t, s.config.Staple.IssuerFile, s.server.PEM())
	server := s.renew(t, r, nil)
	r.say(s.good(t))
	return s, r, server
}

// renew writes another server certificate.
func (s *site) renew(t *testing.T, r *responder, change func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	c := s.server.Issue(t, "gateway", func(c *x509.Certificate) {
		c.OCSPServer = []string{r.URL}
		if change != nil {
			change(c)
		}
	})
	certstest.WritePair(t, c, s.config.CertFile, s.config.KeyFile)
	return &c
}

func (s *site) good(t *testing.T) func(http.ResponseWriter, *ocsp.Request) {
	return func(w http.ResponseWriter, q *ocsp.Request) {
		_, _ = w.Write(s.server.SignOCSP(t, q.SerialNumber, nil, nil))
	}
}

// shown returns the answer that a client gets with the certificate.
func shown(t *testing.T, s *site, store *certs.Store) ([]byte, error) {
	t.Helper()
	var got []byte
	client := s.client()
	client.VerifyConnection = func(cs tls.ConnectionState) error {
		got = cs.OCSPResponse
		return nil
	}
	_, err := handshake(t, store.TLS(), client)
	return got, err
}

// TestStaple is the table of a responder's answers, and what clients see with each mode.
func TestStaple(t *testing.T) {
	fill := func(change func(*ocsp.Response)) func(*testing.T, *site, *ocsp.Request) []byte {
		return func(t *testing.T, s *site, q *ocsp.Request) []byte {
			return s.server.SignOCSP(t, q.SerialNumber, nil, change)
		}
	}
	for _, tt := range []struct {
		name   string
		answer func(*testing.T, *site, *ocsp.Request) []byte
		good   bool
	}{
		{"good", fill(nil), true},
		{"revoked", fill(func(o *ocsp.Response) { o.Status, o.RevokedAt = ocsp.Revoked, time.Now() }), false},
		{"unknown", fill(func(o *ocsp.Response) { o.Status = ocsp.Unknown }), false},
		{"out of date", fill(func(o *ocsp.Response) { o.NextUpdate = time.Now().Add(-time.Minute) }), false},
		{"of a stranger", func(t *testing.T, _ *site, q *ocsp.Request) []byte {
			return certstest.NewCA(t, "server CA").SignOCSP(t, q.SerialNumber, nil, nil)
		}, false},
		{"garbage", func(*testing.T, *site, *ocsp.Request) []byte { return []byte("<html>") }, false},
	} {
		for _, mode := range []string{"soft", "hard"} {
			t.Run(tt.name+" "+mode, func(t *testing.T) {
				s, r, _ := staples(t, mode)
				r.say(func(w http.ResponseWriter, q *ocsp.Request) { _, _ = w.Write(tt.answer(t, s, q)) })
				store := s.open(t)
				if got := store.Prime(t.Context()); (got == nil) != tt.good {
					t.Errorf("Prime: %v", got)
				}
				staple, err := shown(t, s, store)
				if (err == nil) != (tt.good || mode == "soft") || (staple != nil) != tt.good {
					t.Errorf("stapled %d bytes, %v", len(staple), err)
				}
				if tt.good == store.StapledUntil().IsZero() {
					t.Errorf("stapled until %s", store.StapledUntil())
				}
			})
		}
	}
}

// TestOpenSSLStaple has openssl's responder answer about the server's certificate, and
// openssl's client look at what is stapled.
func TestOpenSSLStaple(t *testing.T) {
	s, r, good := staples(t, "soft")
	revoked := s.server.Issue(t, "gateway", nil)
	front := opensslResponder(t, s.server, *good, revoked)
	s.config.Staple.ResponderURL = front.URL
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		for want, certificate := range map[string]*tls.Certificate{"Cert Status: good": good, "OCSP response: no response sent": &revoked} {
			certstest.WritePair(t, *certificate, s.config.CertFile, s.config.KeyFile)
			store := s.open(t)
			_ = store.Prime(t.Context()) // fails for the revoked one, as TestStaple shows
			ln, err := tls.Listen("tcp", "127.0.0.1:0", store.TLS())
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				c, err := ln.Accept()
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			}()
			out, err := exec.CommandContext(t.Context(), "openssl", "s_client", "-connect", ln.Addr().String(), version, "-status", "-CAfile", s.config.Staple.IssuerFile).CombinedOutput()
			if err != nil || !strings.Contains(string(out), want) {
				t.Errorf("%s: no %q: %v: %.2000s", version, want, err, out)
			}
			_ = ln.Close()
			<-done
		}
	}
	if r.asked.Load() != 0 {
		t.Error("the responder that the certificate names was asked")
	}
}

// TestStapleEnds: an answer is shown until its nextUpdate and not longer.
func TestStapleEnds(t *testing.T) {
	for _, mode := range []string{"soft", "hard"} {
		s, _, _ := staples(t, mode)
		at := time.Now()
		store, err := certs.New(s.config, certs.Deps{Now: func() time.Time { return at }})
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Prime(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, err := shown(t, s, store); err != nil || got == nil {
			t.Errorf("%s: %d bytes, %v", mode, len(got), err)
		}
		at = at.Add(time.Hour)
		if got, err := shown(t, s, store); (err == nil) != (mode == "soft") || got != nil {
			t.Errorf("%s, out of date: %d bytes, %v", mode, len(got), err)
		}
	}
}

// TestStapleRun: answers are renewed before they end, also after the responder was down.
func TestStapleRun(t *testing.T) {
	s, r, _ := staples(t, "hard")
	asked := make(chan struct{}, 100)
	r.say(func(w http.ResponseWriter, q *ocsp.Request) {
		_, _ = w.Write(s.server.SignOCSP(t, q.SerialNumber, nil, func(o *ocsp.Response) {
			o.ThisUpdate, o.NextUpdate = time.Now(), time.Now().Add(2*time.Second)
		}))
		asked <- struct{}{}
	})
	store := s.open(t)
	if !store.Staples() {
		t.Fatal("nothing to run")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- store.Run(ctx) }()
	for range 3 {
		<-asked
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if got, err := shown(t, s, store); err != nil || got == nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// TestStapleRenewedCertificate: with hard, a renewed certificate is in use once there is
// an answer about it; no handshake is refused meanwhile.
func TestStapleRenewedCertificate(t *testing.T) {
	s, r, first := staples(t, "hard")
	store := s.open(t)
	if err := store.Prime(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, _ := shown(t, s, store)
	if err := store.Reload(t.Context()); err != nil || r.asked.Load() != 1 {
		t.Errorf("the same files: %v after %d questions", err, r.asked.Load())
	}
	if again, _ := shown(t, s, store); len(before) == 0 || !bytes.Equal(before, again) {
		t.Error("the answer is another after a reload of the same files")
	}

	second := s.renew(t, r, nil)
	r.say(func(w http.ResponseWriter, _ *ocsp.Request) { w.WriteHeader(http.StatusInternalServerError) })
	if err := store.Reload(t.Context()); err == nil {
		t.Error("a certificate without answer is in use")
	}
	if got := servedSerial(t, store.TLS(), s.client()); got != first.Leaf.SerialNumber.Text(16) {
		t.Error("the old certificate is not served any more")
	}
	asked := make(chan struct{}, 10)
	r.say(func(w http.ResponseWriter, q *ocsp.Request) {
		s.good(t)(w, q)
		asked <- struct{}{}
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- store.Run(ctx) }()
	<-asked
	deadline := time.Now().Add(10 * time.Second)
	for servedSerial(t, store.TLS(), s.client()) != second.Leaf.SerialNumber.Text(16) {
		if time.Now().After(deadline) {
			t.Fatal("the new certificate is not served although there is an answer")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// TestStapleFile: an answer that something else fetches.
func TestStapleFile(t *testing.T) {
	s, r, server := staples(t, "hard")
	s.config.Staple.File = filepath.Join(t.TempDir(), "server.ocsp")
	put := func(change func(*ocsp.Response)) {
		certstest.Write(t, s.config.Staple.File, s.server.SignOCSP(t, server.Leaf.SerialNumber, nil, change))
	}
	put(nil)
	store := s.open(t)
	first, err := shown(t, s, store)
	if err != nil || first == nil || store.Staples() || r.asked.Load() != 0 {
		t.Fatalf("%d bytes, %v, %d questions", len(first), err, r.asked.Load())
	}
	put(func(o *ocsp.Response) { o.NextUpdate = time.Now().Add(2 * time.Hour) })
	if err := store.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if second, _ := shown(t, s, store); second == nil || bytes.Equal(first, second) {
		t.Error("the new answer is not shown")
	}
	for name, spoil := range map[string]func(){
		"out of date": func() { put(func(o *ocsp.Response) { o.NextUpdate = time.Now().Add(-time.Minute) }) },
		"revoked":     func() { put(func(o *ocsp.Response) { o.Status, o.RevokedAt = ocsp.Revoked, time.Now() }) },
		"gone":        func() { _ = os.Remove(s.config.Staple.File) },
		"garbage":     func() { certstest.Write(t, s.config.Staple.File, []byte("junk")) },
		"about another": func() {
			certstest.Write(t, s.config.Staple.File, s.server.SignOCSP(t, s.server.Certificate.SerialNumber, nil, nil))
		},
	} {
		spoil()
		_, err := certs.New(s.config, certs.Deps{})
		soft := s.config
		soft.Staple.Mode = "soft"
		_, softErr := certs.New(soft, certs.Deps{})
		if wantSoft := name == "out of date" || name == "revoked"; err == nil || (softErr == nil) != wantSoft {
			t.Errorf("%s: hard %v, soft %v", name, err, softErr)
		}
		if err := store.Reload(t.Context()); err == nil {
			t.Errorf("%s: reloaded", name)
		}
	}
	if got, err := shown(t, s, store); err != nil || got == nil {
		t.Errorf("the last good answer is lost: %v", err)
	}
}

// TestMustStaple: a certificate that demands an answer is not shown without one.
func TestMustStaple(t *testing.T) {
	s, r, _ := staples(t, "")
	s.config.Staple = certs.Staple{}
	feature, err := asn1.Marshal([]int{5})
	if err != nil {
		t.Fatal(err)
	}
	s.renew(t, r, func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}, Value: feature}}
	})
	if _, err := certs.New(s.config, certs.Deps{}); err == nil {
		t.Error("taken without staple.mode")
	}
	s.config.Staple.Mode = "hard"
	if _, err := certs.New(s.config, certs.Deps{}); err == nil {
		t.Error("taken without its issuer's certificate")
	}
}

func TestStapleConfig(t *testing.T) {
	good := certs.Config{CertFile: "a", KeyFile: "b", Staple: certs.Staple{Mode: "hard", ResponderURL: "http://ocsp.example/"}}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for key, change := range map[string]func(*certs.Config){
		"staple.mode":          func(c *certs.Config) { c.Staple = certs.Staple{File: "x"} },
		"staple.responder_url": func(c *certs.Config) { c.Staple.File = "x" },
		"staple.timeout":       func(c *certs.Config) { c.Staple.Timeout = -1 },
		"options[0].staple.mode": func(c *certs.Config) {
			c.Options = []certs.Options{{ServerNames: []string{"a.test"}, ClientAuth: "none", Staple: certs.Staple{Mode: "soft"}}}
		},
	} {
		c := good
		change(&c)
		if problems := setting.Problems(c.Validate()); len(problems) != 1 || problems[0].Key != key {
			t.Errorf("%s: problems are %v", key, problems)
		}
	}
}

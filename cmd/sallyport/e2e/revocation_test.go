//go:build e2e

package e2e_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

// TestCertificatesOfTools shows the gateway client certificates with curl and openssl:
// good ones, and each kind that must not get in.
func TestCertificatesOfTools(t *testing.T) {
	for _, tool := range []string{"curl", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool + " is not installed")
		}
	}
	ca, stranger := certstest.NewCA(t, "clients"), certstest.NewCA(t, "clients")
	var taken atomic.Pointer[big.Int] // whose serial number the responder calls revoked
	responder := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the gateway has gone
		}
		q, err := ocsp.ParseRequest(body)
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = w.Write(ca.SignOCSP(t, q.SerialNumber, nil, func(o *ocsp.Response) {
			if q.SerialNumber.Cmp(taken.Load()) == 0 {
				o.Status, o.RevokedAt = ocsp.Revoked, time.Now().Add(-time.Minute)
			}
		}))
	}))
	t.Cleanup(responder.Close)
	issue := func(by *certstest.CA, name string, change func(*x509.Certificate)) tls.Certificate {
		return by.Issue(t, name, func(c *x509.Certificate) {
			c.OCSPServer = []string{responder.URL}
			if change != nil {
				change(c)
			}
		})
	}
	listed, called := issue(ca, "peer", nil), issue(ca, "peer", nil)
	taken.Store(called.Leaf.SerialNumber)

	s := newSite(t, paths)
	certstest.Write(t, s.file("ca.pem"), ca.PEM())
	certstest.Write(t, s.file("ca.crl"), ca.RevocationList(t, time.Now().Add(time.Hour), listed))
	text := strings.Replace(s.config(0, fromPaths), "key_file: server.key",
		"key_file: server.key, client_ca_file: ca.pem, crl_files: [ca.crl], ocsp: {mode: hard}", 1)
	text = strings.Replace(text, "  dev:", "  mesh: {mtls: {allowed_subjects: [CN=peer]}}\n  dev:", 1)
	text = strings.Replace(text, "authenticate: [dev]", "authenticate: [mesh, dev]", 1)
	write(t, s.file("sallyport.yaml"), text)
	write(t, s.file("policies/gateway.rego"), `package gateway

decision := {"allow": input.identity.kind == "mtls"}
`)
	s.start(t)

	for name, tt := range map[string]struct {
		client tls.Certificate
		status string // of curl; 000: no answer
	}{
		"good":            {issue(ca, "peer", nil), "200"},
		"another name":    {issue(ca, "other", nil), "401"},
		"revoked by list": {listed, "000"},
		"revoked by OCSP": {called, "000"},
		"expired":         {issue(ca, "peer", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), "000"},
		"wrong CA":        {issue(stranger, "peer", nil), "000"},
		"no responder":    {ca.Issue(t, "peer", nil), "000"},
	} {
		certstest.WritePair(t, tt.client, s.file("client.pem"), s.file("client.key"))
		out, _ := tool(t, "curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", "--cert", s.file("client.pem"), "--key", s.file("client.key"), "https://"+s.addr+"/v1/orders/1")
		if out != tt.status {
			t.Errorf("%s: curl got %q, want %q", name, out, tt.status)
		}
		for _, version := range []string{"-tls1_2", "-tls1_3"} {
			out, _ := tool(t, "openssl", "s_client", "-connect", s.addr, version, "-quiet", "-cert", s.file("client.pem"), "-key", s.file("client.key"))
			if answered := strings.Contains(out, "HTTP/1.1 "+tt.status); answered != (tt.status != "000") {
				t.Errorf("%s: openssl s_client %s got %.300q, want status %s", name, version, out, tt.status)
			}
		}
	}
	page := metrics(t, s.admin)
	for reason, n := range map[string]int{"revoked": 6, "expired": 3, "unknown_authority": 3, "status_unknown": 3} { // curl and two versions of openssl each
		if want := fmt.Sprintf(`sallyport_tls_handshake_failures_total{listener="public",reason=%q} %d`, reason, n); !strings.Contains(page, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if !strings.Contains(s.gateway.stderr.String(), `"reason":"revoked"`) {
		t.Error("the log says nothing of the revoked certificate")
	}
}

// TestStapling looks with openssl at the OCSP answer that the gateway staples: fetched
// before the first client, renewed in the background, for a renewed certificate too.
func TestStapling(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	ca := certstest.NewCA(t, "servers")
	var asked atomic.Int64
	responder := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		q, err := ocsp.ParseRequest(body)
		if err != nil {
			t.Error(err)
			return
		}
		asked.Add(1)
		_, _ = w.Write(ca.SignOCSP(t, q.SerialNumber, nil, func(o *ocsp.Response) {
			o.ThisUpdate, o.NextUpdate = time.Now(), time.Now().Add(3*time.Second)
		}))
	}))
	t.Cleanup(responder.Close)
	s := newSite(t, paths)
	certstest.Write(t, s.file("ca.pem"), ca.PEM())
	renew := func() string {
		c := ca.Issue(t, "gateway", func(c *x509.Certificate) { c.OCSPServer = []string{responder.URL} })
		certstest.WritePair(t, c, s.file("server.pem"), s.file("server.key"))
		return strings.ToUpper(c.Leaf.SerialNumber.Text(16))
	}
	serial := renew()
	write(t, s.file("sallyport.yaml"), strings.Replace(s.config(0, fromPaths), "key_file: server.key", "key_file: server.key, staple: {mode: hard, issuer_file: ca.pem}", 1))
	s.start(t)
	look := func() string {
		out, _ := tool(t, "openssl", "s_client", "-connect", s.addr, "-status", "-CAfile", s.file("ca.pem"))
		return out
	}
	good := func(out string) bool {
		return strings.Contains(out, "Cert Status: good") && strings.Contains(out, "Serial Number: "+strings.Repeat("0", len(serial)%2)+serial)
	}
	if out := look(); !good(out) {
		t.Errorf("at the start: %.2000s", out)
	}
	eventually(t, 10*time.Second, "the answer is renewed", func() bool { return asked.Load() >= 4 })
	if out := look(); !good(out) {
		t.Errorf("after renewal: %.2000s", out)
	}
	serial = renew()
	eventually(t, effect, "the new certificate is shown with its answer", func() bool { return good(look()) })
}

// metrics returns the page for Prometheus.
func metrics(t *testing.T, admin string) string {
	t.Helper()
	resp, err := http.Get("http://" + admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// tool runs a command that talks to the gateway, with a request as its input.
func tool(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader("GET /v1/orders/1 HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")
	out, err := cmd.Output()
	return string(out), err
}

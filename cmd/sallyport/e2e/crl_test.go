//go:build e2e

package e2e_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// pki is an authority that openssl keeps.
type pki struct{ dir string }

const pkiConfig = `[req]
distinguished_name = dn
x509_extensions = v3
[dn]
[v3]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[kept]
database = index.txt
crlnumber = crlnumber
certificate = ca.pem
private_key = ca.key
default_md = sha256
`

func newPKI(t *testing.T) *pki {
	t.Helper()
	p := &pki{t.TempDir()}
	write(t, p.file("pki.cnf"), pkiConfig)
	write(t, p.file("index.txt"), "")
	write(t, p.file("crlnumber"), "01\n")
	p.openssl(t, "req", "-config", "pki.cnf", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key", "-out", "ca.pem",
		"-subj", "/CN=clients", "-days", "1")
	return p
}

func (p *pki) file(name string) string { return filepath.Join(p.dir, name) }

func (p *pki) openssl(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "openssl", args...)
	cmd.Dir = p.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("openssl %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// issue makes NAME.pem and NAME.key, for CN=peer.
func (p *pki) issue(t *testing.T, name, serial string) {
	t.Helper()
	p.openssl(t, "req", "-config", "pki.cnf", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", name+".key", "-out", name+".csr", "-subj", "/CN=peer")
	p.openssl(t, "x509", "-req", "-in", name+".csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-set_serial", serial, "-days", "1", "-out", name+".pem")
}

// list returns the authority's list of now, DER, good for an hour.
func (p *pki) list(t *testing.T) []byte {
	t.Helper()
	p.openssl(t, "ca", "-config", "pki.cnf", "-name", "kept", "-gencrl", "-crlhours", "1", "-out", "list.pem")
	p.openssl(t, "crl", "-in", "list.pem", "-outform", "DER", "-out", "list.crl")
	der, err := os.ReadFile(p.file("list.crl"))
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestFetchedRevocationLists has the gateway fetch the lists that openssl makes: with no
// server nobody gets in, a revocation counts without a reload, an older list does not take
// it back, and a reload of the configuration keeps the list as long as its URL.
func TestFetchedRevocationLists(t *testing.T) {
	for _, tool := range []string{"curl", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool + " is not installed")
		}
	}
	p := newPKI(t)
	p.issue(t, "alice", "7")
	p.issue(t, "bob", "8")
	older := p.list(t)
	p.openssl(t, "ca", "-config", "pki.cnf", "-name", "kept", "-revoke", "bob.pem")
	newer := p.list(t)

	var served atomic.Pointer[[]byte] // nil: the server has a fault
	var answers atomic.Int64          // with a list
	lists := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		list := served.Load()
		if list == nil {
			http.Error(w, "no", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write(*list)
		answers.Add(1)
	}))
	t.Cleanup(lists.Close)

	s := newSite(t, paths)
	ca, err := os.ReadFile(p.file("ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, s.file("ca.pem"), string(ca))
	write(t, s.file("policies/gateway.rego"), `package gateway

decision := {"allow": input.identity.kind == "mtls"}
`)
	configure := func(crl string) {
		text := strings.Replace(s.config(0, fromPaths), "key_file: server.key", "key_file: server.key, client_ca_file: ca.pem"+crl, 1)
		text = strings.Replace(text, "  dev:", "  mesh: {mtls: {allowed_subjects: [CN=peer]}}\n  dev:", 1)
		write(t, s.file("sallyport.yaml"), strings.Replace(text, "authenticate: [dev]", "authenticate: [mesh, dev]", 1))
	}
	get := func(who string) string {
		out, _ := tool(t, "curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", "--cert", p.file(who+".pem"), "--key", p.file(who+".key"), "https://"+s.addr+"/v1/orders/1")
		return out
	}
	const url = "/clients.crl"
	configure(", crl: {urls: [" + lists.URL + url + "], refresh_interval: 1s}")
	s.start(t)
	if got := get("alice"); got != "000" {
		t.Errorf("without a list: alice got %q", got)
	}
	page := metrics(t, s.admin)
	for _, want := range []string{
		`sallyport_tls_handshake_failures_total{listener="public",reason="status_unknown"} 1`,
		`sallyport_tls_revocation_list_next_update_seconds{listener="public"} 0`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if log := s.gateway.stderr.String(); !strings.Contains(log, `"reason":"status_unknown"`) || !strings.Contains(log, lists.URL+url) {
		t.Error("the log says nothing of the missing list")
	}

	served.Store(&older)
	eventually(t, 20*time.Second, "alice gets in", func() bool { return get("alice") == "200" })
	if got := get("bob"); got != "200" {
		t.Errorf("bob, not revoked yet, got %q", got)
	}
	served.Store(&newer)
	eventually(t, 20*time.Second, "bob is revoked", func() bool { return get("bob") == "000" })
	served.Store(&older)
	n := answers.Load()
	eventually(t, 20*time.Second, "the older list is served again", func() bool { return answers.Load() > n+1 })
	if got := get("bob"); got != "000" {
		t.Errorf("bob, after the older list: %q", got)
	}

	served.Store(nil)
	configure(", min_version: '1.3', crl: {urls: [" + lists.URL + url + "], mode: soft}")
	eventually(t, 20*time.Second, "the configuration is reloaded", func() bool {
		return strings.Contains(metrics(t, s.admin), `sallyport_config_reloads_total{outcome="ok"} 1`)
	})
	if alice, bob := get("alice"), get("bob"); alice != "200" || bob != "000" {
		t.Errorf("after a reload without the server: alice %q, bob %q", alice, bob)
	}
	configure("")
	eventually(t, 20*time.Second, "the list goes with its URL", func() bool { return get("bob") == "200" })
}

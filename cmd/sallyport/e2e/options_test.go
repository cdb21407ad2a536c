//go:build e2e

package e2e_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

// TestTLSOptions has curl and openssl try what server names are for: a certificate is
// required for one name, and nothing of a connection for another gets around that.
func TestTLSOptions(t *testing.T) {
	for _, tool := range []string{"curl", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool + " is not installed")
		}
	}
	admins, partners := certstest.NewCA(t, "admins"), certstest.NewCA(t, "partners")
	s := newSite(t, paths)
	certstest.Write(t, s.file("admins.pem"), admins.PEM())
	certstest.Write(t, s.file("partners.pem"), partners.PEM())
	text := strings.Replace(s.config(0, fromPaths), "key_file: server.key}", `key_file: server.key
      options:
        - {server_names: [admin.test], client_auth: required, client_ca_file: admins.pem}
        - {server_names: ["*.partner.test"], client_auth: optional, client_ca_file: partners.pem}`, 1)
	text = strings.Replace(text, "tls: {cert_file: server.pem, ", "tls:\n      cert_file: server.pem\n      ", 1)
	write(t, s.file("sallyport.yaml"), text)
	s.start(t)

	pair := func(name string, c tls.Certificate) []string {
		certstest.WritePair(t, c, s.file(name+".pem"), s.file(name+".key"))
		return []string{"--cert", s.file(name + ".pem"), "--key", s.file(name + ".key")}
	}
	admin, partner := pair("admin", admins.Issue(t, "admin", nil)), pair("partner", partners.Issue(t, "partner", nil))
	curl := func(sni, host string, with ...string) string {
		out, _ := tool(t, "curl", append([]string{
			"-sk", "-o", "/dev/null", "-w", "%{http_code}", "--connect-to", "::" + s.addr, "-H", "Authorization: Bearer " + s.token, "-H", "Host: " + host,
			"https://" + sni + "/v1/orders/1",
		}, with...)...)
		return out
	}
	for _, tt := range []struct {
		sni, host string
		with      []string
		status    string // 000: no answer
	}{
		{"open.test", "open.test", nil, "200"},
		{"open.test", "other.test:8443", nil, "200"},
		{"open.test", "admin.test", nil, "421"},
		{"open.test", "ADMIN.test:443", nil, "421"},
		{"open.test", "a.partner.test", nil, "421"},
		{"open.test", "admin.test", admin, "421"},
		{"admin.test", "admin.test", nil, "000"},
		{"admin.test", "admin.test", partner, "000"},
		{"admin.test", "admin.test", admin, "200"},
		{"ADMIN.test", "admin.test", admin, "200"},
		{"admin.test", "open.test", admin, "421"},
		{"admin.test", "a.partner.test", admin, "421"},
		{"a.partner.test", "b.a.partner.test", nil, "200"},
		{"a.partner.test", "a.partner.test", partner, "200"},
		{"a.partner.test", "a.partner.test", admin, "000"},
		{"a.partner.test", "admin.test", partner, "421"},
		{"a.partner.test", "partner.test", partner, "421"},
	} {
		if got := curl(tt.sni, tt.host, tt.with...); got != tt.status {
			t.Errorf("SNI %s, Host %s, %v: curl got %s, want %s", tt.sni, tt.host, tt.with, got, tt.status)
		}
	}

	// Sessions, as openssl keeps them: those of one name are not resumed for another.
	openssl := func(version, sni string, with ...string) string {
		out, _ := tool(t, "openssl", append([]string{"s_client", "-connect", s.addr, version, "-servername", sni, "-ign_eof"}, with...)...)
		return out
	}
	withAdmin := []string{"-cert", s.file("admin.pem"), "-key", s.file("admin.key")}
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		for _, tt := range []struct {
			made, offered string
			with          []string
			want          string // of openssl; the others are not there
		}{
			{"open.test", "open.test", nil, "Reused, TLS"},
			{"admin.test", "admin.test", withAdmin, "Reused, TLS"},
			{"open.test", "a.partner.test", nil, "New, TLS"},
			{"admin.test", "open.test", withAdmin, "New, TLS"},
			{"open.test", "admin.test", withAdmin, "New, TLS"},
		} {
			if out := openssl(version, tt.made, append(tt.with, "-sess_out", s.file("session"))...); !strings.Contains(out, "New, TLS") {
				t.Fatalf("%s %s: %.2000s", version, tt.made, out)
			}
			out := openssl(version, tt.offered, append(tt.with, "-sess_in", s.file("session"))...)
			if !strings.Contains(out, tt.want) || !strings.Contains(out, "HTTP/1.1 ") {
				t.Errorf("%s: session of %s offered to %s: no %q in %.3000s", version, tt.made, tt.offered, tt.want, out)
			}
		}
		openssl(version, "open.test", "-sess_out", s.file("session"))
		if out := openssl(version, "admin.test", "-sess_in", s.file("session")); strings.Contains(out, "HTTP/1.1 ") {
			t.Errorf("%s: a session without certificate got to admin.test: %.3000s", version, out)
		}
	}

	// Another authority for one name: open connections stay, new ones are verified anew.
	client := func(c tls.Certificate) *http.Client {
		return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
			RootCAs: s.ca.pool, Certificates: []tls.Certificate{c}, ServerName: "admin.test", InsecureSkipVerify: true,
		}}}
	}
	get := func(c *http.Client) int { // 0: no answer
		req := s.request()
		req.Host = "admin.test"
		resp, err := c.Do(req)
		if err != nil {
			return 0
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body) // the connection is kept
		return resp.StatusCode
	}
	open := client(admins.Issue(t, "before", nil))
	defer open.CloseIdleConnections()
	if got := get(open); got != 200 {
		t.Fatalf("status %d", got)
	}
	next := certstest.NewCA(t, "next")
	certstest.Write(t, s.file("admins.pem"), next.PEM())
	eventually(t, effect, "the new authority counts", func() bool {
		c := client(next.Issue(t, "after", nil))
		defer c.CloseIdleConnections()
		return get(c) == 200
	})
	if got := get(open); got != 200 {
		t.Errorf("the open connection got %d", got)
	}
	if got := curl("admin.test", "admin.test", admin...); got != "000" {
		t.Errorf("a client of the authority that was removed got %s", got)
	}

	// A reload that changes what a name asks for: connections from before are sent away.
	write(t, s.file("sallyport.yaml"), strings.Replace(text, "server_names: [admin.test], client_auth: required", "server_names: [admin.test], client_auth: optional", 1))
	eventually(t, effect, "the connection is for other options", func() bool { return get(open) == http.StatusMisdirectedRequest })
}

package app

import (
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

// TestExpiry: the metrics tell when certificates and revocation lists end, of files that
// were exchanged as well.
func TestExpiry(t *testing.T) {
	dir := files(t)
	file := filepath.Join(dir, "sallyport.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const listener = "  - name: public\n"
	text = []byte(strings.Replace(string(text), listener, listener+
		"    tls: {cert_file: server.pem, key_file: server.key, client_ca_file: ca.pem, client_auth: optional, crl_files: [ca.crl]}\n", 1))
	certstest.Write(t, file, text)
	ca := certstest.NewCA(t, "authority")
	certstest.Write(t, filepath.Join(dir, "ca.pem"), ca.PEM())
	now := time.Now().Truncate(time.Second)
	renew := func(certificate, list time.Duration) {
		c := ca.Issue(t, "localhost", func(c *x509.Certificate) { c.NotAfter = now.Add(certificate) })
		certstest.WritePair(t, c, filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key"))
		certstest.Write(t, filepath.Join(dir, "ca.crl"), ca.RevocationList(t, now.Add(list)))
	}
	renew(time.Hour, 2*time.Hour)
	a := build(t, dir)
	run(t, a)
	page := func() string {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+a.current.Load().cfg.Admin.Address+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	tells := func(page, name string, end time.Time) bool {
		for line := range strings.Lines(page) {
			if value, ok := strings.CutPrefix(line, name+`{listener="public"} `); ok {
				f, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
				return err == nil && int64(f) == end.Unix()
			}
		}
		return false
	}
	wait := func(certificate, list time.Duration) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); ; <-time.After(10 * time.Millisecond) {
			got := page()
			if tells(got, "sallyport_tls_certificate_not_after_seconds", now.Add(certificate)) && tells(got, "sallyport_tls_revocation_list_next_update_seconds", now.Add(list)) {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("the metrics do not say %s and %s from %d: %s", certificate, list, now.Unix(), got)
			}
		}
	}
	wait(time.Hour, 2*time.Hour)
	renew(3*time.Hour, 30*time.Minute)
	wait(3*time.Hour, 30*time.Minute)
}

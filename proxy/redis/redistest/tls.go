package redistest

import (
	"crypto/x509"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/certs/certstest"
	"github.com/sallyport/sallyport/proxy/redis"
)

// Way is how somebody tries to reach a Redis.
type Way struct {
	Name    string
	Server  redis.Server
	Timeout time.Duration
	Refused *regexp.Regexp // what the error says; nil: it opens
}

// Ways runs a Redis with TLS and a password, and returns how it is reached, and how neither
// it nor others that are not what they should be are. Write puts a record into the one
// that is.
func Ways(t testing.TB) (ways []Way, write func(key, value string)) {
	t.Helper()
	own, strange := certstest.NewCA(t, "own"), certstest.NewCA(t, "strange")
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		certstest.Write(t, filepath.Join(dir, name), data)
		return filepath.Join(dir, name)
	}
	trusted, untrusted := file("ca.pem", own.PEM()), file("strange.pem", strange.PEM())
	right, wrong := file("password", []byte(Password+"\n")), file("wrong", []byte("wrong\n"))
	good := startTLS(t, own, "", nil)
	demanding := startTLS(t, own, "tls-auth-clients yes\ntls-ca-cert-file "+trusted+"\n", nil)
	misnamed := startTLS(t, own, "", func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = []string{"redis.example"}, nil })
	plain := Start(t, t.TempDir(), ByPassword)
	way := func(name string, s *Server, refused string, change func(*redis.Server)) {
		w := Way{
			Name: name, Server: redis.Server{Address: s.Address, PasswordFile: right, TLS: true, CAFile: trusted}, Timeout: patience,
			Refused: regexp.MustCompile(refused),
		}
		change(&w.Server)
		ways = append(ways, w)
	}
	way("with its authority", good, "", func(*redis.Server) {})
	ways[0].Refused = nil
	way("with another authority", good, "unknown authority", func(s *redis.Server) { s.CAFile = untrusted })
	way("with the system's authorities", good, "unknown authority", func(s *redis.Server) { s.CAFile = "" })
	way("by another name than its certificate's", misnamed, "cannot validate certificate for 127.0.0.1", func(*redis.Server) {})
	way("without the certificate that it demands", demanding, "certificate required", func(*redis.Server) {})
	way("without TLS", good, "EOF|reset|broken pipe", func(s *redis.Server) { s.TLS, s.CAFile = false, "" })
	way("with a wrong password", good, "WRONGPASS", func(s *redis.Server) { s.PasswordFile = wrong })
	way("without a password", good, "NOAUTH", func(s *redis.Server) { s.PasswordFile = "" })
	way("with TLS at a port without", plain, "deadline|timeout", func(*redis.Server) {})
	ways[len(ways)-1].Timeout = 200 * time.Millisecond // it waits for a line to end
	c, err := redis.New(ways[0].Server, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return ways, func(key, value string) {
		t.Helper()
		if err := c.Set(t.Context(), key, value, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

func startTLS(t testing.TB, ca *certstest.CA, config string, change func(*x509.Certificate)) *Server {
	t.Helper()
	dir := t.TempDir()
	certstest.WritePair(t, ca.Issue(t, "redis", change), filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key"))
	return Start(t, dir, OverTLS+"requirepass "+Password+"\n"+config)
}

// Package redistest runs a real Redis for a test, which may die, hang, come back with
// what it had and come back without. Nothing but tests imports it.
package redistest

import (
	"bufio"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

// Password is what OverTLS and ByPassword demand.
const Password = "s3cret"

// What a server is configured with beside what Start gives it. ${PORT} is its port.
const (
	Open       = "port ${PORT}\n"
	ByPassword = Open + "requirepass " + Password + "\n"
	// OverTLS has no port without TLS. The certificate is in server.pem, its key in
	// server.key of the server's folder.
	OverTLS = `port 0
tls-port ${PORT}
tls-cert-file server.pem
tls-key-file server.key
tls-auth-clients no
`
)

// patience is for a machine that is busy with other things.
const patience = 20 * time.Second

// Server is a Redis that writes each change down before it answers.
type Server struct {
	Address string // host:port
	Dir     string // its folder

	t      testing.TB
	config string
	cmd    *exec.Cmd
}

// Start runs a server whose files are in dir until the test ends. The test is skipped
// where Redis is not installed.
func Start(t testing.TB, dir, config string) *Server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is not installed, which this test runs; do it with: make deps")
	}
	s := &Server{Dir: dir, t: t, config: config}
	t.Cleanup(s.Kill)
	for range 20 { // somebody else may take the port first
		s.choose()
		if s.run() {
			return s
		}
	}
	t.Fatal("Redis does not start")
	return nil
}

// choose takes a port below those that the kernel gives to whoever names none.
func (s *Server) choose() {
	s.t.Helper()
	port := strconv.Itoa(10_000 + rand.IntN(22_000)) //nolint:gosec // no secret
	s.Address = net.JoinHostPort("127.0.0.1", port)
	text := os.Expand(s.config, func(string) string { return port }) +
		"\nbind 127.0.0.1\ndir " + s.Dir + "\nsave \"\"\nappendonly yes\nappendfsync always\n"
	certstest.Write(s.t, filepath.Join(s.Dir, "redis.conf"), []byte(text))
}

// run reports whether the server takes questions.
func (s *Server) run() bool {
	s.t.Helper()
	s.cmd = exec.CommandContext(s.t.Context(), "redis-server", "redis.conf")
	s.cmd.Dir, s.cmd.Stderr = s.Dir, os.Stderr // where the names of its other files begin
	said, err := s.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	slow := time.AfterFunc(patience, func() { _ = s.cmd.Process.Kill() })
	defer slow.Stop()
	lines := bufio.NewReader(said)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			_ = s.cmd.Wait()
			return false
		}
		if strings.Contains(line, "Ready to accept connections") {
			go func() { _, _ = io.Copy(io.Discard, lines) }() // until it dies
			return true
		}
	}
}

// Restart runs a server that died again, at its address and with what it wrote down.
func (s *Server) Restart() {
	s.t.Helper()
	if !s.run() {
		s.t.Fatal("Redis does not start again")
	}
}

// Kill ends the server, which has no time to do anything more.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// Empty removes what a dead server wrote down.
func (s *Server) Empty() {
	s.t.Helper()
	if err := os.RemoveAll(filepath.Join(s.Dir, "appendonlydir")); err != nil {
		s.t.Fatal(err)
	}
}

// Signal sends the server a signal.
func (s *Server) Signal(sig os.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// Client returns a client of a server that is Open or ByPassword. It is closed when the
// test ends.
func (s *Server) Client() *redis.Client {
	o := &redis.Options{Addr: s.Address, DialerRetries: 1}
	if strings.Contains(s.config, "requirepass") {
		o.Password = Password
	}
	c := redis.NewClient(o)
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

// File writes a file into the server's folder and returns its path.
func (s *Server) File(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.Dir, name)
	certstest.Write(s.t, path, []byte(text))
	return path
}

// Retry asks again while the error is away, which says that Redis did not answer, as long
// as a busy machine may need, and returns the last one.
func Retry(ask func() error, away error) error {
	err := ask()
	for deadline := time.Now().Add(patience); errors.Is(err, away) && time.Now().Before(deadline); {
		err = ask()
	}
	return err
}

// Reloader is what has a password in a file.
type Reloader interface {
	Files() []string
	Reload(ctx context.Context) error
}

// ReadsPassword checks that r watches a file and reads it again, for which it is removed.
func ReadsPassword(t testing.TB, r Reloader, file string) {
	t.Helper()
	if !slices.Contains(r.Files(), file) {
		t.Errorf("files %q, want the password among them", r.Files())
	}
	if err := r.Reload(t.Context()); err != nil {
		t.Error(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := r.Reload(t.Context()); err == nil {
		t.Error("a password that is not there was read")
	}
}

//go:build e2e

package e2e_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// binary is the gateway as users run it, built by the Makefile.
func binary(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../../bin/sallyport")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v; run make build", err)
	}
	return path
}

// output collects what a process writes.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// process is a running sallyport.
type process struct {
	cmd            *exec.Cmd
	stdout, stderr *output
	done           chan struct{}
	err            error
}

// start runs sallyport with args until the test ends or stop is called.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{stdout: &output{}, stderr: &output{}, done: make(chan struct{})}
	p.cmd = exec.Command(binary(t), args...)
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.stop(t)
		if t.Failed() {
			t.Logf("stderr of sallyport %s:\n%s", strings.Join(args, " "), p.stderr)
		}
	})
	return p
}

// stop ends the process with SIGTERM and waits for it.
func (p *process) stop(t *testing.T) {
	t.Helper()
	select {
	case <-p.done:
		return
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may just have ended
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		_ = p.cmd.Process.Kill() // reported below
		t.Errorf("pid %d did not end within 30 s of SIGTERM", p.cmd.Process.Pid)
	}
}

// freeAddress returns an address of loopback that was free a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	// Below the ports that Linux gives to whoever names none: one of those may be
	// another server's, which answers in the gateway's place, before it is used here.
	for range 100 {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(10_000+mathrand.IntN(22_000))))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

// eventually polls until ok, and fails the test after the time given.
func eventually(t *testing.T, within time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok() {
			return time.Since(begin)
		}
		if time.Since(begin) > within {
			t.Fatalf("%s: not within %v", what, within)
		}
		<-tick.C
	}
}

// status returns the status of a GET, 0 when there was no answer.
func status(url string) int {
	resp, err := http.Get(url)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body) // only the status counts
	return resp.StatusCode
}

func waitReady(t *testing.T, admin string) {
	t.Helper()
	eventually(t, 15*time.Second, "ready", func() bool { return status("http://"+admin+"/readyz") == 200 })
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	next := path + ".next"
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil { // as careful writers do
		t.Fatal(err)
	}
}

// load sends requests over many kept-alive connections until stopped.
type load struct {
	sent, failed atomic.Int64
	mu           sync.Mutex
	examples     []string
	cancel       context.CancelFunc
	wg           sync.WaitGroup
}

// drive starts connections clients that repeat the request and expect accept to
// hold for every answer.
func drive(t *testing.T, connections int, client func() *http.Client, request func() *http.Request, accept func(*http.Response, []byte) error) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel}
	for range connections {
		l.wg.Go(func() { l.worker(ctx, client(), request, accept) })
	}
	t.Cleanup(func() { l.end(t) })
	eventually(t, 10*time.Second, "load flows", func() bool { return l.sent.Load() > int64(connections) })
	return l
}

func (l *load) worker(ctx context.Context, c *http.Client, request func() *http.Request, accept func(*http.Response, []byte) error) {
	defer c.CloseIdleConnections()
	for ctx.Err() == nil {
		resp, err := c.Do(request())
		if err == nil {
			var body []byte
			if body, err = io.ReadAll(resp.Body); err == nil {
				err = accept(resp, body)
			}
			resp.Body.Close()
		}
		l.sent.Add(1)
		if err != nil {
			l.failed.Add(1)
			l.mu.Lock()
			if len(l.examples) < 5 {
				l.examples = append(l.examples, err.Error())
			}
			l.mu.Unlock()
		}
	}
}

// end stops the load and fails the test if any request failed.
func (l *load) end(t *testing.T) {
	t.Helper()
	l.cancel()
	l.wg.Wait()
	if n := l.failed.Swap(0); n > 0 {
		t.Errorf("%d of %d requests failed, such as %q", n, l.sent.Load(), l.examples)
	}
}

func accept(want int) func(*http.Response, []byte) error {
	return func(resp *http.Response, body []byte) error {
		if resp.StatusCode != want {
			return fmt.Errorf("status %d: %s", resp.StatusCode, body)
		}
		return nil
	}
}

func oneConnection(trust *x509.CertPool) func() *http.Client {
	return func() *http.Client {
		return &http.Client{
			Timeout: 10 * time.Second,
			Transport: &http.Transport{
				MaxIdleConnsPerHost: 1, MaxConnsPerHost: 1,
				TLSClientConfig: &tls.Config{RootCAs: trust},
			},
		}
	}
}

// authority is a certificate authority made for one test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "e2e"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{cert: cert, key: key, pool: x509.NewCertPool()}
	a.pool.AddCert(cert)
	return a
}

// issue returns a server certificate for loopback, and for the names by which a
// browser is told to find it, with the serial number, and its key, both PEM.
func (a *authority) issue(t *testing.T, serial int64) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "gateway"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"app.test", "www.test", "shop.test", "*.shop.test"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, k.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw}))
}

func (a *authority) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
}

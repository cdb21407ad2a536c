package app

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/demo"
)

// files writes the demo's files, for any free ports, and returns their folder.
func files(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	at := demo.Addresses{Gateway: free(t), Admin: free(t), Tokens: "127.0.0.1:1", Upstream: "127.0.0.1:1"}
	if err := demo.WriteFiles(dir, at, time.Now()); err != nil {
		t.Fatal(err)
	}
	return dir
}

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func build(t *testing.T, dir string) *App {
	t.Helper()
	a, err := New(t.Context(), Options{ConfigFile: filepath.Join(dir, "sallyport.yaml"), Stdout: io.Discard, Stderr: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// run serves in the background until the test ends, and demands that nothing is
// left running.
func run(t *testing.T, a *App) {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		http.DefaultClient.CloseIdleConnections()
		goleak.VerifyNone(t, leaks)
	})
	for !ok(a) {
		select {
		case err := <-done:
			done <- err
			t.Fatalf("Run ended: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func ok(a *App) bool {
	resp, err := http.Get("http://" + a.current.Load().cfg.Admin.Address + "/readyz")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func replace(t *testing.T, file, old, next string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), old) {
		t.Fatalf("%s has no %q", file, old)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), old, next, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestRefusedReloadLeavesEverythingInPlace breaks a running configuration in each
// way that a reload can meet, early and late, and demands the old generation.
func TestRefusedReloadLeavesEverythingInPlace(t *testing.T) {
	for name, c := range map[string]struct{ old, next, want string }{
		"key":        {"listeners:", "listenres:", "unknown key"},
		"route":      {"upstream: api", "upstream: elsewhere", "no upstream is named"},
		"entrypoint": {"entrypoint: gateway/decision", "entrypoint: gateway/nothing", "gateway/nothing"},
		"policies":   {"paths: [policies]", "paths: [nowhere]", "nowhere"},
		"key set":    {"jwks_file: keys/jwks.json", "jwks_file: keys/none.json", "none.json"},
		"admin":      {"admin:", "shutdown: {timeout: 5s}\nadmin:", ""},
		"restart":    {"admin:", "decision_log: {queue: 7}\nadmin:", "restart"},
		"busy port":  {"admin:", "  - {name: second, address: BUSY}\nadmin:", "address already in use"},
	} {
		t.Run(name, func(t *testing.T) {
			busy, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer busy.Close()
			dir := files(t)
			a := build(t, dir)
			run(t, a)
			before := a.current.Load()
			replace(t, filepath.Join(dir, "sallyport.yaml"), c.old, strings.Replace(c.next, "BUSY", busy.Addr().String(), 1))
			err = a.Reload(t.Context())
			if c.want == "" {
				if err != nil || a.current.Load() == before {
					t.Fatalf("a good change was refused: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
			if a.current.Load() != before {
				t.Error("the generation changed")
			}
			if page := a.statusPage().(page); !strings.Contains(page.Config.Error, c.want) {
				t.Errorf("status says %q, want %q", page.Config.Error, c.want)
			}
			if !ok(a) {
				t.Error("not ready after a refused reload")
			}
		})
	}
}

// TestRefusedPolicyGetsNoDecisions: the decision log of OPA's that a refused
// configuration started is not the one of the policy that decides.
func TestRefusedPolicyGetsNoDecisions(t *testing.T) {
	dir := files(t)
	a := build(t, dir)
	run(t, a)
	replace(t, filepath.Join(dir, "sallyport.yaml"), "paths: [policies]",
		`opa: {services: {s: {url: "http://127.0.0.1:1"}}, bundles: {b: {service: s, resource: b.tar.gz}}, decision_logs: {service: s}}`)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := a.Reload(ctx); err == nil {
		t.Fatal("a policy that never came was accepted")
	}
	if m := a.manager(); m != nil {
		t.Errorf("decisions go to the manager of the refused configuration")
	}
}

// TestReloadKeepsWhatDidNotChange changes a label: policy, authenticators and
// sockets must be the same objects.
func TestReloadKeepsWhatDidNotChange(t *testing.T) {
	dir := files(t)
	a := build(t, dir)
	run(t, a)
	before := a.current.Load()
	replace(t, filepath.Join(dir, "sallyport.yaml"), "  - name: orders", "  - name: orders2")
	if err := a.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := a.current.Load()
	if after.policy != before.policy {
		t.Error("the policy was loaded again")
	}
	for name, x := range before.authenticators {
		if after.authenticators[name] != x {
			t.Errorf("authenticator %s was made again", name)
		}
	}
	for name, s := range before.sockets {
		if after.sockets[name].port != s.port || after.sockets[name].certs != s.certs {
			t.Errorf("listener %s was opened again", name)
		}
	}
	if after.cfg.Routes[1].Name != "orders2" {
		t.Errorf("route is %q, want orders2", after.cfg.Routes[1].Name)
	}
}

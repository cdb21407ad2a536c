package bundles_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sallyport/sallyport/bundles"
	"github.com/sallyport/sallyport/engine"
	"github.com/sallyport/sallyport/engine/authz"
)

func TestMain(m *testing.M) {
	if os.Getenv(killURL) != "" {
		if err := killedGateway(); err != nil {
			panic(err)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func newEngine(t testing.TB) *engine.Engine {
	t.Helper()
	cfg := engine.Default()
	cfg.DecisionTimeout = 10 * time.Second // a busy machine is not what is tested
	e, err := engine.New(cfg, engine.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func newSource(t testing.TB, cfg bundles.Config, e *engine.Engine) bundles.Source {
	t.Helper()
	s, err := bundles.New(cfg, bundles.Deps{Engine: e})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// run runs the source until the test ends.
func run(t testing.TB, s bundles.Source) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// write writes files below dir: name, content, name, content...
func write(t testing.TB, dir string, files ...string) {
	t.Helper()
	for i := 0; i < len(files); i += 2 {
		path := filepath.Join(dir, files[i])
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(files[i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// reason asks the engine about one request, and returns the reason it gave, or
// the error.
func reason(t *testing.T, e *engine.Engine) string {
	t.Helper()
	d, err := e.Decide(context.Background(), &authz.Input{Request: authz.Request{Method: "GET", Path: "/", Segments: []string{""}}})
	if err != nil {
		return err.Error()
	}
	if d.Fault != nil {
		return d.Fault.Error()
	}
	return d.Reason
}

// saying is a policy that denies with the reason.
func saying(reason string) string {
	return "package gateway\n\ndecision := {\"allow\": false, \"reason\": \"" + reason + "\"}\n"
}

// eventually polls until ok holds, and fails the test with what said says when it
// does not within the deadline.
func eventually(t testing.TB, ok func() bool, said func() string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal(said())
		}
		<-tick.C
	}
}

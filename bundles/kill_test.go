package bundles_test

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/bundles"
	"github.com/sallyport/sallyport/engine"
)

// The environment of a process that is there to be killed.
const (
	killURL = "BUNDLES_KILL_URL"
	killDir = "BUNDLES_KILL_DIR"
	killKey = "BUNDLES_KILL_KEY"
)

// killedGateway is the process that TestKillWhilePersisting kills; TestMain runs it.
func killedGateway() error {
	public, err := os.ReadFile(os.Getenv(killKey))
	if err != nil {
		return err
	}
	e, err := engine.New(engine.Default(), engine.Deps{})
	if err != nil {
		return err
	}
	key := keyPair{public: string(public), algorithm: "ES256"}
	s, err := bundles.New(bundles.Config{OPA: persisted(opaConfig(os.Getenv(killURL), &key), os.Getenv(killDir))}, bundles.Deps{Engine: e})
	if err != nil {
		return err
	}
	return s.Run(context.Background())
}

// A process killed at any time leaves the old bundle or the new one, whole, and
// what it left half-written does not pile up.
func TestKillWhilePersisting(t *testing.T) {
	t.Parallel()
	key, dir := newKey(t, "ES256"), t.TempDir()
	archives := [][]byte{
		build(t, key.signing("release"), "gateway.rego", saying("one")),
		build(t, key.signing("release"), "gateway.rego", saying("two")),
	}
	shelf := newShelf(t, nil)
	var n atomic.Int64
	shelf.handle(func(w http.ResponseWriter, _ *http.Request) { // another bundle each time
		_, _ = w.Write(archives[n.Add(1)%2])
	})
	file := filepath.Join(dir, "bundles", "policy", "bundle.tar.gz")
	for round := range 8 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), killURL+"="+shelf.URL, killDir+"="+dir, killKey+"="+key.publicFile)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		before := n.Load()
		asked := before + 2 + int64(round%3)
		eventually(t, func() bool { return n.Load() >= asked }, func() string { return "the process asks for nothing" })
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
		if _, err := bundles.Verify(file, bundles.Verification{KeyFile: key.publicFile, KeyID: "release", Algorithm: "ES256"}); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
	}
	leftover := filepath.Join(filepath.Dir(file), ".bundle.tar.gz.1.tmp")
	write(t, filepath.Dir(leftover), filepath.Base(leftover), "half")
	old := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(leftover, old, old); err != nil {
		t.Fatal(err)
	}
	s := newSource(t, bundles.Config{OPA: persisted(opaConfig(shelf.URL, &key), dir)}, newEngine(t))
	run(t, s)
	waitFor(t, s, "a bundle", isReady)
	if _, err := os.Stat(leftover); !os.IsNotExist(err) {
		t.Errorf("what a killed process left is still there: %v", err)
	}
}

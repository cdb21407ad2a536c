package watch_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/watch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a watcher over one target and returns a channel that gets one value
// for each reload.
func start(t *testing.T, result error, files ...string) <-chan struct{} {
	t.Helper()
	return startPolling(t, 50*time.Millisecond, result, files...)
}

func startPolling(t *testing.T, poll time.Duration, result error, files ...string) <-chan struct{} {
	t.Helper()
	reloads := make(chan struct{}, 16)
	target := watch.Target{Name: "t", Files: files, Reload: func(context.Context) error {
		reloads <- struct{}{}
		return result
	}}
	w := &watch.Watcher{
		Targets: func() []watch.Target { return []watch.Target{target} },
		Logger:  slog.New(slog.DiscardHandler),
		Settle:  10 * time.Millisecond,
		Poll:    poll,
	}
	w.Mark()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return reloads
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func wait(t *testing.T, reloads <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-reloads:
	case <-time.After(5 * time.Second):
		t.Fatalf("no reload after %s", what)
	}
}

func TestFileWrittenReplacedAndRemoved(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "c.yaml")
	write(t, file, "a")
	reloads := start(t, nil, file)
	write(t, file, "ab")
	wait(t, reloads, "a write")
	next := filepath.Join(dir, "next")
	write(t, next, "cd")
	if err := os.Rename(next, file); err != nil {
		t.Fatal(err)
	}
	wait(t, reloads, "a rename over it")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	wait(t, reloads, "its removal")
}

func TestFolderGetsANestedFile(t *testing.T) {
	dir := t.TempDir()
	reloads := start(t, nil, dir)
	sub := filepath.Join(dir, "a", "b")
	if err := os.MkdirAll(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(sub, "x.rego"), "package x")
	wait(t, reloads, "a new file in new folders")
}

// TestConfigMapSwap does what the kubelet does: the visible file is a link into
// ..data, itself a link to a dated folder, and only ..data is replaced.
func TestConfigMapSwap(t *testing.T) {
	dir := t.TempDir()
	for _, rev := range []string{"..2026_1", "..2026_2"} {
		if err := os.Mkdir(filepath.Join(dir, rev), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, rev, "policy.rego"), "package p # same size")
	}
	link := func(target, name string) {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("..2026_1", "..data")
	link(filepath.Join("..data", "policy.rego"), "policy.rego")
	reloads := start(t, nil, filepath.Join(dir, "policy.rego"))
	link("..2026_2", "..data_tmp")
	if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	wait(t, reloads, "the swap of ..data")
}

func TestRefusedReloadIsNotRepeatedUntilTheFileChanges(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	write(t, file, "a")
	reloads := start(t, errors.New("broken"), file)
	write(t, file, "ab")
	wait(t, reloads, "a write")
	select {
	case <-reloads:
		t.Fatal("reloaded again although nothing changed")
	case <-time.After(300 * time.Millisecond):
	}
	write(t, file, "abc")
	wait(t, reloads, "the next write")
}

func TestLinkCycleEnds(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(dir, filepath.Join(dir, "self")); err != nil {
		t.Fatal(err)
	}
	reloads := start(t, nil, dir)
	write(t, filepath.Join(dir, "a"), "a")
	wait(t, reloads, "a write beside a cycle")
}

// Something else is written into the folder without pause, such as a log.
func TestFolderThatIsNeverQuiet(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "c.yaml")
	write(t, file, "a")
	reloads := startPolling(t, time.Hour, nil, file)
	ctx, cancel := context.WithCancel(t.Context())
	noise := make(chan error)
	go func() {
		for tick := time.NewTicker(time.Millisecond); ctx.Err() == nil; <-tick.C {
			if err := os.WriteFile(filepath.Join(dir, "noise"), nil, 0o600); err != nil {
				noise <- err
				return
			}
		}
		noise <- nil
	}()
	for _, text := range []string{"ab", "abc"} {
		write(t, file, text)
		wait(t, reloads, "a write beside a file that never rests")
	}
	cancel()
	if err := <-noise; err != nil {
		t.Error(err)
	}
}

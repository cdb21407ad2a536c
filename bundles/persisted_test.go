package bundles_test

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/sallyport/sallyport/bundles"
)

// smallDisk is a file system of 64 KiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root on Linux")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mounting a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// A bundle that does not fit on the disk decides, the one that was persisted stays
// whole, and the status tells until a bundle is persisted again.
func TestFullDiskIsTold(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t)
	noise := make([]byte, 100<<10)
	_, _ = rand.Read(noise) // it never fails
	key := newKey(t, "ES256")
	small := build(t, key.signing("release"), "gateway.rego", saying("small"))
	large := build(t, key.signing("release"), "gateway.rego", saying("large"), "noise/data.json", fmt.Sprintf(`"%x"`, noise))
	shelf, e := newShelf(t, small), newEngine(t)
	s := newSource(t, bundles.Config{OPA: persisted(opaConfig(shelf.URL, &key), dir)}, e)
	run(t, s)
	file := filepath.Join(dir, "bundles", "policy", "bundle.tar.gz")
	waitFor(t, s, "the small bundle on disk", func(st bundles.Status) bool {
		_, err := os.Stat(file)
		return err == nil && isReady(st) && isMended(st)
	})

	shelf.serve(large)
	waitFor(t, s, "the error", hasError)
	if got := reason(t, e); got != "large" {
		t.Errorf("decided by %q, want the bundle that was activated", got)
	}
	st := s.Status()
	if !st.Ready || !strings.Contains(st.Error, "could not be persisted") || !strings.Contains(st.Error, file) {
		t.Errorf("status %+v, want it ready and to name %s", st, file)
	}
	polls := shelf.requests.Load()
	eventually(t, func() bool { return shelf.requests.Load() > polls+2 }, func() string { return "no polls" })
	if !hasError(s.Status()) {
		t.Error("a poll that brings nothing new hides the error")
	}
	if _, err := bundles.Verify(file, bundles.Verification{KeyFile: key.publicFile, KeyID: "release", Algorithm: "ES256"}); err != nil {
		t.Errorf("what was persisted before: %v", err)
	}

	shelf.serve(build(t, key.signing("release"), "gateway.rego", saying("small again")))
	waitFor(t, s, "the end of the error", isMended)
	if got := reason(t, e); got != "small again" {
		t.Errorf("decided by %q", got)
	}

	// A restart without the service begins with what was persisted last.
	shelf.serve(nil)
	again := newEngine(t)
	r := newSource(t, bundles.Config{OPA: persisted(opaConfig(shelf.URL, &key), dir)}, again)
	run(t, r)
	waitFor(t, r, "the persisted bundle", isReady)
	if got := reason(t, again); got != "small again" {
		t.Errorf("decided by %q after a restart", got)
	}
}

// On a disk that never had room for a bundle nothing is persisted, and the status
// tells.
func TestDiskWithoutRoomIsTold(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t)
	write(t, dir, "filler", strings.Repeat("x", 60<<10))
	key := newKey(t, "ES256")
	noise := make([]byte, 20<<10)
	_, _ = rand.Read(noise) // it never fails
	shelf, e := newShelf(t, build(t, key.signing("release"), "gateway.rego", saying("one"), "noise/data.json", fmt.Sprintf(`"%x"`, noise))), newEngine(t)
	s := newSource(t, bundles.Config{OPA: persisted(opaConfig(shelf.URL, &key), dir)}, e)
	run(t, s)
	waitFor(t, s, "the error", func(st bundles.Status) bool { return isReady(st) && hasError(st) })
	if st := s.Status(); !strings.Contains(st.Error, "no space left on device") {
		t.Errorf("status says %q", st.Error)
	}
	if got := reason(t, e); got != "one" {
		t.Errorf("decided by %q, want the bundle that was activated", got)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "bundles/policy/*")); err != nil || len(left) > 0 {
		t.Errorf("a torn file is left where a bundle is looked for: %v, %v", left, err)
	}
}

//go:build e2e && linux

package e2e_test

import (
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestFullDisk serves a bundle that the disk has no room for, kills the gateway,
// and starts it again without the bundle server: the older bundle is there whole,
// and the status has told that it would be.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	b := newBundleSite(t)
	disk := b.file("persisted")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mounting a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	b.serve(t)
	b.start(t)
	eventually(t, 10*time.Second, "persisted", func() bool {
		_, err := os.Stat(disk + "/bundles/authz/bundle.tar.gz")
		return err == nil
	})

	noise := make([]byte, 100<<10)
	_, _ = rand.Read(noise) // it never fails
	write(t, b.file("bundles/authz/noise.json"), fmt.Sprintf(`{"noise": "%x"}`, noise))
	b.revision(t, 1)
	eventually(t, 10*time.Second, "the new revision decides", func() bool { return b.header(t, "X-Rev") == "1" })
	eventually(t, 10*time.Second, "the status tells", func() bool { return strings.Contains(b.status(t), "could not be persisted") })

	b.server.stop(t)
	if err := b.gateway.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-b.gateway.done
	b.start(t)
	if got := b.header(t, "X-Rev"); got != "0" {
		t.Errorf("revision %q from disk, want 0", got)
	}
}

func (s *site) status(t *testing.T) string {
	t.Helper()
	resp, err := http.Get("http://" + s.admin + "/v1/status")
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

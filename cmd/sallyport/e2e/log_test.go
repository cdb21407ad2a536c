//go:build e2e

package e2e_test

import (
	"net/http"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestReaderOfTheLogEnds: the gateway outlives whoever reads its decisions.
func TestReaderOfTheLogEnds(t *testing.T) {
	dir, gateway, admin := t.TempDir(), freeAddress(t), freeAddress(t)
	if out, err := exec.Command(binary(t), "demo", "--dir", filepath.Join(dir, "d"), "--gateway", gateway, "--admin", admin).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(binary(t), "serve", "-c", filepath.Join(dir, "d", "sallyport.yaml"))
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	waitReady(t, admin)
	if err := pipe.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got := status("http://" + gateway + "/v1/orders/42"); got != http.StatusUnauthorized {
			t.Fatalf("got %d", got)
		}
		<-time.After(100 * time.Millisecond) // the line is written behind the answer
	}
}

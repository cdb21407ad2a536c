package bundles

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestGuardGivesUpOnADrip(t *testing.T) {
	t.Parallel()
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-r.Context().Done():
				return
			case <-tick.C:
				_, _ = io.WriteString(w, "x")
				w.(http.Flusher).Flush()
			}
		}
	}))
	defer hs.Close()
	g := newGuard(nil)
	defer g.close()
	g.patience = 100 * time.Millisecond
	client := &http.Client{Transport: g.wrap(&http.Transport{})}
	resp, err := client.Get(hs.URL)
	if err == nil {
		_ = resp.Body.Close()
		t.Fatal("an answer that never ends was accepted")
	}
	if !strings.Contains(err.Error(), "read bundle") {
		t.Errorf("error %v", err)
	}
}

func TestGuardLimits(t *testing.T) {
	t.Parallel()
	g := newGuard(map[string]any{
		"a": map[string]any{"size_limit_bytes": 10},
		"b": map[string]any{"resource": "/x/b.tar.gz", "size_limit_bytes": float64(20)},
		"c": map[string]any{},
	})
	for path, want := range map[string]int64{
		"/base/bundles/a": 10, "/x/b.tar.gz": 20, "/bundles/c": DefaultSizeLimit, "/other": DefaultSizeLimit,
	} {
		if got := g.limit(path); got != want {
			t.Errorf("limit of %s is %d, want %d", path, got, want)
		}
	}
}

// Only what the guard is asked to guard passes through it.
func TestGuardHookLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	rt := &http.Transport{}
	if got := (transportHook{}).NewTransport(rt, nil); got != rt {
		t.Error("a transport without a guard was wrapped")
	}
}

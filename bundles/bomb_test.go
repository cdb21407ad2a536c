package bundles_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/bundles"
)

// zeros is a tarball of n files of size bytes each that say nothing.
func zeros(t *testing.T, n int, size int64) []byte {
	t.Helper()
	var out bytes.Buffer
	zw, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	tw := tar.NewWriter(zw)
	chunk := make([]byte, 1<<20)
	for i := range n {
		if err := tw.WriteHeader(&tar.Header{Name: fmt.Sprintf("d%d/data.json", i), Size: size, Mode: 0o600, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		for left := size; left > 0; left -= int64(len(chunk)) {
			if _, err := tw.Write(chunk[:min(left, int64(len(chunk)))]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Each file is below the limit, and all together are many times of it. Not
// parallel, because it looks at the memory of the process.
func TestBombIsNotUnpacked(t *testing.T) {
	const limit = 4 << 20
	bomb := zeros(t, 16, limit-1)
	e := newEngine(t)
	shelf := newShelf(t, build(t, nil, "gateway.rego", saying("good")))
	cfg := opaConfig(shelf.URL, nil)
	cfg["bundles"].(map[string]any)["policy"].(map[string]any)["size_limit_bytes"] = limit
	s := newSource(t, bundles.Config{OPA: cfg}, e)
	run(t, s)
	waitFor(t, s, "the bundle", isReady)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	shelf.serve(bomb)
	waitFor(t, s, "the refusal", hasError)
	runtime.ReadMemStats(&after)
	if got := s.Status().Bundles["policy"].LastError; !strings.Contains(got, "size limit") {
		t.Errorf("status says %q", got)
	}
	grown := int64(after.TotalAlloc - before.TotalAlloc)
	if grown > limit {
		t.Errorf("%d bytes were allocated for an archive of %d", grown, len(bomb))
	}
	if got := reason(t, e); got != "good" {
		t.Errorf("decided %q, want good", got)
	}
}

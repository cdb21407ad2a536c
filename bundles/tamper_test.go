package bundles_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"sync"
	"testing"

	"github.com/sallyport/sallyport/bundles"
)

// unpack returns name and content of each file.
func unpack(t *testing.T, archive []byte) []string {
	t.Helper()
	zr, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for tr := tar.NewReader(zr); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, h.Name, string(raw))
	}
}

// swap replaces one file of an archive and leaves the signature as it is.
func swap(t *testing.T, archive []byte, name, content string) []byte {
	t.Helper()
	files, done := unpack(t, archive), false
	for i := 0; i < len(files); i += 2 {
		if files[i] == "/"+name {
			files[i+1], done = content, true
		}
	}
	if !done {
		t.Fatalf("no file %s in %q", name, files)
	}
	return pack(t, files...)
}

func add(t *testing.T, archive []byte, name, content string) []byte {
	t.Helper()
	return pack(t, append(unpack(t, archive), name, content)...)
}

// signedRaw signs what Build would refuse.
func signedRaw(t *testing.T, key keyPair, files ...string) []byte {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, files...)
	signatures, err := bundles.SignDirectory(dir, *key.signing("release"))
	if err != nil {
		t.Fatal(err)
	}
	return pack(t, append(files, ".signatures.json", string(signatures))...)
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// certificates is where Go and OpenSSL look for the system's authorities first on Debian.
const certificates = "etc/ssl/certs/ca-certificates.crt"

// entry is one file or, with a trailing slash in its name, one folder.
type entry struct {
	name  string
	mode  int64
	owner int
	data  []byte
}

// baseLayer has what a static binary expects around it: authorities, a user
// with a name, somewhere to put temporary files, the folders of the chart.
func baseLayer() (v1.Layer, error) {
	return layer([]entry{
		{name: "etc/", mode: 0o755},
		{name: "etc/group", mode: 0o644, data: []byte("root:x:0:\nnonroot:x:65532:\n")},
		{name: "etc/passwd", mode: 0o644, data: []byte("root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n")},
		{name: "etc/sallyport/", mode: 0o755},
		{name: "etc/ssl/", mode: 0o755},
		{name: "etc/ssl/certs/", mode: 0o755},
		{name: certificates, mode: 0o644, data: authorities()},
		{name: "tmp/", mode: 0o1777},
		{name: "var/", mode: 0o755},
		{name: "var/lib/", mode: 0o755},
		{name: "var/lib/sallyport/", mode: 0o700, owner: 65532},
	})
}

// authorities returns Mozilla's root certificates as golang.org/x/crypto pins
// them, so that the image does not depend on the builder's own trust store. A
// root with a constraint is left out: a PEM file cannot carry the constraint,
// and trusting it without would trust more than Mozilla does.
func authorities() []byte {
	var out bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			out.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}))
		}
	}
	return out.Bytes()
}

// binaryLayer has the program alone, so that a new version is one new layer.
func binaryLayer(file string) (v1.Layer, error) {
	if err := mustBeStatic(file); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return layer([]entry{{name: filepath.Base(file), mode: 0o755, data: data}})
}

// mustBeStatic refuses a binary that asks for a loader the image does not have:
// it would start with "no such file or directory" about the binary itself.
func mustBeStatic(file string) error {
	f, err := elf.Open(file)
	if err != nil {
		return fmt.Errorf("read the binary: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is linked dynamically; build it with CGO_ENABLED=0", file)
		}
	}
	return nil
}

func layer(entries []entry) (v1.Layer, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	var errs []error
	for _, e := range entries {
		errs = append(errs, e.write(w))
	}
	if err := errors.Join(append(errs, w.Close())...); err != nil {
		return nil, fmt.Errorf("write a layer: %w", err)
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(out.Bytes())), nil
	})
}

func (e entry) write(w *tar.Writer) error {
	kind := byte(tar.TypeReg)
	if e.name[len(e.name)-1] == '/' {
		kind = tar.TypeDir
	}
	header := &tar.Header{
		Typeflag: kind, Name: e.name, Mode: e.mode, Size: int64(len(e.data)),
		Uid: e.owner, Gid: e.owner, ModTime: time.Unix(0, 0).UTC(), Format: tar.FormatUSTAR,
	}
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	_, err := w.Write(e.data)
	return err
}

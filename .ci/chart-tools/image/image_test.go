package main

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// program builds a small static program.
func program(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "gateway")
	cmd := exec.Command("go", "build", "-trimpath", "-o", out, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, text)
	}
	return out
}

func archive(t *testing.T, o options) string {
	t.Helper()
	o.tag, o.out, o.arch, o.created = "localhost/gateway:1", filepath.Join(t.TempDir(), "x.tar"), "amd64", 1234567890
	if _, err := run(o); err != nil {
		t.Fatal(err)
	}
	return o.out
}

func TestSameBytesTwice(t *testing.T) {
	o := options{binary: program(t), command: words{"serve"}, labels: words{"b=2", "a=1", "c=3"}}
	first, err := os.ReadFile(archive(t, o))
	if err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(archive(t, o))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Error("two archives of the same binary differ")
	}
}

func TestConfig(t *testing.T) {
	file := archive(t, options{binary: program(t), command: words{"serve", "-c", "x"}, labels: words{"a=b=c"}})
	img, err := tarball.ImageFromPath(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c := config.Config
	if c.User != "65532:65532" || !slices.Equal(c.Entrypoint, []string{"/gateway"}) || !slices.Equal(c.Cmd, []string{"serve", "-c", "x"}) {
		t.Errorf("user %q, entrypoint %q, command %q", c.User, c.Entrypoint, c.Cmd)
	}
	if c.Labels["a"] != "b=c" || config.Architecture != "amd64" || config.Created.Unix() != 1234567890 {
		t.Errorf("labels %v, architecture %q, created %v", c.Labels, config.Architecture, config.Created)
	}
}

func TestFiles(t *testing.T) {
	img, err := tarball.ImageFromPath(archive(t, options{binary: program(t)}), nil)
	if err != nil {
		t.Fatal(err)
	}
	files := files(t, img)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(files[certificates]) {
		t.Error("no certificates")
	}
	if n := bytes.Count(files[certificates], []byte("BEGIN CERTIFICATE")); n < 100 {
		t.Errorf("%d authorities, fewer than any trust store has", n)
	}
	for _, name := range []string{"gateway", "etc/passwd", "tmp/"} {
		if _, ok := files[name]; !ok {
			t.Errorf("no %s in the image", name)
		}
	}
}

func files(t *testing.T, img v1.Image) map[string][]byte {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, l := range layers {
		r, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		for tr := tar.NewReader(r); ; {
			h, err := tr.Next()
			if err == io.EOF { //nolint:errorlint // archive/tar returns it bare
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if out[h.Name], err = io.ReadAll(tr); err != nil {
				t.Fatal(err)
			}
		}
	}
	return out
}

func TestRefusals(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		o    options
		want string
	}{
		{"no tag", options{binary: program(t), tag: "gateway"}, "name"},
		{"not a program", options{binary: script, tag: "localhost/g:1"}, "read the binary"},
		{"dynamic", options{binary: "/bin/ls", tag: "localhost/g:1"}, "CGO_ENABLED=0"},
		{"label", options{binary: program(t), tag: "localhost/g:1", labels: words{"a"}}, "not KEY=VALUE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.out = filepath.Join(t.TempDir(), "x.tar")
			if _, err := run(c.o); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

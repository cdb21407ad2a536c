// Command image packs a static binary into a container image and writes it as
// an archive that `ctr images import`, `docker load` and `podman load` read. It
// needs no container engine, and the same binary, flags and tool give the same
// bytes: the image has no clock, no user names and no order of the machine's.
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// user is the uid and gid of the process, the number that distroless images
// made customary. Numeric, so that the kubelet can verify runAsNonRoot.
const user = "65532:65532"

// options are the flags.
type options struct {
	binary, tag, out, arch string
	command                words
	labels                 words
	created                int64
}

// words is a flag that can be given several times.
type words []string

func (w *words) String() string     { return strings.Join(*w, " ") }
func (w *words) Set(s string) error { *w = append(*w, s); return nil }

func main() {
	log.SetFlags(0)
	log.SetPrefix("image: ")
	var o options
	flag.StringVar(&o.binary, "binary", "", "static Linux binary; it becomes /NAME and the entrypoint")
	flag.StringVar(&o.tag, "tag", "", "name of the image, such as localhost/sallyport:0.1.0")
	flag.StringVar(&o.out, "out", "", "archive to write")
	flag.StringVar(&o.arch, "arch", runtime.GOARCH, "architecture of the binary")
	flag.Var(&o.command, "cmd", "one word of the default arguments; repeat for more")
	flag.Var(&o.labels, "label", "KEY=VALUE; repeat for more")
	flag.Int64Var(&o.created, "created", 0, "creation time of the image in Unix seconds, such as the commit's")
	flag.Parse()
	digest, err := run(o)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("%s %s in %s", o.tag, digest, o.out)
}

func run(o options) (v1.Hash, error) {
	tag, err := name.NewTag(o.tag, name.StrictValidation)
	if err != nil {
		return v1.Hash{}, fmt.Errorf("read the image's name: %w", err)
	}
	img, err := build(o)
	if err != nil {
		return v1.Hash{}, err
	}
	if err := os.MkdirAll(filepath.Dir(o.out), 0o750); err != nil {
		return v1.Hash{}, err
	}
	if err := tarball.WriteToFile(o.out, tag, img); err != nil {
		return v1.Hash{}, fmt.Errorf("write %s: %w", o.out, err)
	}
	return img.Digest()
}

// build returns the image: a base layer that changes seldom, and the binary.
func build(o options) (v1.Image, error) {
	labels, err := o.labelMap()
	if err != nil {
		return nil, err
	}
	base, err := baseLayer()
	if err != nil {
		return nil, err
	}
	program, err := binaryLayer(o.binary)
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(empty.Image, base, program)
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.Architecture, config.OS = o.arch, "linux"
	config.Created = v1.Time{Time: time.Unix(o.created, 0).UTC()}
	config.History = nil
	config.Config = v1.Config{
		User:       user,
		Entrypoint: []string{"/" + filepath.Base(o.binary)},
		Cmd:        o.command,
		WorkingDir: "/",
		Env:        []string{"PATH=/"},
		Labels:     labels,
	}
	return mutate.ConfigFile(img, config)
}

func (o options) labelMap() (map[string]string, error) {
	labels := map[string]string{}
	var errs []error
	for _, l := range o.labels {
		key, value, ok := strings.Cut(l, "=")
		if !ok {
			errs = append(errs, fmt.Errorf("-label %s: not KEY=VALUE", l))
		}
		labels[key] = value
	}
	return labels, errors.Join(errs...)
}

// Command unpack reads the manifests that helm renders and lays the release's
// configuration and policies out as a pod would see them, below a folder in
// place of /etc/sallyport: so `sallyport check` can judge what the chart makes.
package main

import (
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

// mount is the folder of the pod whose content is laid out.
const mount = "/etc/sallyport"

func main() {
	log.SetFlags(0)
	log.SetPrefix("unpack: ")
	if len(os.Args) != 2 {
		log.Fatal("usage: helm template … | unpack DIR")
	}
	if err := unpack(os.Stdin, os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

// manifest is what unpack looks at of an object.
type manifest struct {
	Kind     string
	Metadata struct{ Name string }
	Data     map[string]string
}

func unpack(r io.Reader, dir string) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("read the manifests: %w", err)
	}
	for doc := range strings.SplitSeq(string(text), "\n---\n") {
		var m manifest
		if err := yaml.Unmarshal([]byte(doc), &m); err != nil {
			return fmt.Errorf("read a manifest: %w", err)
		}
		if m.Kind != "ConfigMap" {
			continue
		}
		if err := m.write(dir); err != nil {
			return err
		}
	}
	return nil
}

// write makes a folder of the ConfigMap, named as the chart mounts it: by the
// last word of its name.
func (m manifest) write(dir string) error {
	folder := filepath.Join(dir, m.Metadata.Name[strings.LastIndexByte(m.Metadata.Name, '-')+1:])
	if err := os.MkdirAll(folder, 0o750); err != nil {
		return err
	}
	for name, data := range m.Data {
		data = strings.ReplaceAll(data, mount, dir)
		if err := os.WriteFile(filepath.Join(folder, filepath.Base(name)), []byte(data), 0o600); err != nil {
			return err
		}
	}
	return nil
}

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestUnpack(t *testing.T) {
	dir := t.TempDir()
	manifests := `---
kind: ConfigMap
metadata: {name: a-sallyport-config}
data: {sallyport.yaml: "paths: [/etc/sallyport/policies]"}
---
kind: Service
metadata: {name: other}
---
kind: ConfigMap
metadata: {name: a-sallyport-policies}
data: {a.rego: package a}
`
	if err := unpack(strings.NewReader(manifests), dir); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"config/sallyport.yaml": "paths: [" + dir + "/policies]",
		"policies/a.rego":       "package a",
	} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	if err := unpack(strings.NewReader("kind: ["), dir); err == nil {
		t.Error("no error for what is no YAML")
	}
}

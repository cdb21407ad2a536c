package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// document is an OpenAPI document with what the conversion has to know:
// references, recursion, the two scalar types, properties named like keywords.
const document = `{"definitions": {
  "io.k8s.api.apps.v1.Thing": {
    "description": "gone", "type": "object", "required": ["spec"],
    "x-kubernetes-group-version-kind": [{"group": "apps.example", "version": "v1", "kind": "Thing"}],
    "properties": {
      "apiVersion": {"type": "string"}, "kind": {"type": "string"},
      "spec": {"$ref": "#/definitions/Spec"}
    }},
  "Spec": {"type": "object", "properties": {
    "description": {"type": "string", "description": "gone"},
    "next": {"$ref": "#/definitions/Spec"},
    "port": {"$ref": "#/definitions/io.k8s.apimachinery.pkg.util.intstr.IntOrString"},
    "size": {"$ref": "#/definitions/io.k8s.apimachinery.pkg.api.resource.Quantity"},
    "labels": {"type": "object", "additionalProperties": {"type": "string"}}
  }},
  "List": {"properties": {}, "x-kubernetes-group-version-kind": [{"kind": "A"}, {"kind": "B"}]},
  "Bare": {"x-kubernetes-group-version-kind": [{"kind": "C", "version": "v1"}]}
}}`

func TestKindsOfSwagger(t *testing.T) {
	kinds, err := kindsOfSwagger([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	if len(kinds) != 1 || kinds[0].file() != "thing-apps-v1.json" {
		t.Fatalf("kinds %v, want one in thing-apps-v1.json", kinds)
	}
	want := `{"additionalProperties":false,"properties":{` +
		`"apiVersion":{"enum":["apps.example/v1"]},"kind":{"enum":["Thing"]},` +
		`"spec":{"additionalProperties":false,"properties":{` +
		`"description":{"type":"string"},` +
		`"labels":{"additionalProperties":{"type":"string"},"type":"object"},` +
		`"next":{},` +
		`"port":{"type":["string","integer"]},"size":{"type":["string","number"]}},"type":"object"}},` +
		`"required":["spec"],"type":"object"}`
	if got := encode(t, kinds[0].schema); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestKindsOfCRD(t *testing.T) {
	kinds, err := kindsOfCRD([]byte(`
spec:
  group: example.com
  names: {kind: Monitor}
  versions:
    - name: v1
      schema:
        openAPIV3Schema:
          type: object
          properties:
            metadata: {type: object}
            target: {x-kubernetes-int-or-string: true, anyOf: [{type: integer}]}
            free: {type: object, properties: {a: {type: string}}, x-kubernetes-preserve-unknown-fields: true}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"additionalProperties":false,"properties":{"apiVersion":{"enum":["example.com/v1"]},` +
		`"free":{"properties":{"a":{"type":"string"}},"type":"object"},` +
		`"kind":{"enum":["Monitor"]},"metadata":{"type":"object"},"target":{"type":["string","integer"]}},"type":"object"}`
	if got := encode(t, kinds[0].schema); got != want || kinds[0].file() != "monitor-example-v1.json" {
		t.Errorf("file %s\ngot  %s\nwant %s", kinds[0].file(), got, want)
	}
}

func TestWriteMakesTheFolderAnew(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "schemas")
	if _, err := write(dir, []kind{{version: "v1", kind: "Old"}}); err != nil {
		t.Fatal(err)
	}
	n, err := write(dir, []kind{{version: "v1", kind: "New", schema: map[string]any{"type": "object"}}})
	if err != nil || n != 1 {
		t.Fatal(n, err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 1 || files[0].Name() != "new-v1.json" {
		t.Errorf("files %v, want new-v1.json alone", files)
	}
}

func encode(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

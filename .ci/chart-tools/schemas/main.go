// Command schemas writes the strict JSON Schemas that kubeconform checks the
// chart's manifests against: those of a Kubernetes release, from the OpenAPI
// document in its Go module, and that of the Prometheus operator's
// ServiceMonitor, from the CRD in its module. The modules come through the Go
// module proxy and its checksum database; nothing else is asked.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

// serviceMonitorCRD is the file in the operator's module.
const serviceMonitorCRD = "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml"

func main() {
	log.SetFlags(0)
	log.SetPrefix("schemas: ")
	kubernetes := flag.String("kubernetes", "", "version of k8s.io/kubernetes, such as v1.36.3")
	operator := flag.String("prometheus-operator", "", "version of the Prometheus operator, such as v0.85.0")
	out := flag.String("out", "", "folder for the schemas; made anew")
	flag.Parse()
	n, err := run(context.Background(), *kubernetes, *operator, *out)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("%d schemas of Kubernetes %s in %s", n, *kubernetes, *out)
}

func run(ctx context.Context, kubernetes, operator, out string) (int, error) {
	swagger, err := fromModule(ctx, "k8s.io/kubernetes", kubernetes, "api/openapi-spec/swagger.json")
	if err != nil {
		return 0, err
	}
	kinds, err := kindsOfSwagger(swagger)
	if err != nil {
		return 0, fmt.Errorf("read the OpenAPI document of Kubernetes %s: %w", kubernetes, err)
	}
	crd, err := fromModule(ctx, "github.com/prometheus-operator/prometheus-operator", operator, serviceMonitorCRD)
	if err != nil {
		return 0, err
	}
	more, err := kindsOfCRD(crd)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", serviceMonitorCRD, err)
	}
	return write(out, append(kinds, more...))
}

// fromModule returns a file of a module's version.
func fromModule(ctx context.Context, module, version, file string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", module+"@"+version) //nolint:gosec // versions of the Makefile
	cmd.Stderr = os.Stderr
	answer, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("download %s@%s: %w", module, version, err)
	}
	var got struct{ Dir string }
	if err := json.Unmarshal(answer, &got); err != nil {
		return nil, fmt.Errorf("read the answer of go mod download: %w", err)
	}
	return os.ReadFile(filepath.Join(got.Dir, filepath.FromSlash(file)))
}

// write lays the schemas out as kubeconform's template
// {{.ResourceKind}}{{.KindSuffix}}.json looks for them.
func write(dir string, kinds []kind) (int, error) {
	if err := os.RemoveAll(dir); err != nil {
		return 0, err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return 0, err
	}
	for _, k := range kinds {
		text, err := json.Marshal(k.schema)
		if err != nil {
			return 0, fmt.Errorf("encode the schema of %s: %w", k.kind, err)
		}
		if err := os.WriteFile(filepath.Join(dir, k.file()), text, 0o600); err != nil {
			return 0, err
		}
	}
	return len(kinds), nil
}

// kind is one schema and what it is the schema of.
type kind struct {
	group, version, kind string
	schema               map[string]any
}

func (k kind) file() string {
	suffix := k.version
	if k.group != "" {
		first, _, _ := strings.Cut(k.group, ".")
		suffix = first + "-" + k.version
	}
	return strings.ToLower(k.kind) + "-" + suffix + ".json"
}

// pin makes a schema hold for one apiVersion and kind only.
func (k kind) pin() kind {
	properties, ok := k.schema["properties"].(map[string]any)
	if !ok {
		return k
	}
	apiVersion := k.version
	if k.group != "" {
		apiVersion = k.group + "/" + k.version
	}
	properties["apiVersion"] = map[string]any{"enum": []string{apiVersion}}
	properties["kind"] = map[string]any{"enum": []string{k.kind}}
	return k
}

// kindsOfCRD returns a schema for each version of a custom resource.
func kindsOfCRD(text []byte) ([]kind, error) {
	var crd struct {
		Spec struct {
			Group    string
			Names    struct{ Kind string }
			Versions []struct {
				Name   string
				Schema struct{ OpenAPIV3Schema map[string]any }
			}
		}
	}
	if err := yaml.Unmarshal(text, &crd); err != nil {
		return nil, err
	}
	var kinds []kind
	for _, v := range crd.Spec.Versions {
		schema, ok := strict(v.Schema.OpenAPIV3Schema, nil, nil).(map[string]any)
		if !ok {
			return nil, fmt.Errorf("version %s has no schema", v.Name)
		}
		if properties, ok := schema["properties"].(map[string]any); ok {
			properties["metadata"] = map[string]any{"type": "object"}
		}
		kinds = append(kinds, kind{crd.Spec.Group, v.Name, crd.Spec.Names.Kind, schema}.pin())
	}
	return kinds, nil
}

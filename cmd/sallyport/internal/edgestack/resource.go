package edgestack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// resource is one Kubernetes resource.
type resource struct {
	file            string
	line            int
	kind            string
	namespace, name string
	spec            *section
}

func (r *resource) key() string   { return r.namespace + "/" + r.name }
func (r *resource) title() string { return strings.TrimSpace(r.kind + " " + r.key()) }

// ids are the gateways that the resource is for.
func (r *resource) ids() []string {
	if ids := r.spec.texts("ambassador_id"); len(ids) > 0 {
		return ids
	}
	return []string{defaultID}
}

// read returns the resources of a file, those within a List too.
func read(f File, r *report) (out []*resource) {
	dec := yaml.NewDecoder(bytes.NewReader(f.Data))
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		switch {
		case errors.Is(err, io.EOF):
			return out
		case err != nil:
			r.errs = append(r.errs, fmt.Errorf("%s: not valid YAML: %w", f.Name, err))
			return out
		case len(doc.Content) == 1 && doc.Content[0].Tag != "!!null":
			out = append(out, readDocument(f.Name, doc.Content[0], r, true)...)
		}
	}
}

// readDocument returns the resource of a document, or those of a List, which is none
// itself of one: an alias could have it go on for ever.
func readDocument(file string, n *yaml.Node, r *report, whole bool) []*resource {
	res := &resource{file: file, line: n.Line, namespace: "default"}
	top := newSection(r, res, n, "")
	res.kind = top.text("kind")
	if res.kind == "List" {
		if !whole {
			top.bad("kind", n.Line, "a List is no item of a List")
			return nil
		}
		var out []*resource
		for _, item := range top.subs("items") {
			out = append(out, readDocument(file, item.node, r, false)...)
		}
		return out
	}
	version := top.text("apiVersion")
	if meta := top.sub("metadata"); meta != nil {
		res.name = meta.text("name")
		if ns := meta.text("namespace"); ns != "" {
			res.namespace = ns
		}
		if a := meta.sub("annotations"); a != nil {
			a.path = "metadata.annotations."
			a.without("write its resources into a file of their own", "getambassador.io/config")
		}
	}
	top.get("status")
	if res.kind == "Secret" && version == "v1" && res.name != "" {
		res.spec = top
		return []*resource{res}
	}
	if !known(version) {
		r.differences = append(r.differences, Difference{file, n.Line, res.title(), "apiVersion", fmt.Sprintf("%q is not Edge Stack's: the resource is not carried over", version)})
		return nil
	}
	if res.name == "" {
		top.bad("metadata.name", n.Line, "is missing")
	}
	if res.spec = top.sub("spec"); res.spec == nil {
		res.spec = newSection(r, res, &yaml.Node{Kind: yaml.MappingNode, Line: n.Line}, "")
	}
	res.spec.path = ""
	top.used["metadata"] = true
	top.rest()
	return []*resource{res}
}

// known tells the API groups and versions of Edge Stack.
func known(version string) bool {
	group, v, _ := strings.Cut(version, "/")
	return (group == "getambassador.io" || group == "gateway.getambassador.io") &&
		(v == "v1" || v == "v1alpha1" || v == "v2" || v == "v3alpha1")
}

// namesOf gives each resource a name for the configuration, unique among its kind.
func namesOf(all []*resource) map[*resource]string {
	out := map[*resource]string{}
	taken := map[string]bool{}
	for _, res := range all {
		name := clean(res.name)
		if taken[res.kind+name] {
			name = clean(res.namespace + "-" + res.name)
		}
		for base, n := name, 2; taken[res.kind+name]; n++ {
			name = fmt.Sprintf("%s-%d", base, n)
		}
		taken[res.kind+name] = true
		out[res] = name
	}
	return out
}

// clean makes a name of letters, digits and dashes.
func clean(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '-' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' {
			return r
		}
		return '-'
	}, strings.ToLower(name))
}

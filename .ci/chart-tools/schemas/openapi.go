package main

import (
	"encoding/json"
	"slices"
	"strings"
)

// kindsOfSwagger returns a schema for each kind of the OpenAPI document that
// belongs to one group and version.
func kindsOfSwagger(text []byte) ([]kind, error) {
	var doc struct{ Definitions map[string]map[string]any }
	if err := json.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	var kinds []kind
	for name, definition := range doc.Definitions {
		k, ok := kindOf(definition)
		if !ok || definition["properties"] == nil {
			continue
		}
		k.schema, ok = strict(definition, doc.Definitions, []string{name}).(map[string]any)
		if ok {
			kinds = append(kinds, k.pin())
		}
	}
	return kinds, nil
}

func kindOf(definition map[string]any) (kind, bool) {
	list, _ := definition["x-kubernetes-group-version-kind"].([]any)
	if len(list) != 1 {
		return kind{}, false
	}
	gvk, _ := list[0].(map[string]any)
	group, _ := gvk["group"].(string)
	version, _ := gvk["version"].(string)
	name, _ := gvk["kind"].(string)
	return kind{group: group, version: version, kind: name}, name != ""
}

// strict copies a schema with its references resolved, without what only
// describes, and closed against unknown properties. stack holds the names of
// the definitions being resolved: a recursive one becomes the open schema.
func strict(schema any, definitions map[string]map[string]any, stack []string) any {
	switch s := schema.(type) {
	case []any:
		out := make([]any, len(s))
		for i, v := range s {
			out[i] = strict(v, definitions, stack)
		}
		return out
	case map[string]any:
		if ref, ok := s["$ref"].(string); ok {
			return resolve(ref, definitions, stack)
		}
		return object(s, definitions, stack)
	}
	return schema
}

func resolve(ref string, definitions map[string]map[string]any, stack []string) any {
	name := ref[strings.LastIndexByte(ref, '/')+1:]
	switch {
	case slices.Contains(stack, name):
		return map[string]any{}
	case strings.HasSuffix(name, "util.intstr.IntOrString"):
		return either("string", "integer")
	case strings.HasSuffix(name, "api.resource.Quantity"):
		return either("string", "number")
	}
	return strict(definitions[name], definitions, append(slices.Clone(stack), name))
}

func either(types ...string) map[string]any { return map[string]any{"type": types} }

func object(s map[string]any, definitions map[string]map[string]any, stack []string) any {
	if s["x-kubernetes-int-or-string"] == true {
		return either("string", "integer")
	}
	out := map[string]any{}
	for key, value := range s {
		properties, isMap := value.(map[string]any)
		switch {
		case key == "description", strings.HasPrefix(key, "x-kubernetes-"):
		case key == "properties" && isMap:
			out[key] = each(properties, definitions, stack)
		default:
			out[key] = strict(value, definitions, stack)
		}
	}
	_, closed := out["additionalProperties"]
	if out["properties"] != nil && !closed && s["x-kubernetes-preserve-unknown-fields"] != true {
		out["additionalProperties"] = false
	}
	return out
}

// each keeps a property's name out of the reach of object, which would take one
// called description for a description.
func each(properties map[string]any, definitions map[string]map[string]any, stack []string) map[string]any {
	out := make(map[string]any, len(properties))
	for name, p := range properties {
		out[name] = strict(p, definitions, stack)
	}
	return out
}

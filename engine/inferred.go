package engine

import (
	"maps"
	"slices"

	"github.com/open-policy-agent/opa/v1/types"
)

// What the compiler inferred about a rule's value sees through functions and
// helper rules, where a search of the source would have to follow them.

// alternatives returns the types that a value of t can have.
func alternatives(t types.Type) []types.Type {
	if union, ok := t.(types.Any); ok {
		var out []types.Type
		for _, a := range union {
			out = append(out, alternatives(a)...)
		}
		return out
	}
	return []types.Type{t}
}

// member returns the types that the member of that name can have.
func member(of []types.Type, name string) []types.Type {
	var out []types.Type
	for _, t := range of {
		if o, ok := t.(*types.Object); ok {
			for _, p := range o.StaticProperties() {
				if p.Key == name {
					out = append(out, alternatives(p.Value)...)
				}
			}
		}
	}
	return out
}

// memberNames returns the names of the members that some of the objects have, sorted.
func memberNames(of []types.Type) []string {
	names := map[string]struct{}{}
	for _, t := range of {
		if o, ok := t.(*types.Object); ok {
			for _, p := range o.StaticProperties() {
				if name, ok := p.Key.(string); ok {
					names[name] = struct{}{}
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

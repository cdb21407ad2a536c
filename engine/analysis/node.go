package analysis

import (
	"maps"
	"slices"
	"strings"
)

// Node is a part of the input document. A nil Node stands for a part that cannot
// be read.
type Node struct {
	// Whole: the part is read with all that it holds.
	Whole bool
	// Children are the members that are read. A Node that is neither Whole nor
	// has Children is one whose mere presence matters.
	Children map[string]*Node
}

// Child returns the member name; a member of a part that is read whole is whole.
func (n *Node) Child(name string) *Node {
	switch {
	case n == nil:
		return nil
	case n.Whole:
		return n
	}
	return n.Children[name]
}

// Has reports whether anything of the document at path can be read, its presence
// included.
func (n *Node) Has(path ...string) bool {
	for _, name := range path {
		n = n.Child(name)
	}
	return n != nil
}

// Paths lists what is read, sorted, as "input.request.headers". A part of which
// only the presence matters ends in "?".
func (n *Node) Paths() []string {
	if n == nil {
		return nil
	}
	return n.appendPaths(nil, []string{"input"})
}

func (n *Node) appendPaths(out, path []string) []string {
	switch {
	case n.Whole:
		return append(out, strings.Join(path, "."))
	case len(n.Children) == 0:
		return append(out, strings.Join(path, ".")+"?")
	}
	for _, name := range slices.Sorted(maps.Keys(n.Children)) {
		out = n.Children[name].appendPaths(out, append(slices.Clone(path), name))
	}
	return out
}

func (n *Node) add(path []string, whole bool) {
	for _, name := range path {
		if n.Whole {
			return
		}
		if n.Children == nil {
			n.Children = map[string]*Node{}
		}
		child := n.Children[name]
		if child == nil {
			child = &Node{}
			n.Children[name] = child
		}
		n = child
	}
	if whole {
		n.Whole, n.Children = true, nil
	}
}

package analysis

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// What an encoded value begins with.
const (
	tagUndefined byte = iota
	tagDefined        // with whatever value: only the presence matters
	tagMembers        // an object of which members are read, in the order of their names
	tagNull
	tagFalse
	tagTrue
	tagNumber
	tagString
	tagArray
	tagSet
	tagObject
	tagOther
)

// AppendKey appends an encoding of what n reads of v, where a nil v is undefined.
// For one n, encodings are equal only if everything that is read is equal, its
// definedness and type included, and none is the beginning of another one. Equal
// numbers in different spellings are told apart, as a policy can do that too.
func (n *Node) AppendKey(b []byte, v ast.Value) []byte {
	switch {
	case n == nil:
		return b
	case v == nil:
		return append(b, tagUndefined)
	case n.Whole:
		return appendValue(b, v)
	case len(n.Children) == 0:
		return append(b, tagDefined)
	}
	obj, ok := v.(ast.Object)
	if !ok {
		return appendValue(b, v) // has no members, but is not undefined either
	}
	b = append(b, tagMembers)
	for _, name := range slices.Sorted(maps.Keys(n.Children)) {
		var member ast.Value
		if term := obj.Get(ast.StringTerm(name)); term != nil {
			member = term.Value
		}
		b = n.Children[name].AppendKey(b, member)
	}
	return b
}

func appendValue(b []byte, v ast.Value) []byte {
	switch v := v.(type) {
	case ast.Null:
		return append(b, tagNull)
	case ast.Boolean:
		if v {
			return append(b, tagTrue)
		}
		return append(b, tagFalse)
	case ast.Number:
		return appendText(append(b, tagNumber), string(v))
	case ast.String:
		return appendText(append(b, tagString), string(v))
	case *ast.Array:
		b = binary.AppendUvarint(append(b, tagArray), uint64(v.Len())) //nolint:gosec // G115: a length
		v.Foreach(func(t *ast.Term) { b = appendValue(b, t.Value) })
		return b
	case ast.Set:
		b = binary.AppendUvarint(append(b, tagSet), uint64(v.Len())) //nolint:gosec // G115: a length
		v.Foreach(func(t *ast.Term) { b = appendValue(b, t.Value) })
		return b
	case ast.Object:
		b = binary.AppendUvarint(append(b, tagObject), uint64(v.Len())) //nolint:gosec // G115: a length
		v.Foreach(func(k, t *ast.Term) { b = appendValue(appendValue(b, k.Value), t.Value) })
		return b
	default:
		return appendText(append(b, tagOther), v.String())
	}
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

package store

import (
	"fmt"
	"strconv"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
)

// lookup returns the value at path below v.
func lookup(v ast.Value, path storage.Path) (ast.Value, error) {
	for i := range path {
		switch node := v.(type) {
		case ast.Object:
			child := get(node, path[i])
			if child == nil {
				return nil, errNotFound()
			}
			v = child.Value
		case *ast.Array:
			at, err := index(node, path, i)
			if err != nil {
				return nil, err
			}
			v = node.Elem(at).Value
		default:
			return nil, errNotFound()
		}
	}
	return v, nil
}

// get looks key up with a pooled term: evaluation reads base documents here, and
// the key is not kept.
func get(obj ast.Object, key string) *ast.Term {
	if ast.HasInternedValue(key) {
		return obj.Get(ast.InternedTerm(key))
	}
	term := ast.TermPtrPool.Get()
	defer ast.TermPtrPool.Put(term)
	term.Value = ast.String(key)
	return obj.Get(term)
}

// patch returns a copy of v in which op was done at path[at:], sharing all that
// is not on the path, and the path of the document that changed: an array's
// elements shift, so there it is the array.
func patch(v ast.Value, op storage.PatchOp, path storage.Path, at int, value ast.Value) (ast.Value, storage.Path, error) {
	switch node := v.(type) {
	case ast.Object:
		return patchObject(node, op, path, at, value)
	case *ast.Array:
		return patchArray(node, op, path, at, value)
	default:
		return nil, nil, errNotFound()
	}
}

func patchObject(obj ast.Object, op storage.PatchOp, path storage.Path, at int, value ast.Value) (ast.Value, storage.Path, error) {
	child := get(obj, path[at])
	if at < len(path)-1 {
		if child == nil {
			return nil, nil, errNotFound()
		}
		v, changed, err := patch(child.Value, op, path, at+1, value)
		if err != nil {
			return nil, nil, err
		}
		return with(obj, path[at], v), changed, nil
	}
	if op != storage.AddOp && child == nil {
		return nil, nil, errNotFound()
	}
	if op == storage.RemoveOp {
		return without(obj, path[at]), path, nil
	}
	return with(obj, path[at], value), path, nil
}

// with returns obj with key set to v. It shares all other terms with obj.
func with(obj ast.Object, key string, v ast.Value) ast.Object {
	pairs := append(others(obj, key, obj.Len()+1), ast.Item(ast.StringTerm(key), ast.NewTerm(v)))
	return ast.NewObject(pairs...)
}

func without(obj ast.Object, key string) ast.Object {
	return ast.NewObject(others(obj, key, obj.Len())...)
}

func others(obj ast.Object, key string, size int) [][2]*ast.Term {
	pairs := make([][2]*ast.Term, 0, size)
	obj.Foreach(func(k, v *ast.Term) {
		if s, ok := k.Value.(ast.String); !ok || string(s) != key {
			pairs = append(pairs, [2]*ast.Term{k, v})
		}
	})
	return pairs
}

func patchArray(arr *ast.Array, op storage.PatchOp, path storage.Path, at int, value ast.Value) (ast.Value, storage.Path, error) {
	if at < len(path)-1 {
		i, err := index(arr, path, at)
		if err != nil {
			return nil, nil, err
		}
		v, changed, err := patch(arr.Elem(i).Value, op, path, at+1, value)
		if err != nil {
			return nil, nil, err
		}
		return splice(arr, i, 1, v), changed, nil
	}
	changed := path[:at]
	if path[at] == "-" || path[at] == strconv.Itoa(arr.Len()) {
		if op != storage.AddOp {
			return nil, nil, &storage.Error{Code: storage.InvalidPatchErr, Message: fmt.Sprintf("%v: invalid patch path", path)}
		}
		return splice(arr, arr.Len(), 0, value), changed, nil
	}
	i, err := index(arr, path, at)
	if err != nil {
		return nil, nil, err
	}
	switch op {
	case storage.AddOp:
		return splice(arr, i, 0, value), changed, nil
	case storage.RemoveOp:
		return splice(arr, i, 1), changed, nil
	default:
		return splice(arr, i, 1, value), changed, nil
	}
}

// splice returns arr with drop elements from i on replaced by values.
func splice(arr *ast.Array, i, drop int, values ...ast.Value) *ast.Array {
	terms := make([]*ast.Term, 0, arr.Len()-drop+len(values))
	for j := range i {
		terms = append(terms, arr.Elem(j))
	}
	for _, v := range values {
		terms = append(terms, ast.NewTerm(v))
	}
	for j := i + drop; j < arr.Len(); j++ {
		terms = append(terms, arr.Elem(j))
	}
	return ast.NewArray(terms...)
}

func index(arr *ast.Array, path storage.Path, at int) (int, error) {
	i, err := strconv.Atoi(path[at])
	if err != nil || path[at] != strconv.Itoa(i) {
		return 0, errNotFoundAt(path, "array index must be integer")
	}
	if i < 0 || i >= arr.Len() {
		return 0, errNotFoundAt(path, "array index out of range")
	}
	return i, nil
}

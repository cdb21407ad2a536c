package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
)

// Truncate fills the transaction from the files of a bundle: policies are
// stored, data files are merged into one tree, of which the documents at
// params.BasePaths (the bundle's roots) replace what is stored there. Bundle
// activation calls it with the raw bytes of a downloaded bundle, which thereby
// become AST values without a detour through a decoded bundle. A file with the
// bytes of one that is stored already is not decoded again.
func (s *Store) Truncate(_ context.Context, txn storage.Transaction, params storage.TransactionParams, it storage.Iterator) error {
	t, err := s.openForWrite(txn, "data")
	if err != nil {
		return err
	}
	f := &reading{known: s.current.Load().files, files: files{}}
	tree, err := t.readFiles(it, f)
	if err != nil {
		return err
	}
	t.setFiles(params, f.files)
	if params.RootOverwrite {
		return t.writeRoot(storage.AddOp, tree.build())
	}
	for _, root := range params.BasePaths {
		if err := t.replaceRoot(root, tree); err != nil {
			return err
		}
	}
	return nil
}

func (t *transaction) readFiles(it storage.Iterator, f *reading) (*node, error) {
	tree := &node{}
	for {
		update, err := it.Next()
		if errors.Is(err, io.EOF) {
			return tree, nil
		}
		if err != nil {
			return nil, err
		}
		if update.IsPolicy {
			t.writePolicy(update.Path.PolicyID(), update.Value, false)
			continue
		}
		if err := tree.addFile(update, f); err != nil {
			return nil, err
		}
	}
}

// Document is a value and where it belongs in data.
type Document struct {
	Name  string // for errors
	Path  []string
	Value ast.Value
}

// NewFromDocuments returns a store that holds the documents merged: objects
// merge, anything else in the same place is an error.
func NewFromDocuments(documents []Document) (*Store, error) {
	tree := &node{}
	for _, d := range documents {
		if _, ok := d.Value.(ast.Object); !ok && len(d.Path) == 0 {
			return nil, fmt.Errorf("%s: %w", d.Name, errRootMustBeObject())
		}
		if !tree.insert(d.Path, d.Value) {
			return nil, fmt.Errorf("%s: conflicts with another file about what is at data.%s", d.Name, strings.Join(d.Path, "."))
		}
	}
	s := New()
	if data, ok := tree.build().(ast.Object); ok {
		s.current.Store(&state{data: data})
	}
	return s, nil
}

func (t *transaction) replaceRoot(root string, tree *node) error {
	path, ok := storage.ParsePathEscaped("/" + root)
	if root == "" {
		path, ok = storage.RootPath, true
	}
	if !ok {
		return fmt.Errorf("storage path invalid: %q", root)
	}
	n := tree.find(path)
	if n == nil {
		return nil
	}
	if len(path) == 0 {
		return t.writeRoot(storage.AddOp, n.build())
	}
	if err := t.makeDir(path[:len(path)-1]); err != nil {
		return err
	}
	return t.writeData(storage.AddOp, path, n.build())
}

// node is a document under construction: a value, or members that are still
// being merged. AST objects would do for both, but an object caches the hashes
// of its members, so one that is inside another must not change.
type node struct {
	value    ast.Value
	children map[string]*node
}

func (n *node) addFile(update *storage.Update, f *reading) error {
	v, err := f.decode(update.Value)
	if err != nil {
		return fmt.Errorf("decode data file at /%s: %w", strings.Join(update.Path, "/"), err)
	}
	if _, null := v.(ast.Null); null {
		return nil
	}
	if _, ok := v.(ast.Object); !ok && len(update.Path) == 0 {
		return errRootMustBeObject()
	}
	if !n.insert(update.Path, v) {
		return fmt.Errorf("data file at /%s overlaps another", strings.Join(update.Path, "/"))
	}
	return nil
}

// insert merges v into the document at path below n. Objects merge; anything
// else that is there already is a conflict.
func (n *node) insert(path []string, v ast.Value) bool {
	for _, key := range path {
		if !n.open() {
			return false
		}
		child, ok := n.children[key]
		if !ok {
			child = &node{}
			n.children[key] = child
		}
		n = child
	}
	return n.merge(v)
}

func (n *node) merge(v ast.Value) bool {
	if empty, ok := n.value.(ast.Object); n.children == nil && (n.value == nil || ok && empty.Len() == 0) {
		if _, object := v.(ast.Object); object || !ok {
			n.value = v
			return true
		}
	}
	obj, ok := v.(ast.Object)
	if !ok || !n.open() {
		return false
	}
	return !obj.Until(func(k, v *ast.Term) bool {
		key, ok := k.Value.(ast.String)
		return !ok || !n.insert([]string{string(key)}, v.Value)
	})
}

// open turns an object value into members, and reports whether n can have them.
func (n *node) open() bool {
	if n.children != nil {
		return true
	}
	obj, ok := n.value.(ast.Object)
	if n.value != nil && !ok {
		return false
	}
	n.value, n.children = nil, map[string]*node{}
	if !ok {
		return true
	}
	return !obj.Until(func(k, v *ast.Term) bool {
		key, ok := k.Value.(ast.String)
		if ok {
			n.children[string(key)] = &node{value: v.Value}
		}
		return !ok
	})
}

func (n *node) find(path []string) *node {
	for _, key := range path {
		if !n.open() {
			return nil
		}
		if n = n.children[key]; n == nil {
			return nil
		}
	}
	return n
}

func (n *node) build() ast.Value {
	if n.value != nil {
		return n.value
	}
	pairs := make([][2]*ast.Term, 0, len(n.children))
	for key, child := range n.children {
		pairs = append(pairs, ast.Item(ast.StringTerm(key), ast.NewTerm(child.build())))
	}
	return ast.NewObject(pairs...)
}

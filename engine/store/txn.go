package store

import (
	"maps"
	"slices"
	"sync/atomic"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
)

// transaction is a view of one state. A write transaction replaces its view with
// each write. A read transaction may be used by many goroutines at once.
type transaction struct {
	store   *Store
	id      uint64
	write   bool
	context *storage.Context
	stale   atomic.Bool
	view    *state

	paths    []storage.Path      // changed documents, none below another
	policies map[string]struct{} // changed policies
}

// ID identifies the transaction within its store.
func (t *transaction) ID() uint64 { return t.id }

func (t *transaction) writeData(op storage.PatchOp, path storage.Path, value ast.Value) error {
	if len(path) == 0 {
		return t.writeRoot(op, value)
	}
	v, changed, err := patch(t.view.data, op, path, 0, value)
	if err != nil {
		return err
	}
	t.setData(v.(ast.Object)) // patching an object below its root yields an object
	t.touch(changed)
	if op == storage.RemoveOp {
		t.forgetFiles(path)
	}
	return nil
}

func (t *transaction) writeRoot(op storage.PatchOp, value ast.Value) error {
	if op == storage.RemoveOp {
		return &storage.Error{Code: storage.InvalidPatchErr, Message: "root cannot be removed"}
	}
	obj, ok := value.(ast.Object)
	if !ok {
		return errRootMustBeObject()
	}
	t.setData(obj)
	t.paths = []storage.Path{storage.RootPath}
	return nil
}

func (t *transaction) setData(data ast.Object) {
	next := *t.view
	next.data = data
	t.view = &next
}

// touch remembers path as changed unless a document above it already is.
func (t *transaction) touch(path storage.Path) {
	if slices.ContainsFunc(t.paths, path.HasPrefix) {
		return
	}
	t.paths = slices.DeleteFunc(t.paths, func(p storage.Path) bool { return p.HasPrefix(path) })
	t.paths = append(t.paths, slices.Clone(path))
}

func (t *transaction) writePolicy(id string, text []byte, remove bool) {
	if t.policies == nil {
		t.policies = map[string]struct{}{}
		next := *t.view
		if next.policies = maps.Clone(t.view.policies); next.policies == nil {
			next.policies = map[string][]byte{}
		}
		t.view = &next
	}
	t.policies[id] = struct{}{}
	if remove {
		delete(t.view.policies, id)
		return
	}
	t.view.policies[id] = text
}

func (t *transaction) makeDir(path storage.Path) error {
	if len(path) == 0 {
		return nil
	}
	v, err := lookup(t.view.data, path)
	switch {
	case err == nil:
		if _, ok := v.(ast.Object); !ok {
			return &storage.Error{Code: storage.WriteConflictErr, Message: path.String()}
		}
		return nil
	case !storage.IsNotFound(err):
		return err
	}
	if err := t.makeDir(path[:len(path)-1]); err != nil {
		return err
	}
	if !t.write {
		return errTxn("data write during read transaction")
	}
	return t.writeData(storage.AddOp, path, ast.NewObject())
}

// event describes what the transaction changed, in its final form.
func (t *transaction) event() storage.TriggerEvent {
	event := storage.TriggerEvent{Context: t.context}
	for _, p := range t.paths {
		v, err := lookup(t.view.data, p)
		if err != nil {
			event.Data = append(event.Data, storage.DataEvent{Path: p, Removed: true})
			continue
		}
		event.Data = append(event.Data, storage.DataEvent{Path: p, Data: v})
	}
	for _, id := range slices.Sorted(maps.Keys(t.policies)) {
		text, ok := t.view.policies[id]
		event.Policy = append(event.Policy, storage.PolicyEvent{ID: id, Data: text, Removed: !ok})
	}
	return event
}

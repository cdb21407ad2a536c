// Package store owns the data and the policy texts of active bundles: an
// implementation of OPA's storage.Store that never makes a reader wait.
//
// OPA's own in-memory store holds a lock for as long as a read transaction is
// open and runs every trigger under it, so one slow evaluation stalls a commit
// and a pending commit stalls every later evaluation. Here the state is one
// immutable root: readers load it once, writers build a new root that shares
// what they did not change, and commit is one pointer store.
//
// Values are AST values, in and out. What was written must not be changed by its
// writer afterwards, and what was read is read-only.
//
// The package does not know bundles: bundle activation drives it.
package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
)

// Store is a copy-on-write storage.Store.
type Store struct {
	current atomic.Pointer[state]
	lastID  atomic.Uint64
	// writer is held by the one open write transaction. It is a channel so that
	// waiting for it ends with the context.
	writer chan struct{}

	mu       sync.Mutex // guards triggers
	triggers []*trigger
}

// state is one immutable version of all that is stored.
type state struct {
	data     ast.Object
	policies map[string][]byte
	files    map[string]files // that data came from, by the roots of their bundle
}

type trigger struct {
	store  *Store
	config storage.TriggerConfig
}

// New returns an empty store.
func New() *Store {
	s := &Store{writer: make(chan struct{}, 1)}
	s.current.Store(&state{data: ast.NewObject()})
	return s
}

// NewFromObject returns a store that holds data.
func NewFromObject(data map[string]any) (*Store, error) {
	v, err := ast.InterfaceToValue(data)
	if err != nil {
		return nil, fmt.Errorf("convert data to AST: %w", err)
	}
	obj, ok := v.(ast.Object)
	if !ok {
		return nil, errRootMustBeObject()
	}
	s := New()
	s.current.Store(&state{data: obj})
	return s, nil
}

// NewTransaction opens a transaction. A read transaction never waits; a write
// transaction waits for the one that is open, or until ctx ends.
func (s *Store) NewTransaction(ctx context.Context, params ...storage.TransactionParams) (storage.Transaction, error) {
	txn := &transaction{store: s, id: s.lastID.Add(1)}
	if len(params) > 0 {
		txn.write, txn.context = params[0].Write, params[0].Context
	}
	if txn.write {
		select {
		case s.writer <- struct{}{}:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the open write transaction: %w", ctx.Err())
		}
	}
	txn.view = s.current.Load()
	return txn, nil
}

// Pin returns a read transaction on the state that txn sees, for as long as the
// caller wants: it holds memory and nothing else. Within a trigger that is the
// state about to be published.
func (s *Store) Pin(txn storage.Transaction) (storage.Transaction, error) {
	t, err := s.open(txn)
	if err != nil {
		return nil, err
	}
	return &transaction{store: s, id: s.lastID.Add(1), view: t.view}, nil
}

// Commit ends the transaction. A write transaction's triggers run first and see
// its state through txn, while everybody else still sees the old one; then the
// state is published. A trigger that panics fails the commit, and nothing changes.
func (s *Store) Commit(ctx context.Context, txn storage.Transaction) error {
	t, err := s.open(txn)
	if err != nil {
		return err
	}
	if !t.write {
		t.stale.Store(true)
		return nil
	}
	defer s.release(t)
	if err := s.runTriggers(ctx, t); err != nil {
		return err
	}
	s.current.Store(t.view)
	return nil
}

// Abort ends the transaction and drops what it wrote. Aborting twice is a
// mistake of the caller that harms nobody, so it is ignored.
func (s *Store) Abort(_ context.Context, txn storage.Transaction) {
	t, err := s.open(txn)
	if err != nil {
		return
	}
	if t.write {
		s.release(t)
		return
	}
	t.stale.Store(true)
}

func (s *Store) release(t *transaction) {
	t.stale.Store(true)
	<-s.writer
}

func (s *Store) runTriggers(ctx context.Context, t *transaction) (err error) {
	s.mu.Lock()
	triggers := slices.Clone(s.triggers)
	s.mu.Unlock()
	if len(triggers) == 0 {
		return nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = &storage.Error{Code: storage.InternalErr, Message: fmt.Sprintf("trigger panicked: %v", p)}
		}
	}()
	event := t.event()
	for _, tr := range triggers {
		tr.config.OnCommit(ctx, t, event)
	}
	return nil
}

// Register adds a trigger, with a write transaction. Triggers get AST values
// whatever SkipDataConversion says: OPA's manager, which registers one, never
// looks at the data, and converting all of a bundle's data to Go maps on each
// commit would double its memory for nobody.
func (s *Store) Register(_ context.Context, txn storage.Transaction, config storage.TriggerConfig) (storage.TriggerHandle, error) {
	t, err := s.open(txn)
	if err != nil {
		return nil, err
	}
	if !t.write {
		return nil, errTxn("triggers must be registered with a write transaction")
	}
	tr := &trigger{store: s, config: config}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.triggers = append(s.triggers, tr)
	return tr, nil
}

// Unregister removes the trigger. It needs no transaction of its own.
func (t *trigger) Unregister(context.Context, storage.Transaction) {
	t.store.mu.Lock()
	defer t.store.mu.Unlock()
	t.store.triggers = slices.DeleteFunc(t.store.triggers, func(o *trigger) bool { return o == t })
}

// Read returns the ast.Value at path.
func (s *Store) Read(_ context.Context, txn storage.Transaction, path storage.Path) (any, error) {
	t, err := s.open(txn)
	if err != nil {
		return nil, err
	}
	v, err := lookup(t.view.data, path)
	if err != nil {
		return nil, err
	}
	return v, nil
}

// Write changes the document at path within the transaction.
func (s *Store) Write(_ context.Context, txn storage.Transaction, op storage.PatchOp, path storage.Path, value any) error {
	t, err := s.openForWrite(txn, "data")
	if err != nil {
		return err
	}
	v, err := ast.InterfaceToValue(value)
	if err != nil {
		return err
	}
	return t.writeData(op, path, v)
}

// MakeDir makes path and its parents objects.
func (s *Store) MakeDir(_ context.Context, txn storage.Transaction, path storage.Path) error {
	t, err := s.open(txn)
	if err != nil {
		return err
	}
	return t.makeDir(path)
}

// ListPolicies returns the sorted ids of the stored policies.
func (s *Store) ListPolicies(_ context.Context, txn storage.Transaction) ([]string, error) {
	t, err := s.open(txn)
	if err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(t.view.policies)), nil
}

// GetPolicy returns the text of policy id.
func (s *Store) GetPolicy(_ context.Context, txn storage.Transaction, id string) ([]byte, error) {
	t, err := s.open(txn)
	if err != nil {
		return nil, err
	}
	text, ok := t.view.policies[id]
	if !ok {
		return nil, &storage.Error{Code: storage.NotFoundErr, Message: fmt.Sprintf("policy id %q", id)}
	}
	return text, nil
}

// UpsertPolicy stores the text of policy id within the transaction.
func (s *Store) UpsertPolicy(_ context.Context, txn storage.Transaction, id string, text []byte) error {
	t, err := s.openForWrite(txn, "policy")
	if err != nil {
		return err
	}
	t.writePolicy(id, text, false)
	return nil
}

// DeletePolicy removes policy id within the transaction.
func (s *Store) DeletePolicy(ctx context.Context, txn storage.Transaction, id string) error {
	t, err := s.openForWrite(txn, "policy")
	if err != nil {
		return err
	}
	if _, err := s.GetPolicy(ctx, txn, id); err != nil {
		return err
	}
	t.writePolicy(id, nil, true)
	return nil
}

func (s *Store) open(txn storage.Transaction) (*transaction, error) {
	t, ok := txn.(*transaction)
	switch {
	case !ok:
		return nil, errTxn(fmt.Sprintf("unexpected transaction type %T", txn))
	case t.store != s:
		return nil, errTxn("unknown transaction")
	case t.stale.Load():
		return nil, errTxn("stale transaction")
	}
	return t, nil
}

func (s *Store) openForWrite(txn storage.Transaction, what string) (*transaction, error) {
	t, err := s.open(txn)
	if err != nil {
		return nil, err
	}
	if !t.write {
		return nil, errTxn(what + " write during read transaction")
	}
	return t, nil
}

// OPA tells storage errors by a type assertion on *storage.Error, not by
// errors.As: they are returned as they are, never wrapped.

func errTxn(msg string) error {
	return &storage.Error{Code: storage.InvalidTransactionErr, Message: msg}
}

func errNotFound() error {
	return &storage.Error{Code: storage.NotFoundErr, Message: "document does not exist"}
}

func errNotFoundAt(path storage.Path, hint string) error {
	return &storage.Error{Code: storage.NotFoundErr, Message: path.String() + ": " + hint}
}

func errRootMustBeObject() error {
	return &storage.Error{Code: storage.InvalidPatchErr, Message: "root must be object"}
}

var _ storage.Store = (*Store)(nil)

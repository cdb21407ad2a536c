package store_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/sallyport/sallyport/engine/store"
)

// write is one random change.
type write struct {
	op    storage.PatchOp
	path  storage.Path
	value any
}

func anyWrite(r *rand.Rand) write {
	w := write{op: pick(r, storage.AddOp, storage.AddOp, storage.PatchOp(storage.RemoveOp), storage.PatchOp(storage.ReplaceOp))}
	for range 1 + r.IntN(3) {
		w.path = append(w.path, pick(r, "a", "b", "c", "0", "1", "2", "-"))
	}
	w.value = pick[any](r, "s", json.Number("1"), nil, true, map[string]any{}, []any{}, map[string]any{"a": []any{"x"}, "b": "y"}, []any{"p", map[string]any{"a": "q"}})
	return w
}

func pick[T any](r *rand.Rand, values ...T) T { return values[r.IntN(len(values))] }

// The same changes lead to the same document and the same errors as in OPA's own
// store with a transaction for each, and so they do in one transaction for all.
// (OPA's store itself errs there: it does not find, to replace, what the same
// transaction has added.)
func TestWritesLikeOPAsStore(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for round := range 3000 {
		batch := make([]write, 1+r.IntN(8))
		var history []string
		for i := range batch {
			batch[i] = anyWrite(r)
			history = append(history, fmt.Sprintf("%v %v %v", batch[i].op, batch[i].path, batch[i].value))
		}
		ours, together, theirs := store.New(), store.New(), inmem.New()
		var want, got result
		for i := range batch {
			want, got = want.then(apply(t, theirs, batch[i:i+1])), got.then(apply(t, ours, batch[i:i+1]))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("round %d, %q: %s", round, history, diff)
		}
		if diff := cmp.Diff(want, apply(t, together, batch)); diff != "" {
			t.Fatalf("round %d, %q in one transaction: %s", round, history, diff)
		}
	}
}

func (r result) then(next result) result {
	next.Codes = append(r.Codes, next.Codes...)
	return next
}

// result is what a batch of writes leads to.
type result struct {
	Codes    []string
	Within   string // the document as the transaction sees it
	Document string
}

func apply(t *testing.T, s storage.Store, batch []write) (out result) {
	t.Helper()
	ctx := t.Context()
	txn, err := s.NewTransaction(ctx, storage.WriteParams)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range batch {
		out.Codes = append(out.Codes, code(s.Write(ctx, txn, w.op, w.path, w.value)))
	}
	out.Within = document(t, s, txn)
	if err := s.Commit(ctx, txn); err != nil {
		t.Fatal(err)
	}
	read, err := s.NewTransaction(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Abort(ctx, read)
	out.Document = document(t, s, read)
	return out
}

func document(t *testing.T, s storage.Store, txn storage.Transaction) string {
	t.Helper()
	v, err := s.Read(t.Context(), txn, storage.RootPath)
	if err != nil {
		t.Fatal(err)
	}
	if _, ours := s.(*store.Store); ours {
		return render(t, v, nil)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// BenchmarkTruncate is an activation's work in the store for about 10 MB of data.
func BenchmarkTruncate(b *testing.B) {
	users := map[string]any{}
	for i := range 40_000 {
		users[fmt.Sprint("user", i)] = map[string]any{"roles": []any{"reader", "writer"}, "tenant": fmt.Sprint("tenant", i%100), "note": fmt.Sprintf("%0150d", i)}
	}
	text, err := json.Marshal(map[string]any{"users": users})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		s := store.New()
		txn, err := s.NewTransaction(b.Context(), storage.WriteParams)
		if err != nil {
			b.Fatal(err)
		}
		it := &files{list: []storage.Update{{Path: storage.Path{"app"}, Value: text}}}
		if err := s.Truncate(b.Context(), txn, storage.TransactionParams{BasePaths: []string{"app"}}, it); err != nil {
			b.Fatal(err)
		}
		if err := s.Commit(b.Context(), txn); err != nil {
			b.Fatal(err)
		}
	}
}

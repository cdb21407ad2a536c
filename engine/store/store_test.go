package store_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"

	"github.com/sallyport/sallyport/engine/store"
)

const doc = `{
	"a": [1, 2, 3, 4],
	"b": {"v1": "hello", "v2": "goodbye"},
	"c": [{"x": [true, false, "foo"], "y": [null, 3.14159], "z": {"p": true, "q": false}}],
	"d": {"e": ["bar", "baz"]},
	"g": {"a": [1, 0, 0, 0], "b": [0, 2, 0, 0]}
}`

func open(t *testing.T, text string) *store.Store {
	t.Helper()
	var data map[string]any
	if err := json.Unmarshal([]byte(text), &data); err != nil {
		t.Fatal(err)
	}
	s, err := store.NewFromObject(data)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func begin(t *testing.T, s *store.Store, params ...storage.TransactionParams) storage.Transaction {
	t.Helper()
	txn, err := s.NewTransaction(t.Context(), params...)
	if err != nil {
		t.Fatal(err)
	}
	return txn
}

func path(s string) storage.Path { return storage.MustParsePath(s) }

// read returns the document at p as JSON, or the error's code.
func read(t *testing.T, s *store.Store, txn storage.Transaction, p string) string {
	t.Helper()
	v, err := s.Read(t.Context(), txn, path(p))
	return render(t, v, err)
}

func readCommitted(t *testing.T, s *store.Store, p string) string {
	t.Helper()
	v, err := storage.ReadOne(t.Context(), s, path(p))
	return render(t, v, err)
}

func render(t *testing.T, v any, err error) string {
	t.Helper()
	if err != nil {
		return code(err)
	}
	value, ok := v.(ast.Value)
	if !ok {
		t.Fatalf("store returned %T, want an AST value", v)
	}
	x, err := ast.JSON(value)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func code(err error) string {
	if err == nil {
		return ""
	}
	e, ok := err.(*storage.Error) //nolint:errorlint // OPA tells storage errors by type assertion; wrapped ones would not count
	if !ok {
		return "not a storage error: " + err.Error()
	}
	return e.Code
}

func TestRead(t *testing.T) {
	s := open(t, doc)
	for _, tc := range []struct{ path, want string }{
		{"/a/0", "1"},
		{"/a/3", "4"},
		{"/b/v1", `"hello"`},
		{"/b/v2", `"goodbye"`},
		{"/c/0/x/1", "false"},
		{"/c/0/y/0", "null"},
		{"/c/0/y/1", "3.14159"},
		{"/d/e/1", `"baz"`},
		{"/d/e", `["bar","baz"]`},
		{"/c/0/z", `{"p":true,"q":false}`},
		{"/a/4", storage.NotFoundErr},
		{"/a/-1", storage.NotFoundErr},
		{"/a/00", storage.NotFoundErr},
		{"/a/x", storage.NotFoundErr},
		{"/b/v3", storage.NotFoundErr},
		{"/b/v1/x", storage.NotFoundErr},
		{"/c/0/y/0/x", storage.NotFoundErr},
		{"/nope/deep", storage.NotFoundErr},
	} {
		t.Run(tc.path, func(t *testing.T) {
			if got := readCommitted(t, s, tc.path); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestWrite(t *testing.T) {
	for _, tc := range []struct {
		name  string
		op    storage.PatchOp
		path  string
		value string
		err   string
		look  string
		want  string
	}{
		{"add root", storage.AddOp, "/", `{"a":[1]}`, "", "/", `{"a":[1]}`},
		{"add member", storage.AddOp, "/newroot", `{"a":[[1]]}`, "", "/newroot", `{"a":[[1]]}`},
		{"add replaces member", storage.AddOp, "/b/v1", `1`, "", "/b", `{"v1":1,"v2":"goodbye"}`},
		{"append by dash", storage.AddOp, "/a/-", `"x"`, "", "/a", `[1,2,3,4,"x"]`},
		{"append by length", storage.AddOp, "/a/4", `"x"`, "", "/a", `[1,2,3,4,"x"]`},
		{"insert first", storage.AddOp, "/a/0", `"x"`, "", "/a", `["x",1,2,3,4]`},
		{"insert in the middle", storage.AddOp, "/a/1", `"x"`, "", "/a", `[1,"x",2,3,4]`},
		{"add below array", storage.AddOp, "/c/0/x/1", `"x"`, "", "/c/0/x", `[true,"x",false,"foo"]`},
		{"add member below array", storage.AddOp, "/c/0/n", `{}`, "", "/c/0/n", `{}`},
		{"remove member", storage.RemoveOp, "/b/v1", `null`, "", "/b", `{"v2":"goodbye"}`},
		{"remove top", storage.RemoveOp, "/a", `null`, "", "/a", storage.NotFoundErr},
		{"remove element", storage.RemoveOp, "/a/1", `null`, "", "/a", `[1,3,4]`},
		{"remove below array", storage.RemoveOp, "/c/0/x/1", `null`, "", "/c/0/x", `[true,"foo"]`},
		{"replace root", storage.ReplaceOp, "/", `{"a":[1]}`, "", "/", `{"a":[1]}`},
		{"replace member", storage.ReplaceOp, "/b/v1", `"x"`, "", "/b", `{"v1":"x","v2":"goodbye"}`},
		{"replace element", storage.ReplaceOp, "/a/1", `"x"`, "", "/a", `[1,"x",3,4]`},
		{"null is a value", storage.AddOp, "/b/v1", `null`, "", "/b/v1", `null`},

		{"root must be an object", storage.AddOp, "/", `[1,2]`, storage.InvalidPatchErr, "/a/0", "1"},
		{"root cannot go", storage.RemoveOp, "/", `null`, storage.InvalidPatchErr, "/a/0", "1"},
		{"parent is missing", storage.AddOp, "/new/missing", `1`, storage.NotFoundErr, "/new", storage.NotFoundErr},
		{"parent in array is missing", storage.AddOp, "/a/4/x", `1`, storage.NotFoundErr, "/a", `[1,2,3,4]`},
		{"index past the end", storage.AddOp, "/a/5", `1`, storage.NotFoundErr, "/a", `[1,2,3,4]`},
		{"index below zero", storage.AddOp, "/a/-1", `1`, storage.NotFoundErr, "/a", `[1,2,3,4]`},
		{"index is no number", storage.AddOp, "/a/x", `1`, storage.NotFoundErr, "/a", `[1,2,3,4]`},
		{"scalar has no members", storage.AddOp, "/b/v1/x", `1`, storage.NotFoundErr, "/b/v1", `"hello"`},
		{"remove what is not there", storage.RemoveOp, "/b/x", `null`, storage.NotFoundErr, "/b/v1", `"hello"`},
		{"remove past the end", storage.RemoveOp, "/a/9", `null`, storage.NotFoundErr, "/a", `[1,2,3,4]`},
		{"remove by dash", storage.RemoveOp, "/a/-", `null`, storage.InvalidPatchErr, "/a", `[1,2,3,4]`},
		{"replace what is not there", storage.ReplaceOp, "/b/x", `1`, storage.NotFoundErr, "/b/v1", `"hello"`},
		{"replace by length", storage.ReplaceOp, "/a/4", `1`, storage.InvalidPatchErr, "/a", `[1,2,3,4]`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := open(t, doc)
			var value any
			if err := json.Unmarshal([]byte(tc.value), &value); err != nil {
				t.Fatal(err)
			}
			err := storage.WriteOne(t.Context(), s, tc.op, path(tc.path), value)
			if got := code(err); got != tc.err {
				t.Errorf("write: %v, want code %q", err, tc.err)
			}
			if got := readCommitted(t, s, tc.look); got != tc.want {
				t.Errorf("%s is %s, want %s", tc.look, got, tc.want)
			}
		})
	}
}

func TestWriterSeesItsWritesAndOthersDoNot(t *testing.T) {
	s := open(t, doc)
	before := begin(t, s)
	w := begin(t, s, storage.WriteParams)
	for _, step := range []struct {
		op    storage.PatchOp
		path  string
		value any
	}{
		{storage.AddOp, "/b/v1", "one"},
		{storage.AddOp, "/h", map[string]any{"x": 1}},
		{storage.AddOp, "/h/y", 2},
		{storage.RemoveOp, "/h/x", nil},
		{storage.AddOp, "/a/-", 5},
	} {
		if err := s.Write(t.Context(), w, step.op, path(step.path), step.value); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := read(t, s, w, "/h"), `{"y":2}`; got != want {
		t.Errorf("writer reads %s, want %s", got, want)
	}
	for name, got := range map[string]string{"open": read(t, s, before, "/b/v1"), "new": readCommitted(t, s, "/b/v1")} {
		if got != `"hello"` {
			t.Errorf("%s reader sees %s before commit", name, got)
		}
	}
	if err := s.Commit(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	if got := readCommitted(t, s, "/a"); got != `[1,2,3,4,5]` {
		t.Errorf("after commit: %s", got)
	}
	if got := read(t, s, before, "/a"); got != `[1,2,3,4]` {
		t.Errorf("a reader's state changed under it: %s", got)
	}
}

func TestAbortChangesNothing(t *testing.T) {
	s := open(t, doc)
	w := begin(t, s, storage.WriteParams)
	if err := s.Write(t.Context(), w, storage.RemoveOp, path("/a"), nil); err != nil {
		t.Fatal(err)
	}
	if err := s.UpsertPolicy(t.Context(), w, "p", []byte("package p")); err != nil {
		t.Fatal(err)
	}
	s.Abort(t.Context(), w)
	if got := readCommitted(t, s, "/a"); got != `[1,2,3,4]` {
		t.Errorf("data after abort: %s", got)
	}
	r := begin(t, s)
	if _, err := s.GetPolicy(t.Context(), r, "p"); !storage.IsNotFound(err) {
		t.Errorf("policy after abort: %v", err)
	}
}

func TestTransactionErrors(t *testing.T) {
	s, other := open(t, doc), open(t, doc)
	stale := begin(t, s, storage.WriteParams)
	s.Abort(t.Context(), stale)
	done := begin(t, s, storage.WriteParams)
	if err := s.Commit(t.Context(), done); err != nil {
		t.Fatal(err)
	}
	reader := begin(t, s)
	for name, err := range map[string]error{
		"read after abort":      second(s.Read(t.Context(), stale, path("/a"))),
		"read after commit":     second(s.Read(t.Context(), done, path("/a"))),
		"commit after abort":    s.Commit(t.Context(), stale),
		"write in a reader":     s.Write(t.Context(), reader, storage.AddOp, path("/a"), 1),
		"policy in a reader":    s.UpsertPolicy(t.Context(), reader, "p", nil),
		"delete in a reader":    s.DeletePolicy(t.Context(), reader, "p"),
		"truncate in a reader":  s.Truncate(t.Context(), reader, storage.TransactionParams{}, &files{}),
		"make dir in a reader":  storage.MakeDir(t.Context(), s, reader, path("/new")),
		"register in a reader":  second(s.Register(t.Context(), reader, storage.TriggerConfig{})),
		"another store's":       second(other.Read(t.Context(), reader, path("/a"))),
		"list with a stale one": second(s.ListPolicies(t.Context(), stale)),
		"a foreign type":        second(s.Read(t.Context(), foreign{}, path("/a"))),
	} {
		if !storage.IsInvalidTransaction(err) {
			t.Errorf("%s: %v, want an invalid transaction", name, err)
		}
	}
}

type foreign struct{}

func (foreign) ID() uint64 { return 0 }

func second[T any](_ T, err error) error { return err }

func TestPolicies(t *testing.T) {
	s := store.New()
	ctx := t.Context()
	w := begin(t, s, storage.WriteParams)
	for _, id := range []string{"b", "a", "gone"} {
		if err := s.UpsertPolicy(ctx, w, id, []byte("package "+id)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.DeletePolicy(ctx, w, "gone"); err != nil {
		t.Fatal(err)
	}
	if err := s.DeletePolicy(ctx, w, "never"); !storage.IsNotFound(err) {
		t.Errorf("delete of a policy that is not there: %v", err)
	}
	if err := s.Commit(ctx, w); err != nil {
		t.Fatal(err)
	}
	r := begin(t, s)
	ids, err := s.ListPolicies(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "b"}, ids); diff != "" {
		t.Error(diff)
	}
	if text, err := s.GetPolicy(ctx, r, "b"); err != nil || string(text) != "package b" {
		t.Errorf("got %q, %v", text, err)
	}
	second := begin(t, s, storage.WriteParams)
	defer s.Abort(ctx, second)
	if err := s.DeletePolicy(ctx, second, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GetPolicy(ctx, r, "a"); err != nil {
		t.Errorf("a reader misses what a writer has deleted and not committed: %v", err)
	}
}

func TestMakeDir(t *testing.T) {
	s := open(t, doc)
	w := begin(t, s, storage.WriteParams)
	defer s.Abort(t.Context(), w)
	if err := storage.MakeDir(t.Context(), s, w, path("/b/x/y")); err != nil {
		t.Fatal(err)
	}
	if got := read(t, s, w, "/b"); got != `{"v1":"hello","v2":"goodbye","x":{"y":{}}}` {
		t.Error(got)
	}
	if err := storage.MakeDir(t.Context(), s, w, path("/b/v1/x")); !storage.IsWriteConflictError(err) {
		t.Errorf("directory below a string: %v", err)
	}
	if ok, err := storage.NonEmpty(t.Context(), s, w)([]string{"a", "b"}); err != nil || !ok {
		t.Errorf("an array is not empty: %v, %v", ok, err)
	}
}

func TestPinOutlivesItsTransaction(t *testing.T) {
	s := open(t, doc)
	w := begin(t, s, storage.WriteParams)
	if err := s.Write(t.Context(), w, storage.AddOp, path("/b/v1"), "new"); err != nil {
		t.Fatal(err)
	}
	pinned, err := s.Pin(w)
	if err != nil {
		t.Fatal(err)
	}
	s.Abort(t.Context(), w)
	if got := read(t, s, pinned, "/b/v1"); got != `"new"` {
		t.Error(got)
	}
	if err := s.Write(t.Context(), pinned, storage.AddOp, path("/x"), 1); !storage.IsInvalidTransaction(err) {
		t.Errorf("write through a pin: %v", err)
	}
	if _, err := s.Pin(w); !storage.IsInvalidTransaction(err) {
		t.Errorf("pin of an ended transaction: %v", err)
	}
}

// What a writer hands over is converted; changing its own copy changes nothing.
func TestWriteConverts(t *testing.T) {
	s := store.New()
	value := map[string]any{"x": []any{"y"}}
	if err := storage.WriteOne(t.Context(), s, storage.AddOp, path("/v"), value); err != nil {
		t.Fatal(err)
	}
	value["x"] = "changed"
	if got := readCommitted(t, s, "/v"); got != `{"x":["y"]}` {
		t.Error(got)
	}
	if err := storage.WriteOne(t.Context(), s, storage.AddOp, path("/v"), func() {}); err == nil {
		t.Error("a function was stored")
	}
}

package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

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

func TestTriggersSeeTheNewStateBeforeAnybodyElse(t *testing.T) {
	s := open(t, doc)
	ctx := t.Context()
	var events []storage.TriggerEvent
	var inTrigger, outside string
	register := begin(t, s, storage.WriteParams)
	handle, err := s.Register(ctx, register, storage.TriggerConfig{OnCommit: func(_ context.Context, txn storage.Transaction, e storage.TriggerEvent) {
		events = append(events, e)
		inTrigger, outside = read(t, s, txn, "/b/v1"), readCommitted(t, s, "/b/v1") //nolint:contextcheck // both use the test's context
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(ctx, register); err != nil {
		t.Fatal(err)
	}
	events = nil

	params := storage.WriteParams
	params.Context = storage.NewContext()
	params.Context.Put("key", "value")
	w := begin(t, s, params)
	write := func(op storage.PatchOp, p string, v any) {
		t.Helper()
		if err := s.Write(ctx, w, op, path(p), v); err != nil {
			t.Fatal(err)
		}
	}
	write(storage.AddOp, "/b/v1", "new")
	write(storage.AddOp, "/a/-", 5)
	write(storage.RemoveOp, "/g/a", nil)
	write(storage.AddOp, "/n", map[string]any{})
	write(storage.AddOp, "/n/below", true) // within /n, so no event of its own
	if err := s.UpsertPolicy(ctx, w, "p", []byte("package p")); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(ctx, w); err != nil {
		t.Fatal(err)
	}

	if inTrigger != `"new"` || outside != `"hello"` {
		t.Errorf("trigger saw %s and others %s", inTrigger, outside)
	}
	if len(events) != 1 {
		t.Fatalf("%d events", len(events))
	}
	if got := events[0].Context.Get("key"); got != "value" {
		t.Errorf("context of the transaction is lost: %v", got)
	}
	var got []string
	for _, d := range events[0].Data {
		if d.Removed {
			got = append(got, d.Path.String()+" removed")
			continue
		}
		got = append(got, d.Path.String()+" "+render(t, d.Data, nil))
	}
	slices.Sort(got)
	want := []string{"/a [1,2,3,4,5]", `/b/v1 "new"`, "/g/a removed", `/n {"below":true}`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if p := events[0].Policy; len(p) != 1 || p[0].ID != "p" || p[0].Removed {
		t.Errorf("policy events: %+v", p)
	}

	handle.Unregister(ctx, w)
	if err := storage.WriteOne(ctx, s, storage.AddOp, path("/b/v1"), "later"); err != nil {
		t.Fatal(err)
	}
	if len(events) != 1 {
		t.Error("an unregistered trigger ran")
	}
}

func TestFailedCommitChangesNothing(t *testing.T) {
	s := open(t, doc)
	ctx := t.Context()
	w := begin(t, s, storage.WriteParams)
	if _, err := s.Register(ctx, w, storage.TriggerConfig{OnCommit: func(context.Context, storage.Transaction, storage.TriggerEvent) {
		panic("broken trigger")
	}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Write(ctx, w, storage.AddOp, path("/b/v1"), "new"); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(ctx, w); code(err) != storage.InternalErr {
		t.Errorf("commit: %v", err)
	}
	if got := readCommitted(t, s, "/b/v1"); got != `"hello"` {
		t.Errorf("state after a failed commit: %s", got)
	}
	again := begin(t, s, storage.WriteParams) // would block if the writer were still held
	s.Abort(ctx, again)
}

// A reader that keeps its transaction open delays neither a commit nor the
// readers that come while the commit waits.
func TestSlowReaderDelaysNobody(t *testing.T) {
	s := open(t, doc)
	slow := begin(t, s)
	start := time.Now()
	if err := storage.WriteOne(t.Context(), s, storage.AddOp, path("/b/v1"), "new"); err != nil {
		t.Fatal(err)
	}
	if got := readCommitted(t, s, "/b/v1"); got != `"new"` {
		t.Error(got)
	}
	if took := time.Since(start); took > 400*time.Millisecond {
		t.Errorf("commit and read took %v beside an open reader", took)
	}
	if got := read(t, s, slow, "/b/v1"); got != `"hello"` {
		t.Error(got)
	}
	s.Abort(t.Context(), slow)
}

func TestReadersGoOnWhileATriggerRuns(t *testing.T) {
	s := open(t, doc)
	ctx := t.Context()
	entered, leave := make(chan struct{}), make(chan struct{})
	w := begin(t, s, storage.WriteParams)
	if _, err := s.Register(ctx, w, storage.TriggerConfig{OnCommit: func(context.Context, storage.Transaction, storage.TriggerEvent) {
		close(entered)
		<-leave
	}}); err != nil {
		t.Fatal(err)
	}
	committed := make(chan error, 1)
	go func() { committed <- s.Commit(ctx, w) }()
	<-entered
	if got := readCommitted(t, s, "/a/0"); got != "1" { // would deadlock under a lock
		t.Error(got)
	}
	close(leave)
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
}

func TestWritersWaitForEachOther(t *testing.T) {
	s := open(t, doc)
	first := begin(t, s, storage.WriteParams)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.NewTransaction(ctx, storage.WriteParams); !errors.Is(err, context.Canceled) {
		t.Errorf("second writer beside an open one: %v", err)
	}
	s.Abort(t.Context(), first)
	s.Abort(t.Context(), first) // ignored: it must not free a writer's place twice
	second := begin(t, s, storage.WriteParams)
	if _, err := s.NewTransaction(ctx, storage.WriteParams); !errors.Is(err, context.Canceled) {
		t.Errorf("third writer beside an open one: %v", err)
	}
	s.Abort(t.Context(), second)
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

// files is a storage.Iterator over literal files.
type files struct {
	list []storage.Update
	err  error
}

func (f *files) Next() (*storage.Update, error) {
	if len(f.list) == 0 {
		if f.err != nil {
			return nil, f.err
		}
		return nil, io.EOF
	}
	u := f.list[0]
	f.list = f.list[1:]
	return &u, nil
}

func TestTruncate(t *testing.T) {
	data := func(p, text string) storage.Update {
		return storage.Update{Path: path(p), Value: []byte(text)}
	}
	for _, tc := range []struct {
		name   string
		params storage.TransactionParams
		files  []storage.Update
		want   string
		fails  bool
	}{
		{"only the roots change", storage.TransactionParams{BasePaths: []string{"b", "new/deep"}}, []storage.Update{
			data("/", `{"b":{"x":1},"a":"not in a root"}`), data("/new/deep", `{"y":[true]}`),
		}, `{"a":[1,2],"b":{"x":1},"new":{"deep":{"y":[true]}}}`, false},
		{"files merge", storage.TransactionParams{BasePaths: []string{"b"}}, []storage.Update{
			data("/b", `{"x":{"one":1}}`), data("/b/x", `{"two":2}`), data("/", `{"b":{"x":{"three":3}}}`), data("/b/x/four", `4`),
		}, `{"a":[1,2],"b":{"x":{"four":4,"one":1,"three":3,"two":2}}}`, false},
		{"the empty root is all", storage.TransactionParams{BasePaths: []string{""}}, []storage.Update{data("/z", `1`)}, `{"z":1}`, false},
		{"root overwrite", storage.TransactionParams{RootOverwrite: true}, []storage.Update{data("/z", `1`)}, `{"z":1}`, false},
		{"a root without data stays", storage.TransactionParams{BasePaths: []string{"b"}}, nil, `{"a":[1,2],"b":{"k":"v"}}`, false},
		{"null is skipped", storage.TransactionParams{BasePaths: []string{"b"}}, []storage.Update{data("/b", `null`)}, `{"a":[1,2],"b":{"k":"v"}}`, false},
		{"YAML", storage.TransactionParams{BasePaths: []string{"b"}}, []storage.Update{data("/b", "x:\n- 1\n")}, `{"a":[1,2],"b":{"x":[1]}}`, false},
		{"escaped root", storage.TransactionParams{BasePaths: []string{"b/x%2Fy"}}, []storage.Update{
			{Path: storage.Path{"b", "x/y"}, Value: []byte(`1`)},
		}, `{"a":[1,2],"b":{"k":"v","x/y":1}}`, false},
		{"overlap", storage.TransactionParams{BasePaths: []string{"b"}}, []storage.Update{data("/b/x", `1`), data("/b/x", `2`)}, "", true},
		{"object over scalar", storage.TransactionParams{BasePaths: []string{"b"}}, []storage.Update{data("/b/x", `1`), data("/b/x/y", `2`)}, "", true},
		{"scalar over object", storage.TransactionParams{BasePaths: []string{"b"}}, []storage.Update{data("/b/x", `{}`), data("/b", `1`)}, "", true},
		{"root is no object", storage.TransactionParams{BasePaths: []string{"b"}}, []storage.Update{data("/", `[1]`)}, "", true},
		{"not JSON", storage.TransactionParams{BasePaths: []string{"b"}}, []storage.Update{data("/b", `{`)}, "", true},
		{"below a scalar", storage.TransactionParams{BasePaths: []string{"a/0/x"}}, []storage.Update{data("/a/0/x", `1`)}, "", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := open(t, `{"a":[1,2],"b":{"k":"v"}}`)
			w := begin(t, s, storage.WriteParams)
			err := s.Truncate(t.Context(), w, tc.params, &files{list: tc.files})
			if tc.fails {
				if err == nil {
					t.Error("want an error")
				}
				s.Abort(t.Context(), w)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Commit(t.Context(), w); err != nil {
				t.Fatal(err)
			}
			if got := readCommitted(t, s, "/"); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestTruncateStoresPoliciesAndReportsTheIterator(t *testing.T) {
	s := store.New()
	w := begin(t, s, storage.WriteParams)
	defer s.Abort(t.Context(), w)
	broken := errors.New("broken archive")
	it := &files{list: []storage.Update{{Path: path("/x/p.rego"), Value: []byte("package p"), IsPolicy: true}}, err: broken}
	if err := s.Truncate(t.Context(), w, storage.TransactionParams{}, it); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if text, err := s.GetPolicy(t.Context(), w, "x/p.rego"); err != nil || string(text) != "package p" {
		t.Errorf("policy: %q, %v", text, err)
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

package store_test

import (
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"

	"github.com/sallyport/sallyport/engine/store"
)

// truncate activates the files below the root, as OPA does: what is there is
// removed first.
func truncate(t *testing.T, s *store.Store, root string, list ...storage.Update) {
	t.Helper()
	w := begin(t, s, storage.WriteParams)
	if err := s.Write(t.Context(), w, storage.RemoveOp, path("/"+root), nil); err != nil && !storage.IsNotFound(err) {
		t.Fatal(err)
	}
	if err := s.Truncate(t.Context(), w, storage.TransactionParams{BasePaths: []string{root}}, &files{list: list}); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(t.Context(), w); err != nil {
		t.Fatal(err)
	}
}

func object(t *testing.T, s *store.Store, p string) ast.Object {
	t.Helper()
	txn := begin(t, s)
	defer s.Abort(t.Context(), txn)
	v, err := s.Read(t.Context(), txn, path(p))
	if err != nil {
		t.Fatal(err)
	}
	obj, ok := v.(ast.Object)
	if !ok {
		t.Fatalf("%s is %v", p, v)
	}
	return obj
}

// A data file with the bytes that it had keeps its document: the very same one.
func TestUnchangedFilesAreNotDecodedAgain(t *testing.T) {
	s := store.New()
	file := func(p, text string) storage.Update { return storage.Update{Path: path(p), Value: []byte(text)} }
	truncate(t, s, "a", file("/a/same", `{"k": {"v": 1}}`), file("/a/other", `{"k": 1}`))
	same, other := object(t, s, "/a/same"), object(t, s, "/a/other")
	truncate(t, s, "b", file("/b", `{"x": {"y": 1}}`))
	for range 2 {
		truncate(t, s, "a", file("/a/other", `{"k": 2}`), file("/a/same", `{"k": {"v": 1}}`))
		if object(t, s, "/a/same") != same {
			t.Error("the file that did not change was decoded again")
		}
		if object(t, s, "/a/other") == other || readCommitted(t, s, "/a/other") != `{"k":2}` {
			t.Error("the file that changed was not decoded")
		}
	}
	// A patch changes the tree and not the file.
	if err := storage.WriteOne(t.Context(), s, storage.AddOp, path("/a/same/k/v"), 2); err != nil {
		t.Fatal(err)
	}
	truncate(t, s, "a", file("/a/same", `{"k": {"v": 1}}`))
	if got := readCommitted(t, s, "/a"); got != `{"same":{"k":{"v":1}}}` {
		t.Errorf("after a patch and the file again: %s", got)
	}
}

// The documents of a bundle that is gone are not kept for their files.
func TestRemovedFilesAreForgotten(t *testing.T) {
	s := store.New()
	one := storage.Update{Path: path("/a"), Value: []byte(`{"k": {"v": 1}}`)}
	truncate(t, s, "a", one)
	k := object(t, s, "/a/k")
	if err := storage.WriteOne(t.Context(), s, storage.RemoveOp, path("/a"), nil); err != nil {
		t.Fatal(err)
	}
	truncate(t, s, "a", one)
	if object(t, s, "/a/k") == k {
		t.Error("the document was kept beyond its removal")
	}
}

// An activation that is aborted leaves nothing behind that a later one could take.
func TestAbortedFilesAreForgotten(t *testing.T) {
	s := store.New()
	w := begin(t, s, storage.WriteParams)
	text := storage.Update{Path: path("/a"), Value: []byte(`{"k": {}}`)}
	params := storage.TransactionParams{BasePaths: []string{"a"}}
	if err := s.Truncate(t.Context(), w, params, &files{list: []storage.Update{text}}); err != nil {
		t.Fatal(err)
	}
	v, err := s.Read(t.Context(), w, path("/a/k"))
	if err != nil {
		t.Fatal(err)
	}
	s.Abort(t.Context(), w)
	truncate(t, s, "a", text)
	if ast.Value(object(t, s, "/a/k")) == v.(ast.Value) {
		t.Error("the document of an aborted activation came back")
	}
}

// What an activation allocates stands in a ratio to the data that changed.
func TestAllocationsOfAnUnchangedFile(t *testing.T) {
	var text []byte
	text = append(text, `{"a": [`...)
	for range 10_000 {
		text = append(text, `{"name": "somebody", "n": 12345},`...)
	}
	text = append(text[:len(text)-1], "]}"...)
	s := store.New()
	again := func() { truncate(t, s, "a", storage.Update{Path: path("/"), Value: text}) }
	again()
	if n := testing.AllocsPerRun(3, again); n > 200 {
		t.Errorf("%.0f allocations for a file of %d bytes that did not change, want at most 200", n, len(text))
	}
}

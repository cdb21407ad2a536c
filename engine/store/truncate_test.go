package store_test

import (
	"errors"
	"io"
	"testing"

	"github.com/open-policy-agent/opa/v1/storage"

	"github.com/sallyport/sallyport/engine/store"
)

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

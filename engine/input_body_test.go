package engine

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"
)

// A JSON body that a policy sees is the document that encoding/json reads, and
// what encoding/json refuses no policy sees.
func FuzzJSONBody(f *testing.F) {
	for _, seed := range []string{
		`{"a": [1, -2.5e3, "x\u00e9\n", null, true], "b": {"c": {}}}`, `[]`, `"\ud800"`, `{"a":1,"a":2}`, `1 2`, `{"a"}`, `[1,]`, `nul`, `01`, ``, `{`, `[[[[`, "\"\x00\"",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, problem := parseJSON(data)
		if problem != "" {
			if problem == bodyMalformed && json.Valid(data) && !bytes.ContainsAny(data, "eE") {
				t.Errorf("%q is refused", data)
			}
			return
		}
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.UseNumber()
		var want any
		if err := dec.Decode(&want); err != nil || !json.Valid(data) {
			t.Fatalf("%q is accepted: %v", data, err)
		}
		got, err := ast.JSON(v)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", data, diff)
		}
	})
}

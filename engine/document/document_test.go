package document_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/util"

	"github.com/sallyport/sallyport/engine/document"
)

// opa decodes as OPA does.
func opa(text []byte) (ast.Value, error) {
	var raw any
	if err := util.Unmarshal(text, &raw); err != nil {
		return nil, err
	}
	return ast.InterfaceToValue(raw)
}

func same(t *testing.T, text []byte) {
	t.Helper()
	want, wantErr := opa(text)
	got, err := document.Decode(text)
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("%q: error %v, OPA's is %v", text, err, wantErr)
	}
	if err != nil {
		return
	}
	// The rendering tells 1 from 1.0, which a comparison does not.
	if got.Compare(want) != 0 || got.String() != want.String() || got.Hash() != want.Hash() || got.IsGround() != want.IsGround() {
		t.Errorf("%q:\ngot  %v\nwant %v", text, got, want)
	}
}

var texts = []string{
	`{}`, `[]`, `null`, `true`, `false`, `""`, `0`, `-0`, `-1.5e+3`, `1E400`, `1e-5`, `12345678901234567890`, `0.10`,
	` { "a" : [ 1 , 2 , { "b" : null } ] , "c" : "d" } `,
	`{"b":1,"a":2,"b":3}`, `{"a":{"x":1},"a":{"y":2}}`,
	`"\u00e9\n\ud83d\ude00\ud800"`, `"é日本"`, "\"\xff\"", `{"\u0061":1,"a":2}`, `{"":{"":""}}`,
	"\xef\xbb\xbf{\"a\":1}", `"` + strings.Repeat("long ", 2000) + `"`,
	strings.Repeat("[", 500) + strings.Repeat("]", 500),
	// Not JSON; some of it is YAML.
	``, ` `, `{`, `[1,]`, `[,1]`, `{"a":1,}`, `{"a"}`, `{a: 1}`, `{"a":1}}`, `01`, `1.`, `.5`, `-`, `1e`, `+1`, `tru`, `nul`,
	"\"a\nb\"", `"\x"`, `"\u12"`, `"abc`, `[1 2]`, `{"a" 1}`, `{1:2}`, "a: 1\nb:\n- c\n", "- 1\n- x: y\n", `[1]x`, `"a`, `"\`,
	`1e999999999999`,
	strings.Repeat("[", 10001) + strings.Repeat("]", 10001),
}

func TestDecodesAsOPADoes(t *testing.T) {
	for _, text := range texts {
		same(t, []byte(text))
	}
}

// Objects large enough to be built in steps, in and out of order, with doubles.
func TestLargeObjects(t *testing.T) {
	for _, n := range []int{1023, 1024, 5000} {
		var members []string
		for i := range n {
			members = append(members, fmt.Sprintf(`"key %d": {"n": %d, "s": "some text that is longer than what is shared %d"}`, i, i, i))
		}
		members = append(members, `"key 7": "the last one counts"`)
		same(t, []byte("{"+strings.Join(members, ",")+"}"))
		r := rand.New(rand.NewPCG(1, uint64(n)))
		r.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
		same(t, []byte("{"+strings.Join(members, ",")+"}"))
	}
}

func TestDecodeJSONTakesNothingElse(t *testing.T) {
	for _, text := range []string{"a: 1\n", "\xef\xbb\xbf{}", `{} {}`, ``} {
		if v, err := document.DecodeJSON([]byte(text)); err == nil {
			t.Errorf("%q became %v", text, v)
		}
	}
	if v, err := document.DecodeJSON([]byte(`{"a": 1}`)); err != nil || v.String() != `{"a": 1}` {
		t.Errorf("got %v, %v", v, err)
	}
}

// The value does not change with the bytes that it was read from.
func TestKeepsNothingOfTheText(t *testing.T) {
	text := []byte(`{"key": "value", "long": "` + strings.Repeat("x", 3000) + `", "n": 123456789}`)
	v, err := document.Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	before := v.String()
	clear(text)
	if v.String() != before {
		t.Error("the value changed with its text")
	}
}

func FuzzDecodesAsOPADoes(f *testing.F) {
	for _, text := range texts {
		if len(text) < 1000 {
			f.Add([]byte(text))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) { same(t, text) })
}

// records is n people, about 100 bytes each.
func records(n int) []byte {
	var b strings.Builder
	b.WriteString(`{"people": {`)
	for i := range n {
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(&b, `"p%d": {"name": "person number %d", "roles": ["a", "b%d"], "active": true, "n": %d}`, i, i, i, i)
	}
	b.WriteString("}}")
	return []byte(b.String())
}

// What is allocated for a document stands in a ratio to its size. OPA's decoder
// needs 21 allocations for a record and nine times its bytes.
func TestAllocationsPerRecord(t *testing.T) {
	const n = 2000
	text := records(n)
	allocs := testing.AllocsPerRun(3, func() {
		if _, err := document.Decode(text); err != nil {
			t.Fatal(err)
		}
	})
	if per := allocs / n; per > 14 {
		t.Errorf("%.1f allocations for a record, want at most 14", per)
	}
}

func BenchmarkDecode(b *testing.B) {
	text := records(100_000)
	for name, decode := range map[string]func([]byte) (ast.Value, error){"document": document.Decode, "OPA": opa} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := decode(text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

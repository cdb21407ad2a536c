package jose

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzObject: what is read is what encoding/json reads token by token, and the
// same is refused.
func FuzzObject(f *testing.F) {
	for _, seed := range []string{
		`{}`, ` { "a" : [ 1 , -2.5e+10 , true , false , null , { } , [ ] ] , "b" : "" } `, `{"a":{"b":{"c":[[],[[]]]}}}`,
		`{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `{"x":{"a":1,"a":1}}`, `[]`, `"text"`, `1`, `null`, ``, `{`, `{"a"}`, `{"a":1,}`, `{} {}`,
		`{"a":"\\"}`, `{"a":"\\\""}`, `{"a\\":"\"\u00e9\ud83d\ude00\n"}`, `{"a":"\ud800"}`, `{"a":"é,:{}[]"}`, "{\"a\":\"\xff\"}",
		`{"a":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `}`, `{"a":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`,
		`{"a":` + strings.Repeat("[", 33) + strings.Repeat("]", 33) + `}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := Object(data)
		want, wantErr := decodeByTokens(data)
		if (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() {
			t.Fatalf("%q: got error %v, want %v", data, err, wantErr)
		}
		if !reflect.DeepEqual(got, want) { // cmp.Diff takes exponential time in nested slices
			t.Fatalf("%q: got %v, want %v", data, got, want)
		}
	})
}

// decodeByTokens is Object as encoding/json would have it done.
func decodeByTokens(data []byte) (map[string]any, error) {
	if !utf8.Valid(data) || !json.Valid(data) {
		return nil, errNotObject
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	v, err := decodeValue(dec, 0)
	if err != nil {
		return nil, err
	}
	obj, ok := v.(map[string]any)
	if !ok {
		return nil, errNotObject
	}
	return obj, nil
}

func decodeValue(dec *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("JSON nests deeper than %d", maxDepth)
	}
	tok, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch tok {
	case json.Delim('{'):
		return decodeMembers(dec, depth)
	case json.Delim('['):
		return decodeElements(dec, depth)
	}
	return tok, nil
}

func decodeMembers(dec *json.Decoder, depth int) (map[string]any, error) {
	obj := make(map[string]any)
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, err
		}
		name, ok := tok.(string)
		if !ok {
			return nil, errNotObject
		}
		if _, dup := obj[name]; dup {
			return nil, fmt.Errorf("member %.64q stands twice", name)
		}
		if obj[name], err = decodeValue(dec, depth+1); err != nil {
			return nil, err
		}
	}
	_, err := dec.Token() // the closing brace
	return obj, err
}

func decodeElements(dec *json.Decoder, depth int) ([]any, error) {
	list := []any{}
	for dec.More() {
		v, err := decodeValue(dec, depth+1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	_, err := dec.Token() // the closing bracket
	return list, err
}

package jose

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds the nesting of header, claims and key sets. Tokens in use nest
// three or four levels.
const maxDepth = 32

var errNotObject = errors.New("not a JSON object")

// Object reads data as exactly one JSON object without duplicate members
// at any depth. Of two members with one name, parsers disagree about which one
// counts (RFC 8259 section 4), so a policy could see another claim than the one
// the issuer meant. Numbers are json.Number: nothing is rounded.
//
// encoding/json decides what is JSON. What it has accepted is then taken apart
// here, because its own reader, token by token, costs half as much as the
// signature check that follows.
func Object(data []byte) (map[string]any, error) {
	if !utf8.Valid(data) || !json.Valid(data) {
		return nil, errNotObject
	}
	r := reader{text: string(data)}
	v, err := r.value(0)
	if err != nil {
		return nil, err
	}
	obj, ok := v.(map[string]any)
	if !ok {
		return nil, errNotObject
	}
	return obj, nil
}

// reader reads text that is known to be JSON. What it returns are parts of text
// where that is possible.
type reader struct {
	text string
	at   int
}

// next passes over white space and separators, and returns the byte behind. In
// valid JSON the separators are where they belong.
func (r *reader) next() byte {
	for strings.IndexByte(" \t\r\n,:", r.text[r.at]) >= 0 {
		r.at++
	}
	return r.text[r.at]
}

func (r *reader) value(depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("JSON nests deeper than %d", maxDepth)
	}
	switch r.next() {
	case '{':
		return r.members(depth)
	case '[':
		return r.elements(depth)
	case '"':
		return r.string()
	case 't':
		r.at += len("true")
		return true, nil
	case 'f':
		r.at += len("false")
		return false, nil
	case 'n':
		r.at += len("null")
		return any(nil), nil
	}
	return r.number(), nil
}

func (r *reader) members(depth int) (map[string]any, error) {
	obj := make(map[string]any)
	for r.at++; r.next() != '}'; {
		name, err := r.string()
		if err != nil {
			return nil, err
		}
		if _, dup := obj[name]; dup {
			return nil, fmt.Errorf("member %.64q stands twice", name)
		}
		if obj[name], err = r.value(depth + 1); err != nil {
			return nil, err
		}
	}
	r.at++
	return obj, nil
}

func (r *reader) elements(depth int) ([]any, error) {
	list := []any{}
	for r.at++; r.next() != ']'; {
		v, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	r.at++
	return list, nil
}

// string reads a string; one with escapes by encoding/json.
func (r *reader) string() (string, error) {
	begin, escaped := r.at, false
	for r.at++; r.text[r.at] != '"'; r.at++ {
		if r.text[r.at] == '\\' {
			escaped = true
			r.at++
		}
	}
	r.at++
	if !escaped {
		return r.text[begin+1 : r.at-1], nil
	}
	var s string
	err := json.Unmarshal([]byte(r.text[begin:r.at]), &s)
	return s, err
}

func (r *reader) number() json.Number {
	begin := r.at
	for r.at < len(r.text) && strings.IndexByte("+-.0123456789eE", r.text[r.at]) >= 0 {
		r.at++
	}
	return json.Number(r.text[begin:r.at])
}

// Package document decodes data files straight into OPA's AST values.
//
// OPA decodes JSON into Go maps and converts those, which for the data of a
// bundle is most of what an activation costs: twice the memory, and a processor
// that does not look up while requests wait for it. Here a file is decoded in one
// pass, what repeats in it (the keys of records, short strings) is stored once,
// and the decoder gives way every few kilobytes, so that a request waits for a
// fraction of a millisecond and not for a slice of the scheduler.
//
// The package reads no files and knows no bundles.
package document

import (
	"bytes"
	"crypto/sha256"
	"errors"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/util"
)

const (
	// slice is how many bytes are decoded before others may run: about a tenth
	// of a millisecond.
	slice = 8 << 10
	// hashed is the same for hashing, which is faster.
	hashed = 64 << 10
	// maxDepth is encoding/json's limit of nesting.
	maxDepth = 10000
	// chunk is how many bytes of text are copied at once for the strings in them,
	// and so what one string that outlives its document keeps in memory.
	chunk = 4 << 10
	// maxShared and maxSharedLength bound the strings that are stored once.
	maxShared, maxSharedLength = 1024, 32
	// batch is how many terms are allocated at once.
	batch = 128
	// large is the size from which an object is built in steps.
	large = 1024
)

// errSyntax needs no detail: what is not JSON here is read again by OPA, which
// says where it is wrong.
var errSyntax = errors.New("not JSON")

// Decode returns what OPA makes of a data file: of JSON (RFC 8259), or else of
// YAML. Of keys that repeat in an object the last one counts. Nobody may write to
// text meanwhile; it is not kept.
func Decode(text []byte) (ast.Value, error) {
	if v, err := decodeJSON(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))); err == nil {
		return v, nil
	}
	var raw any
	if err := util.Unmarshal(text, &raw); err != nil {
		return nil, err
	}
	return ast.InterfaceToValue(raw)
}

// DecodeJSON is Decode without YAML and without a byte order mark.
func DecodeJSON(text []byte) (ast.Value, error) {
	if v, err := decodeJSON(text); err == nil {
		return v, nil
	}
	var raw any
	if err := util.UnmarshalJSON(text, &raw); err != nil {
		return nil, err
	}
	return ast.InterfaceToValue(raw)
}

func decodeJSON(text []byte) (ast.Value, error) {
	d := &decoder{text: text, shared: map[string]*ast.Term{}}
	t, err := d.value()
	if err != nil {
		return nil, err
	}
	d.space()
	if d.at != len(text) {
		return nil, errSyntax
	}
	return t.Value, nil
}

// Sum is the SHA-256 of the text.
func Sum(text []byte) [sha256.Size]byte {
	h := sha256.New()
	for len(text) > 0 {
		n := min(len(text), hashed)
		h.Write(text[:n])
		text = text[n:]
		GiveWay()
	}
	return [sha256.Size]byte(h.Sum(nil))
}

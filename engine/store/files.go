package store

import (
	"crypto/sha256"
	"maps"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"

	"github.com/sallyport/sallyport/engine/document"
)

// digest is the SHA-256 of a data file.
type digest [sha256.Size]byte

// files are the documents that data files hold. Most activations change rules, or
// one file of several: what has the same bytes keeps its document, which costs
// neither time nor memory.
type files map[digest]ast.Value

// reading is one call of Truncate.
type reading struct {
	known map[string]files // of the committed state
	files files            // what was read
}

func (r *reading) decode(text []byte) (ast.Value, error) {
	sum := document.Sum(text)
	for _, known := range r.known {
		if v, ok := known[sum]; ok {
			r.files[sum] = v
			return v, nil
		}
	}
	v, err := document.Decode(text)
	if err != nil {
		return nil, err
	}
	r.files[sum] = v
	return v, nil
}

// setFiles notes which files the documents at the roots came from.
func (t *transaction) setFiles(params storage.TransactionParams, read files) {
	next := *t.view
	if next.files = maps.Clone(t.view.files); next.files == nil {
		next.files = map[string]files{}
	}
	next.files[strings.Join(params.BasePaths, "\n")] = read
	t.view = &next
}

// forgetFiles lets go of the files whose roots are all at path or below it: the
// documents there are removed.
func (t *transaction) forgetFiles(path storage.Path) {
	if len(t.view.files) == 0 {
		return
	}
	gone := strings.TrimPrefix(path.String(), "/")
	below := func(roots string) bool {
		for root := range strings.SplitSeq(roots, "\n") {
			if root != gone && !strings.HasPrefix(root, gone+"/") {
				return false
			}
		}
		return true
	}
	next := *t.view
	next.files = maps.Clone(t.view.files)
	maps.DeleteFunc(next.files, func(roots string, _ files) bool { return below(roots) })
	t.view = &next
}

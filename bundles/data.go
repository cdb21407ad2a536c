package bundles

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/loader"

	"github.com/sallyport/sallyport/engine/document"
	"github.com/sallyport/sallyport/engine/store"
)

// dataFiles are the .json files below policy paths. OPA's loader would decode them
// to Go values, of which the store then makes AST values; here each is decoded to
// those at once, and only when it has other bytes than before.
type dataFiles struct {
	fsys  fs.FS // nil: the file system
	known map[[sha256.Size]byte]ast.Value

	root  string // the path that is walked
	found []dataFile
	seen  map[string]bool
	err   error
}

type dataFile struct {
	path string
	at   []string // where its document belongs in data
	sum  [sha256.Size]byte
	text []byte // nil: known
}

// filter has a loader leave out what skip says, and data files, which are noted.
func (d *dataFiles) filter(skip loader.Filter) loader.Filter {
	d.found, d.seen, d.err = nil, map[string]bool{}, nil
	return func(path string, info fs.FileInfo, depth int) bool {
		if depth == 0 {
			d.root = path
		}
		if skip(path, info, depth) {
			return true
		}
		if info.IsDir() || filepath.Ext(path) != ".json" {
			return false
		}
		d.err = errors.Join(d.err, d.note(path))
		return true
	}
}

func (d *dataFiles) note(path string) error {
	f := dataFile{path: path}
	if rel, err := filepath.Rel(d.root, filepath.Dir(path)); err == nil && path != d.root && rel != "." {
		f.at = strings.Split(filepath.ToSlash(rel), "/")
	}
	id := strings.Join(slices.Concat(f.at, []string{path}), "\x00")
	if d.seen[id] {
		return nil
	}
	d.seen[id] = true
	text, err := d.read(path)
	if err != nil {
		return err
	}
	if f.sum = document.Sum(text); d.known[f.sum] == nil {
		f.text = text
	}
	d.found = append(d.found, f)
	return nil
}

func (d *dataFiles) read(path string) ([]byte, error) {
	if d.fsys != nil {
		return fs.ReadFile(d.fsys, path)
	}
	return os.ReadFile(path) //nolint:gosec // below a path that the operator names
}

// release lets go of what was read and is not needed any more.
func (d *dataFiles) release() { d.found, d.seen = nil, nil }

// revision adds to the hash of a tree what the files hold.
func (d *dataFiles) revision(of string, l loading) string {
	h := sha256.New()
	_, _ = fmt.Fprintln(h, of)
	for _, f := range d.found { // in the order of the walk, which is that of names
		_, _ = fmt.Fprintf(h, "%q %x\n", l.below(f.path), f.sum)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// load returns a store with the documents of all files beside data, which came
// from files of other kinds.
func (d *dataFiles) load(data map[string]any) (*store.Store, error) {
	base, err := ast.InterfaceToValue(data)
	if err != nil {
		return nil, fmt.Errorf("load data: %w", err)
	}
	next := make(map[[sha256.Size]byte]ast.Value, len(d.found))
	documents := []store.Document{{Value: base}}
	var errs []error
	for _, f := range d.found {
		v, err := d.decode(f)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f.path, err))
			continue
		}
		next[f.sum] = v
		documents = append(documents, store.Document{Name: f.path, Path: f.at, Value: v})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	s, err := store.NewFromDocuments(documents)
	if err == nil {
		d.known = next
	}
	return s, err
}

func (d *dataFiles) decode(f dataFile) (ast.Value, error) {
	if f.text == nil {
		return d.known[f.sum], nil
	}
	return document.DecodeJSON(f.text)
}

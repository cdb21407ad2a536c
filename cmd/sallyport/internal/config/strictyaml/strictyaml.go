// Package strictyaml decodes one YAML document into Go structs and reports every
// problem of the document at once, each with its line and key: unknown keys with
// the nearest known one, keys given twice, values of a wrong type, environment
// variables that are not set.
//
// It exists because a gateway must not ignore a key: a misspelt setting that is
// silently dropped is a setting that was believed to protect something. YAML
// libraries stop at the first problem or lose the position of later ones.
//
// Struct fields are named by their yaml tags. A field tagged sallyport:"path"
// holds file names, which are resolved against the document's folder.
package strictyaml

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/agnivade/levenshtein"
	"go.yaml.in/yaml/v3"
)

// Problem is one thing wrong with the document.
type Problem struct {
	File string
	Line int
	Key  string // path of the key, "listeners[0].tls.cert_file"
	Text string

	unknown bool // the key is not one of ours, so no value is missing
}

func (p *Problem) Error() string {
	where := p.File
	if p.Line > 0 {
		where += ":" + strconv.Itoa(p.Line)
	}
	if p.Key == "" {
		return where + ": " + p.Text
	}
	return where + ": " + p.Key + ": " + p.Text
}

// Document is a decoded document: it knows where each key stands.
type Document struct {
	file   string
	dir    string
	env    func(string) (string, bool)
	lines  map[string]int
	protos map[reflect.Type]reflect.Value
	errs   []error
	depth  int
	nodes  int
}

// Limits of one document; only aliases that refer to themselves or to each other
// reach them.
const (
	maxDepth = 64
	maxNodes = 1 << 20
)

// Decode decodes data, named file in problems, into the struct that out points
// to. Text of the form ${NAME} is replaced by env's value of NAME in every
// string; $${ stands for a literal ${. The error joins a *Problem for each
// problem; the Document is valid even then.
//
// Each of defaults is a struct: an element of its type in a list or mapping
// starts as a copy of it, so that absent keys have their default.
func Decode(file string, data []byte, env func(string) (string, bool), out any, defaults ...any) (*Document, error) {
	d := &Document{file: file, dir: filepath.Dir(file), env: env, lines: map[string]int{}, protos: map[reflect.Type]reflect.Value{}}
	for _, def := range defaults {
		d.protos[reflect.TypeOf(def)] = reflect.ValueOf(def)
	}
	var root yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&root); err != nil {
		problem := d.syntax(err)
		if errors.Is(err, io.EOF) {
			problem = &Problem{File: file, Text: "the file is empty"}
		}
		d.errs = append(d.errs, problem) // all of it is broken, whatever key one asks for
		return d, problem
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		d.problem("", 0, "holds more than one YAML document; one configuration is one document")
	}
	d.value(root.Content[0], reflect.ValueOf(out).Elem(), "", false)
	return d, errors.Join(d.errs...)
}

// At returns a problem with key at the line where key, or its nearest enclosing
// key, stands in the document.
func (d *Document) At(key, text string) *Problem {
	for at := key; at != ""; at = parent(at) {
		if line, ok := d.lines[at]; ok {
			return &Problem{File: d.file, Line: line, Key: key, Text: text}
		}
	}
	return &Problem{File: d.file, Line: 1, Key: key, Text: text}
}

// Broken tells whether key, or a key above or below it, could not be decoded, so
// that its value means nothing.
func (d *Document) Broken(key string) bool {
	for _, err := range d.errs {
		var p *Problem
		if errors.As(err, &p) && !p.unknown && (within(key, p.Key) || within(p.Key, key)) {
			return true
		}
	}
	return false
}

// within tells whether key is outer or below it.
func within(key, outer string) bool {
	rest, ok := strings.CutPrefix(key, outer)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[' || outer == "")
}

func parent(key string) string {
	if i := strings.LastIndexAny(key, ".["); i > 0 {
		return key[:i]
	}
	return ""
}

var syntaxLine = regexp.MustCompile(`^yaml: line (\d+): `)

func (d *Document) syntax(err error) *Problem {
	text, line := err.Error(), 0
	if m := syntaxLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1])
		text = text[len(m[0]):]
	}
	return &Problem{File: d.file, Line: line, Text: "not valid YAML: " + strings.TrimPrefix(text, "yaml: ")}
}

func (d *Document) problem(key string, line int, format string, args ...any) {
	d.errs = append(d.errs, &Problem{File: d.file, Line: line, Key: key, Text: fmt.Sprintf(format, args...)})
}

// value decodes n into v, which is settable.
func (d *Document) value(n *yaml.Node, v reflect.Value, key string, path bool) {
	d.depth++
	d.nodes++
	defer func() { d.depth-- }()
	if d.depth > maxDepth || d.nodes > maxNodes {
		if d.nodes <= maxNodes+1 {
			d.problem("", n.Line, "nests too deep or repeats too much by aliases")
		}
		d.nodes = maxNodes + 1
		return
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if key != "" {
		d.lines[key] = n.Line
	}
	if n.Tag == "!!null" && v.Kind() != reflect.Struct {
		v.SetZero() // "key:" with nothing after it is the zero value, as in every YAML reader
		return
	}
	if isText(v) {
		d.scalar(n, v, key, path)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(n, v.Elem(), key, path)
	case reflect.Struct:
		d.structure(n, v, key)
	case reflect.Map:
		d.mapping(n, v, key, path)
	case reflect.Slice:
		d.sequence(n, v, key, path)
	case reflect.Interface:
		d.free(n, v, key)
	default:
		d.scalar(n, v, key, path)
	}
}

func (d *Document) structure(n *yaml.Node, v reflect.Value, key string) {
	if def, ok := d.protos[v.Type()]; ok && v.IsZero() {
		v.Set(def)
	}
	if n.Tag == "!!null" {
		return
	}
	if n.Kind != yaml.MappingNode {
		d.problem(key, n.Line, "is %s; a mapping of keys belongs here", kind(n))
		return
	}
	fields := map[string]field{}
	collect(v, fields)
	d.pairs(n, key, func(k, val *yaml.Node, at string) {
		f, ok := fields[k.Value]
		if !ok {
			d.errs = append(d.errs, &Problem{File: d.file, Line: k.Line, Key: at, Text: "unknown key" + nearest(k.Value, fields), unknown: true})
			return
		}
		d.value(val, f.value, at, f.path)
		d.lines[at] = k.Line
	})
}

// pairs calls each for every entry of a mapping, and reports keys given twice.
func (d *Document) pairs(n *yaml.Node, key string, each func(k, v *yaml.Node, at string)) {
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, val := n.Content[i], n.Content[i+1]
		at := k.Value
		if key != "" {
			at = key + "." + k.Value
		}
		switch {
		case k.Tag == "!!merge":
			d.problem(at, k.Line, "merge keys are not supported: write the keys out")
		case seen[k.Value] > 0:
			d.problem(at, k.Line, "given twice; first in line %d", seen[k.Value])
		default:
			seen[k.Value] = k.Line
			each(k, val, at)
		}
	}
}

func (d *Document) mapping(n *yaml.Node, v reflect.Value, key string, path bool) {
	if n.Kind != yaml.MappingNode {
		d.problem(key, n.Line, "is %s; a mapping belongs here", kind(n))
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	d.pairs(n, key, func(k, val *yaml.Node, at string) {
		elem := reflect.New(v.Type().Elem()).Elem()
		d.value(val, elem, at, path)
		d.lines[at] = k.Line
		v.SetMapIndex(reflect.ValueOf(k.Value).Convert(v.Type().Key()), elem)
	})
}

func (d *Document) sequence(n *yaml.Node, v reflect.Value, key string, path bool) {
	if n.Kind != yaml.SequenceNode {
		d.problem(key, n.Line, "is %s; a list belongs here", kind(n))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, e := range n.Content {
		d.value(e, v.Index(i), key+"["+strconv.Itoa(i)+"]", path)
	}
}

// free decodes into an interface: part of the document that is not ours to type,
// such as OPA's own configuration.
func (d *Document) free(n *yaml.Node, v reflect.Value, key string) {
	switch n.Kind {
	case yaml.MappingNode:
		m := reflect.New(reflect.TypeFor[map[string]any]()).Elem()
		d.mapping(n, m, key, false)
		v.Set(m)
	case yaml.SequenceNode:
		s := reflect.New(reflect.TypeFor[[]any]()).Elem()
		d.sequence(n, s, key, false)
		v.Set(s)
	default:
		if n.Tag == "!!str" {
			v.Set(reflect.ValueOf(d.expand(n, key)))
			return
		}
		var x any
		if err := n.Decode(&x); err != nil {
			d.problem(key, n.Line, "cannot be read: %v", err)
			return
		}
		v.Set(reflect.ValueOf(x))
	}
}

func (d *Document) scalar(n *yaml.Node, v reflect.Value, key string, path bool) {
	if n.Kind != yaml.ScalarNode {
		d.problem(key, n.Line, "is %s; %s belongs here", kind(n), wanted(v))
		return
	}
	c := *n
	c.Value = d.expand(n, key)
	if c.Value != n.Value && n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0 {
		c.Tag = "" // an expanded number is a number
	}
	if v.Kind() == reflect.String && n.Tag != "!!str" && !isText(v) {
		d.problem(key, n.Line, "is %s; text belongs here: write %q in quotes", kind(n), n.Value)
		return
	}
	if err := c.Decode(v.Addr().Interface()); err != nil {
		d.problem(key, n.Line, "%q is not %s%s", n.Value, wanted(v), cause(v, err))
		return
	}
	if path && v.Kind() == reflect.String && v.String() != "" && !filepath.IsAbs(v.String()) {
		v.SetString(filepath.Join(d.dir, v.String()))
	}
}

func isText(v reflect.Value) bool {
	_, ok := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr())
	return ok
}

// cause keeps the sentence of a type that reads its own text, and drops the
// library's, which names Go types.
func cause(v reflect.Value, err error) string {
	if isText(v) {
		return ": " + strings.TrimPrefix(err.Error(), "yaml: ")
	}
	return ""
}

var envRef = regexp.MustCompile(`\$?\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

func (d *Document) expand(n *yaml.Node, key string) string {
	if !strings.Contains(n.Value, "${") {
		return n.Value
	}
	return envRef.ReplaceAllStringFunc(n.Value, func(ref string) string {
		if strings.HasPrefix(ref, "$$") {
			return ref[1:]
		}
		name := ref[2 : len(ref)-1]
		val, ok := d.env(name)
		if !ok {
			d.problem(key, n.Line, "environment variable %s is not set", name)
		}
		return val
	})
}

type field struct {
	value reflect.Value
	path  bool
}

// collect lists the settable fields of a struct by key, inlined structs included.
func collect(v reflect.Value, into map[string]field) {
	for i := range v.NumField() {
		sf := v.Type().Field(i)
		name, opts, _ := strings.Cut(sf.Tag.Get("yaml"), ",")
		switch {
		case !sf.IsExported() || name == "-":
		case strings.Contains(opts, "inline"):
			collect(v.Field(i), into)
		case name != "":
			into[name] = field{value: v.Field(i), path: sf.Tag.Get("sallyport") == "path"}
		}
	}
}

// nearest suggests the known key that an unknown one probably meant.
func nearest(key string, fields map[string]field) string {
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	slices.Sort(names)
	best, dist := "", len(key)/2+2
	for _, name := range names {
		if n := levenshtein.ComputeDistance(key, name); n < dist {
			best, dist = name, n
		}
	}
	if best != "" {
		return fmt.Sprintf("; did you mean %q?", best)
	}
	return "; known here: " + strings.Join(names, ", ")
}

func kind(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Tag == "!!int", n.Tag == "!!float":
		return "a number"
	case n.Tag == "!!bool":
		return "true or false"
	case n.Tag == "!!null":
		return "empty"
	default:
		return "text"
	}
}

func wanted(v reflect.Value) string {
	if v.Type().String() == "time.Duration" {
		return "a duration such as 5s or 2m"
	}
	if isText(v) {
		return "a valid value"
	}
	switch v.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	case reflect.Int, reflect.Int64, reflect.Int32, reflect.Uint, reflect.Uint64, reflect.Uint32, reflect.Uint16:
		return "a whole number"
	default:
		return "a number"
	}
}

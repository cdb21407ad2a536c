package document

import (
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
)

// decoder reads one document. Its stacks hold the members of the objects and
// arrays that are open, so that each is allocated once, at its size.
type decoder struct {
	text    []byte
	at      int
	depth   int
	yieldAt int

	terms  []ast.Term // allocated and not yet used
	shared map[string]*ast.Term
	copied string // text[from:from+len(copied)]
	from   int
	steps  int

	members  [][2]*ast.Term
	elements []*ast.Term
}

func (d *decoder) value() (*ast.Term, error) {
	d.space()
	if d.at >= d.yieldAt {
		d.yieldAt = d.at + slice
		GiveWay()
	}
	if d.at == len(d.text) {
		return nil, errSyntax
	}
	switch d.text[d.at] {
	case '{':
		return d.nested(d.object)
	case '[':
		return d.nested(d.array)
	case '"':
		return d.str()
	case 't':
		return d.literal("true", ast.InternedTerm(true))
	case 'f':
		return d.literal("false", ast.InternedTerm(false))
	case 'n':
		return d.literal("null", ast.InternedNullTerm)
	default:
		return d.number()
	}
}

func (d *decoder) nested(read func() (*ast.Term, error)) (*ast.Term, error) {
	if d.depth++; d.depth > maxDepth {
		return nil, errSyntax
	}
	d.at++
	t, err := read()
	d.depth--
	return t, err
}

func (d *decoder) space() {
	for d.at < len(d.text) {
		switch d.text[d.at] {
		case ' ', '\t', '\n', '\r':
			d.at++
		default:
			return
		}
	}
}

// next skips space and reports whether c follows, which it then consumes.
func (d *decoder) next(c byte) bool {
	d.space()
	if d.at < len(d.text) && d.text[d.at] == c {
		d.at++
		return true
	}
	return false
}

func (d *decoder) literal(text string, t *ast.Term) (*ast.Term, error) {
	if len(d.text)-d.at < len(text) || string(d.text[d.at:d.at+len(text)]) != text {
		return nil, errSyntax
	}
	d.at += len(text)
	return t, nil
}

func (d *decoder) array() (*ast.Term, error) {
	base := len(d.elements)
	for !d.next(']') {
		if len(d.elements) > base && !d.next(',') {
			return nil, errSyntax
		}
		t, err := d.value()
		if err != nil {
			return nil, err
		}
		d.elements = append(d.elements, t)
	}
	elements := slices.Clone(d.elements[base:])
	d.elements = d.elements[:base]
	return d.term(ast.NewArray(elements...)), nil
}

func (d *decoder) object() (*ast.Term, error) {
	base := len(d.members)
	for !d.next('}') {
		if len(d.members) > base && !d.next(',') {
			return nil, errSyntax
		}
		d.space()
		if d.at == len(d.text) || d.text[d.at] != '"' {
			return nil, errSyntax
		}
		key, err := d.str()
		if err != nil {
			return nil, err
		}
		if !d.next(':') {
			return nil, errSyntax
		}
		value, err := d.value()
		if err != nil {
			return nil, err
		}
		d.members = append(d.members, ast.Item(key, value))
	}
	obj := d.build(d.members[base:])
	clear(d.members[base:])
	d.members = d.members[:base]
	return d.term(obj), nil
}

// build makes an object of the members, which it puts in order. An object sorts
// its keys when it is first walked; done here, no request has to.
func (d *decoder) build(members [][2]*ast.Term) ast.Object {
	slices.SortStableFunc(members, d.compare)
	members = lastOfEach(members)
	if len(members) < large {
		obj := ast.NewObject(members...)
		walked(obj)
		return obj
	}
	obj := ast.NewObjectWithCapacity(len(members))
	for i, m := range members {
		if i%large == 0 {
			GiveWay()
		}
		obj.Insert(m[0], m[1])
	}
	walked(obj)
	return obj
}

func (d *decoder) compare(a, b [2]*ast.Term) int {
	if d.steps++; d.steps%large == 0 {
		GiveWay()
	}
	return strings.Compare(string(a[0].Value.(ast.String)), string(b[0].Value.(ast.String)))
}

// lastOfEach drops all but the last of equal keys from sorted members.
func lastOfEach(members [][2]*ast.Term) [][2]*ast.Term {
	out := members[:0]
	for i, m := range members {
		if i+1 < len(members) && members[i+1][0].Value.(ast.String) == m[0].Value.(ast.String) {
			continue
		}
		out = append(out, m)
	}
	return out
}

// walked has the object note that its keys are in order.
func walked(obj ast.Object) {
	obj.Until(func(_, _ *ast.Term) bool { return true })
}

// str reads a string. What is short and repeats is stored once.
func (d *decoder) str() (*ast.Term, error) {
	start := d.at + 1
	end, plain, err := d.scan(start)
	if err != nil {
		return nil, err
	}
	raw := d.text[start:end]
	if !plain {
		var s string
		if err := json.Unmarshal(d.text[d.at:end+1], &s); err != nil {
			return nil, err
		}
		d.at = end + 1
		return d.term(ast.String(s)), nil
	}
	d.at = end + 1
	if len(raw) > maxSharedLength {
		return d.term(ast.String(d.copy(start, end))), nil
	}
	if t, ok := d.shared[string(raw)]; ok {
		return t, nil
	}
	s := d.copy(start, end)
	t := d.term(ast.String(s))
	if len(d.shared) < maxShared {
		d.shared[s] = t
	}
	return t, nil
}

// scan finds the end of the string that starts at i, and tells whether its bytes
// are its value.
func (d *decoder) scan(i int) (end int, plain bool, err error) {
	plain = true
	ascii := true
	for start := i; i < len(d.text); i++ {
		switch c := d.text[i]; {
		case c == '"':
			return i, plain && (ascii || utf8.Valid(d.text[start:i])), nil
		case c == '\\':
			plain = false
			i++
		case c < ' ':
			return 0, false, errSyntax
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return 0, false, errSyntax
}

// copy returns text[start:end] as a string that shares its memory with its
// neighbours.
func (d *decoder) copy(start, end int) string {
	if end-start > chunk/4 {
		return string(d.text[start:end])
	}
	if end > d.from+len(d.copied) {
		d.from = start
		d.copied = string(d.text[start:min(start+chunk, len(d.text))])
	}
	return d.copied[start-d.from : end-d.from]
}

func (d *decoder) term(v ast.Value) *ast.Term {
	if len(d.terms) == 0 {
		d.terms = make([]ast.Term, batch)
	}
	t := &d.terms[0]
	d.terms = d.terms[1:]
	t.Value = v
	return t
}

// number reads a number as RFC 8259, section 6, has it.
func (d *decoder) number() (*ast.Term, error) {
	start := d.at
	if d.peek() == '-' {
		d.at++
	}
	if d.peek() == '0' {
		d.at++
	} else if !d.digits() {
		return nil, errSyntax
	}
	if d.peek() == '.' {
		if d.at++; !d.digits() {
			return nil, errSyntax
		}
	}
	if d.peek()|0x20 == 'e' {
		d.at++
		if c := d.peek(); c == '+' || c == '-' {
			d.at++
		}
		if !d.digits() {
			return nil, errSyntax
		}
	}
	s := d.copy(start, d.at)
	if t := ast.InternedIntNumberTermFromString(s); t != nil {
		return t, nil
	}
	n, err := ast.NumberChecked(s)
	if err != nil {
		return nil, err
	}
	return d.term(n), nil
}

func (d *decoder) peek() byte {
	if d.at < len(d.text) {
		return d.text[d.at]
	}
	return 0
}

func (d *decoder) digits() bool {
	start := d.at
	for c := d.peek(); c >= '0' && c <= '9'; c = d.peek() {
		d.at++
	}
	return d.at > start
}

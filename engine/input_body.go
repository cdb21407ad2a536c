package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"strings"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Values of input.request.body_error. A malformed body is data: whether it matters
// is the policy's to say, and to the policy the body is absent.
const (
	bodyTruncated    = "truncated"     // longer than what is buffered, so it cannot be parsed
	bodyMalformed    = "malformed"     // not what its content type says
	bodyDuplicateKey = "duplicate_key" // a JSON object names a member twice: readers disagree on which counts
	bodyTooDeep      = "too_deep"      // JSON nested deeper than maxDepth
	bodyNotUTF8      = "not_utf8"      // text in another encoding
)

// maxDepth bounds the nesting of a JSON body; evaluation recurses over it.
const maxDepth = 200

// bodyTerms are the four members that describe the body; nil ones are absent.
type bodyTerms struct {
	value, raw, truncated, problem *ast.Term
}

// bodyPart builds one member of the body, which is read when the first one is
// asked for.
func bodyPart(get func(*bodyTerms) *ast.Term) build {
	return func(d *document) *ast.Term {
		if d.body == nil {
			d.body = d.readBody()
		}
		return get(d.body)
	}
}

func (d *document) readBody() *bodyTerms {
	if d.in.Request.Body == nil || d.err != nil {
		return &bodyTerms{}
	}
	data, truncated, err := d.in.Request.Body.Buffer(d.ctx)
	if err != nil {
		d.fail(fmt.Errorf("read request body: %w", err))
		return &bodyTerms{}
	}
	return describeBody(data, truncated, d.in.Request.ContentType)
}

func describeBody(data []byte, truncated bool, contentType string) *bodyTerms {
	b := &bodyTerms{truncated: ast.BooleanTerm(truncated)}
	if truncated {
		data = trimPartialRune(data)
	}
	if utf8.Valid(data) {
		b.raw = ast.StringTerm(string(data))
	}
	parse := parserFor(contentType)
	switch {
	case parse == nil || len(data) == 0 && !truncated:
	case truncated:
		b.problem = ast.StringTerm(bodyTruncated)
	case b.raw == nil:
		b.problem = ast.StringTerm(bodyNotUTF8)
	default:
		value, problem := parse(data)
		if problem != "" {
			b.problem = ast.StringTerm(problem)
			break
		}
		b.value = ast.NewTerm(value)
	}
	return b
}

// trimPartialRune removes the start of a character that the cut divided.
func trimPartialRune(data []byte) []byte {
	for i := 1; i < utf8.UTFMax && i <= len(data); i++ {
		if start := len(data) - i; utf8.RuneStart(data[start]) {
			if !utf8.FullRune(data[start:]) {
				return data[:start]
			}
			break
		}
	}
	return data
}

type bodyParser func(data []byte) (value ast.Value, problem string)

// parserFor returns the parser for a content type, nil for one that is not parsed.
func parserFor(contentType string) bodyParser {
	media, _, err := mime.ParseMediaType(contentType)
	switch {
	case err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter):
		return nil
	case media == "application/json" || strings.HasSuffix(media, "+json"):
		return parseJSON
	case media == "application/x-www-form-urlencoded":
		return parseForm
	}
	return nil
}

// parseForm reads a form as an object of arrays of strings, as the query is.
func parseForm(data []byte) (ast.Value, string) {
	return queryTerm(string(data)).Value, ""
}

// parseJSON reads one JSON value. It is stricter than encoding/json where readers
// of JSON differ from each other: the upstream must not see another document than
// the policy did.
func parseJSON(data []byte) (ast.Value, string) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	p := jsonParser{dec: dec}
	v, err := p.value(0)
	if err == nil {
		if _, end := dec.Token(); !errors.Is(end, io.EOF) {
			err = errMalformed
		}
	}
	switch {
	case err == nil:
		return v, ""
	case errors.Is(err, errDuplicate):
		return nil, bodyDuplicateKey
	case errors.Is(err, errTooDeep):
		return nil, bodyTooDeep
	}
	return nil, bodyMalformed
}

var (
	errMalformed = errors.New("malformed JSON")
	errDuplicate = errors.New("duplicate member")
	errTooDeep   = errors.New("nested too deeply")
)

type jsonParser struct{ dec *json.Decoder }

func (p *jsonParser) value(depth int) (ast.Value, error) {
	token, err := p.dec.Token()
	if err != nil {
		return nil, err
	}
	return p.from(token, depth)
}

func (p *jsonParser) from(token json.Token, depth int) (ast.Value, error) {
	switch token := token.(type) {
	case json.Delim:
		switch {
		case depth >= maxDepth:
			return nil, errTooDeep
		case token == '{':
			return p.object(depth + 1)
		case token == '[':
			return p.array(depth + 1)
		}
		return nil, errMalformed
	default:
		return ast.InterfaceToValue(token)
	}
}

func (p *jsonParser) object(depth int) (ast.Value, error) {
	obj := ast.NewObject()
	for {
		token, err := p.dec.Token()
		if err != nil {
			return nil, err
		}
		name, ok := token.(string)
		if !ok {
			return obj, nil // the decoder lets nothing but a name or "}" stand here
		}
		v, err := p.value(depth)
		if err != nil {
			return nil, err
		}
		key := ast.StringTerm(name)
		if obj.Get(key) != nil {
			return nil, errDuplicate
		}
		obj.Insert(key, ast.NewTerm(v))
	}
}

func (p *jsonParser) array(depth int) (ast.Value, error) {
	var terms []*ast.Term
	for {
		token, err := p.dec.Token()
		if err != nil {
			return nil, err
		}
		if token == json.Delim(']') {
			return ast.NewArray(terms...), nil
		}
		v, err := p.from(token, depth)
		if err != nil {
			return nil, err
		}
		terms = append(terms, ast.NewTerm(v))
	}
}

package engine

import (
	"context"
	"encoding/binary"
	"slices"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/sallyport/sallyport/engine/analysis"
	"github.com/sallyport/sallyport/engine/authz"
)

// The input document is built as AST terms, because the evaluator needs those and
// a detour through Go maps and JSON costs more than a small policy's evaluation,
// and only in the parts that the entrypoint can read. This file has the document's
// shape; input_request.go, input_identity.go and input_body.go fill it.

// document is one input document while it is built.
type document struct {
	ctx  context.Context
	in   *authz.Input
	body *bodyTerms // nil until a part of it is asked for
	err  error      // the first error; the document is unusable then
}

// build makes the term of one part, nil if the request does not have it: a part
// that was not provided is absent, not null.
type build func(*document) *ast.Term

// part is one member to build.
type part struct {
	key   *ast.Term
	build build
}

// plan lists the members of the input document to build. A plan is immutable and
// shared by all decisions of a snapshot.
type plan []part

// field is one member that the document can have: a leaf with build, or a section
// with a plan of its own.
type field struct {
	name  string
	build build
	// within narrows the member to what is read of it, if it can be.
	within func(*analysis.Node) build
	// key is the member's part of a cache key. Without one, what reads the member
	// is not cached; so it is with a new member until somebody thinks of it.
	key keyPart
	// keyWithin is the key of what is read of the member; it returns nil if that
	// has no key.
	keyWithin func(*analysis.Node) keyPart
	// fields are those of a section.
	fields []field
}

// planOf returns the plan for what is read; nil reads nothing.
func planOf(reads *analysis.Node) plan {
	return members(reads, inputFields())
}

func inputFields() []field {
	return []field{
		{name: "version", build: constant(authz.InputVersion), key: func(b []byte, _ *authz.Input) []byte { return b }},
		section("request", requestFields(), nil),
		section("source", sourceFields(), nil),
		section("tls", tlsFields(), func(in *authz.Input) bool { return in.TLS != nil }),
		{name: "identity", build: identityPart, keyWithin: identityKeyPart},
		section("route", routeFields(), nil),
		section("gateway", gatewayFields(), func(in *authz.Input) bool { return in.Gateway != nil }),
	}
}

// members selects the fields that are read.
func members(reads *analysis.Node, fields []field) plan {
	var p plan
	for _, f := range fields {
		n := reads.Child(f.name)
		if n == nil {
			continue
		}
		b := f.build
		if f.within != nil {
			b = f.within(n)
		}
		p = append(p, part{key: ast.StringTerm(f.name), build: b})
	}
	return slices.Clip(p)
}

// section is an object of fields, if present says the request has it.
func section(name string, fields []field, present func(*authz.Input) bool) field {
	return field{
		name: name, fields: fields,
		within: func(reads *analysis.Node) build {
			p := members(reads, fields)
			return func(d *document) *ast.Term {
				if present != nil && !present(d.in) {
					return nil
				}
				return p.object(d)
			}
		},
		keyWithin: sectionKey(fields, present),
	}
}

func (p plan) object(d *document) *ast.Term {
	pairs := make([][2]*ast.Term, 0, len(p))
	for i := range p {
		if term := p[i].build(d); term != nil {
			pairs = append(pairs, [2]*ast.Term{p[i].key, term})
		}
	}
	return ast.NewTerm(ast.NewObject(pairs...))
}

// document returns the input document for in. Its error is the client's, who did
// not deliver a body, or that of an identity no JSON document can hold.
func (p plan) document(ctx context.Context, in *authz.Input) (*ast.Term, error) {
	d := document{ctx: ctx, in: in}
	term := p.object(&d)
	return term, d.err
}

// InputDocument returns the whole input document for in, the body included if
// there is one. Decide builds less of it; tools that show or check the document
// want all.
func InputDocument(ctx context.Context, in *authz.Input) (*ast.Term, error) {
	return planOf(&analysis.Node{Whole: true}).document(ctx, in)
}

func (d *document) fail(err error) *ast.Term {
	if d.err == nil {
		d.err = err
	}
	return nil
}

// Helpers that make terms; each returns nil for what was not provided.

func constant(s string) build {
	term := ast.StringTerm(s)
	return func(*document) *ast.Term { return term }
}

func textField(name string, get func(*authz.Input) string) field {
	return field{
		name:  name,
		build: func(d *document) *ast.Term { return textTerm(get(d.in)) },
		key:   func(b []byte, in *authz.Input) []byte { return appendText(b, get(in)) },
	}
}

func textTerm(s string) *ast.Term {
	if s == "" {
		return nil
	}
	return ast.StringTerm(s)
}

// numberField leaves out what is below least, which stands for "not known".
func numberField(name string, least int64, get func(*authz.Input) int64) field {
	return field{
		name: name,
		build: func(d *document) *ast.Term {
			n := get(d.in)
			if n < least {
				return nil
			}
			return intTerm(n)
		},
		key: func(b []byte, in *authz.Input) []byte { return binary.AppendVarint(b, get(in)) },
	}
}

func intTerm(n int64) *ast.Term {
	return ast.NewTerm(ast.Number(formatInt(n)))
}

// listField is present even when empty: a chain of zero proxies is known to be empty.
func listField(name string, get func(*authz.Input) []string) field {
	return field{
		name:  name,
		build: func(d *document) *ast.Term { return listTerm(get(d.in)) },
		key:   func(b []byte, in *authz.Input) []byte { return appendList(b, get(in)) },
	}
}

func listTerm(values []string) *ast.Term {
	terms := make([]*ast.Term, len(values))
	for i, v := range values {
		terms[i] = ast.StringTerm(v)
	}
	return ast.ArrayTerm(terms...)
}

// knownList leaves out a list that the credential did not have.
func knownList(values []string) *ast.Term {
	if values == nil {
		return nil
	}
	return listTerm(values)
}

func mapField(name string, get func(*authz.Input) map[string]string) field {
	return field{
		name: name,
		build: func(d *document) *ast.Term {
			m := get(d.in)
			pairs := make([][2]*ast.Term, 0, len(m))
			for k, v := range m {
				pairs = append(pairs, [2]*ast.Term{ast.StringTerm(k), ast.StringTerm(v)})
			}
			return ast.NewTerm(ast.NewObject(pairs...))
		},
		keyWithin: mapKey(get),
	}
}

func timeTerm(t time.Time) *ast.Term {
	if t.IsZero() {
		return nil
	}
	return ast.StringTerm(t.UTC().Format("2006-01-02T15:04:05.000Z07:00"))
}

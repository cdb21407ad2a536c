package bundles

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/loader"

	"github.com/sallyport/sallyport/engine"
)

// Problem is one thing wrong with a policy, and where. Row and Col count from 1;
// they are 0, and File may be empty, where OPA does not know better.
type Problem struct {
	File     string
	Row, Col int
	Code     string // OPA's class of error, as rego_type_error; empty for those of the gateway
	Text     string
}

// Error writes the problem as compilers do: file:row:col: text.
func (p *Problem) Error() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Row > 0 {
			fmt.Fprintf(&b, ":%d:%d", p.Row, max(p.Col, 1))
		}
		b.WriteString(": ")
	}
	if p.Code != "" {
		b.WriteString(p.Code + ": ")
	}
	b.WriteString(p.Text)
	return b.String()
}

// Problems flattens an error of this package into its problems, in the order of
// files and rows. An error that carries no position becomes a problem without one.
func Problems(err error) []*Problem {
	out := flatten(err)
	slices.SortStableFunc(out, func(a, b *Problem) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		return a.Row - b.Row
	})
	return slices.CompactFunc(out, sameCause)
}

// sameCause tells OPA's longer wording of the error before it: its parser reports
// what it found and again what it expected.
func sameCause(a, b *Problem) bool {
	return a.Code == ast.ParseErr && b.Code == a.Code && a.File == b.File && a.Row == b.Row && a.Col == b.Col
}

func flatten(err error) []*Problem {
	switch e := err.(type) { //nolint:errorlint // containers are taken apart here, a wrapped container is looked for below
	case nil:
		return nil
	case *Problem:
		return []*Problem{e}
	case ast.Errors:
		return each(e)
	case loader.Errors:
		return each(e)
	case interface{ Unwrap() []error }:
		return each(e.Unwrap())
	case *ast.Error:
		return []*Problem{fromOPA(e)}
	case *engine.UnsupportedObligationError:
		return []*Problem{at(e.Location, "%s: no route that asks this rule has a token_exchange to carry it out with", e.Key)}
	case *engine.ForbiddenBuiltinError:
		return []*Problem{at(e.Location, "built-in function %s is not allowed", e.Name)}
	}
	return flattenWrapped(err)
}

func each[E error](list []E) []*Problem {
	var out []*Problem
	for _, e := range list {
		out = append(out, flatten(e)...)
	}
	return out
}

// flattenWrapped looks below fmt.Errorf("...: %w") for errors with positions.
func flattenWrapped(err error) []*Problem {
	if list, ok := errors.AsType[ast.Errors](err); ok {
		return each(list)
	}
	if list, ok := errors.AsType[loader.Errors](err); ok {
		return each(list)
	}
	if e, ok := errors.AsType[*ast.Error](err); ok {
		return []*Problem{fromOPA(e)}
	}
	return []*Problem{{Text: err.Error()}}
}

func fromOPA(e *ast.Error) *Problem {
	p := &Problem{Code: e.Code, Text: e.Message}
	if e.Location != nil {
		p.File, p.Row, p.Col = e.Location.File, e.Location.Row, e.Location.Col
	}
	if e.Details != nil {
		if lines := e.Details.Lines(); len(lines) > 0 {
			p.Text += "\n\t" + strings.Join(lines, "\n\t")
		}
	}
	return p
}

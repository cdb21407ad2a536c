// Package template writes header values and error bodies from what the gateway
// knows of a request, by Go's text/template with the variables and functions of
// Ambassador Edge Stack, so that its filters carry over. Three things are better
// here: a claim that is missing prints nothing instead of "<no value>", a header
// that a template can set is never the client's, and output and work are bounded.
//
// It owns the templates and no decision: who calls it says what becomes of the
// text.
package template

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/template"
	"text/template/parse"
)

const (
	// maxValue bounds a rendered header value in bytes: servers take about as much
	// for all headers together.
	maxValue = 8 << 10
	// maxBody bounds a rendered body in bytes.
	maxBody = 64 << 10
	// maxSteps bounds the turns of all loops of one rendering. A token of 16 KiB has
	// fewer claims.
	maxSteps = 10_000
)

// text is one parsed template with a bound on what it writes.
type text struct {
	constant string // the whole text when nothing is computed
	template *template.Template
	limit    int
}

// parseText parses source. Errors are for the operator, without the name that the
// library puts before them.
func parseText(source string, limit int) (*text, error) {
	t, err := template.New("template").Funcs(functions()).Parse(source)
	if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "template: template:"))
	}
	if len(t.Templates()) > 1 || t.Tree == nil && source != "" {
		return nil, errors.New("define and block are not available: a template that calls another can run without an end")
	}
	if t.Tree == nil {
		return &text{limit: limit}, nil
	}
	if len(t.Root.Nodes) == 1 && t.Root.Nodes[0].Type() == parse.NodeText {
		return &text{constant: source, limit: limit}, check(len(source), limit)
	}
	p := preparation{}
	if p.step, p.text, err = snippets(); err != nil {
		return nil, err
	}
	if err := p.list(t.Root); err != nil {
		return nil, err
	}
	return &text{template: t, limit: limit}, nil
}

func check(size, limit int) error {
	if size > limit {
		return fmt.Errorf("the result is longer than %d bytes", limit)
	}
	return nil
}

// errUnset is how doNotSet ends a template.
var errUnset = errors.New("doNotSet")

// render returns the text, and false if the template said doNotSet.
func (t *text) render(data map[string]any) (string, bool, error) {
	if t.template == nil {
		return t.constant, true, nil
	}
	data[budgetKey] = &budget{left: maxSteps}
	out := &bounded{left: t.limit}
	switch err := t.template.Execute(out, data); {
	case errors.Is(err, errUnset):
		return "", false, nil
	case err != nil:
		return "", false, fmt.Errorf("execute template: %w", err)
	}
	return out.text.String(), true, nil
}

var errTooLong = errors.New("the result is too long")

// bounded refuses to grow beyond a limit.
type bounded struct {
	text bytes.Buffer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, errTooLong
	}
	return b.text.Write(p)
}

var _ io.Writer = (*bounded)(nil)

// budget counts the turns of loops.
type budget struct{ left int }

// budgetKey is the name of the budget among the data. A template cannot name it:
// it is no identifier.
const budgetKey = "loop budget"

// preparation changes a parsed template: what an action prints goes through a
// function that prints nothing for what is not there, and each turn of a loop
// counts.
type preparation struct {
	step *parse.ActionNode
	text *parse.CommandNode
}

// snippets returns the nodes that are put into templates. They are parsed, since
// nodes cannot be made outside of the parser.
func snippets() (step *parse.ActionNode, text *parse.CommandNode, err error) {
	t, err := template.New("snippets").Funcs(functions()).Parse(`{{_step $}}{{"" | _text}}`)
	if err != nil {
		return nil, nil, err
	}
	one, ok1 := t.Root.Nodes[0].(*parse.ActionNode)
	two, ok2 := t.Root.Nodes[1].(*parse.ActionNode)
	if !ok1 || !ok2 {
		return nil, nil, errors.New("text/template parses actions to something else")
	}
	return one, two.Pipe.Cmds[1], nil
}

func (p *preparation) list(l *parse.ListNode) error {
	if l == nil {
		return nil
	}
	for _, n := range l.Nodes {
		if err := p.node(n); err != nil {
			return err
		}
	}
	return nil
}

func (p *preparation) node(n parse.Node) error {
	switch n := n.(type) {
	case *parse.ActionNode:
		if len(n.Pipe.Decl) == 0 {
			n.Pipe.Cmds = append(n.Pipe.Cmds, p.text)
		}
		return nil
	case *parse.IfNode:
		return errors.Join(p.list(n.List), p.list(n.ElseList))
	case *parse.WithNode:
		return errors.Join(p.list(n.List), p.list(n.ElseList))
	case *parse.RangeNode:
		err := errors.Join(p.list(n.List), p.list(n.ElseList))
		n.List.Nodes = append([]parse.Node{p.step}, n.List.Nodes...)
		return err
	case *parse.TemplateNode:
		return fmt.Errorf("there is no template %q to call", n.Name)
	}
	return nil // text, comments, break, continue
}

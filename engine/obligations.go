package engine

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/sallyport/sallyport/engine/analysis"
)

// UnsupportedObligationError reports a place where a policy asks for something
// that this gateway cannot carry out.
type UnsupportedObligationError struct {
	Key      string // upstream.token_exchange
	Location *ast.Location
}

func (e *UnsupportedObligationError) Error() string {
	p := placeOf(e.Location)
	return fmt.Sprintf("%s:%d: %s is not available", p.File, p.Row, e.Key)
}

// CheckObligations looks through the rules that the entrypoints can reach for
// obligations that would be a policy fault at run time, and reports each place as
// a joined UnsupportedObligationError. It sees literal names; a name that a policy
// computes is still refused when it decides. Exchange says that the routes that ask
// these rules can exchange tokens.
func CheckObligations(c *ast.Compiler, exchange bool, entrypoints ...string) error {
	var found []*UnsupportedObligationError
	seen := map[*ast.Rule]struct{}{}
	for _, path := range entrypoints {
		ref, err := entrypointRef(path)
		if err != nil {
			return fmt.Errorf("entrypoint %q: %w", path, err)
		}
		for _, rule := range analysis.Reachable(c, ref) {
			if _, done := seen[rule]; !done {
				seen[rule] = struct{}{}
				found = append(found, unsupportedIn(rule)...)
			}
		}
	}
	if exchange {
		found = slices.DeleteFunc(found, func(e *UnsupportedObligationError) bool { return e.Key == tokenExchange })
	}
	slices.SortFunc(found, func(a, b *UnsupportedObligationError) int {
		return cmp.Or(a.Location.Compare(b.Location), cmp.Compare(a.Key, b.Key))
	})
	problems := make([]error, len(found))
	for i, f := range found {
		problems[i] = f
	}
	return errors.Join(problems...)
}

// unsupportedIn finds members of object literals, and rules that define such a
// member themselves, as upstream.token_exchange := {...}.
func unsupportedIn(rule *ast.Rule) (found []*UnsupportedObligationError) {
	for _, term := range rule.Head.Ref() {
		if key, ok := unsupportedKey(term); ok {
			found = append(found, &UnsupportedObligationError{Key: key, Location: rule.Location})
		}
	}
	ast.WalkTerms(rule, func(term *ast.Term) bool {
		obj, ok := term.Value.(ast.Object)
		if !ok {
			return false
		}
		obj.Foreach(func(k, _ *ast.Term) {
			if key, ok := unsupportedKey(k); ok {
				found = append(found, &UnsupportedObligationError{Key: key, Location: cmp.Or(k.Location, term.Location, rule.Location)})
			}
		})
		return false
	})
	return found
}

const tokenExchange = "upstream.token_exchange"

func unsupportedKey(term *ast.Term) (string, bool) {
	if s, _ := term.Value.(ast.String); s == "token_exchange" {
		return tokenExchange, true
	}
	return "", false
}

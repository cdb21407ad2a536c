package engine

import (
	"errors"
	"fmt"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// anyHost in allow_net lifts the restriction on hosts.
const anyHost = "*"

// closedBuiltins are the built-in functions that a policy cannot use unless the
// operator opens them: they reach the network or the process, mint tokens, or
// write to the log what a policy sees.
func closedBuiltins() []string {
	return []string{
		"http.send", "net.lookup_ip_addr", "opa.runtime", "rego.parse_module",
		"io.jwt.encode_sign", "io.jwt.encode_sign_raw", "providers.aws.sign_req",
		"print", "internal.print", "trace",
	}
}

// capabilities returns OPA's capabilities without what the configuration leaves
// closed.
func capabilities(cfg BuiltinConfig) *ast.Capabilities {
	caps := ast.CapabilitiesForThisVersion()
	closed := slices.DeleteFunc(closedBuiltins(), func(name string) bool {
		return slices.Contains(cfg.Allow, name) || name == "internal.print" && slices.Contains(cfg.Allow, "print")
	})
	caps.Builtins = slices.DeleteFunc(caps.Builtins, func(b *ast.Builtin) bool {
		return slices.Contains(closed, b.Name)
	})
	// OPA reads nil as "any host" and empty as "none".
	caps.AllowNet = append([]string{}, cfg.AllowNet...)
	if slices.Contains(cfg.AllowNet, anyHost) {
		caps.AllowNet = nil
	}
	return caps
}

// ForbiddenBuiltinError reports a call of a built-in function that is closed.
type ForbiddenBuiltinError struct {
	Name     string
	Location *ast.Location // file and row of the call; may be nil
}

func (e *ForbiddenBuiltinError) Error() string {
	if e.Location == nil {
		return fmt.Sprintf("built-in function %s is not allowed", e.Name)
	}
	return fmt.Sprintf("%s:%d: built-in function %s is not allowed", e.Location.File, e.Location.Row, e.Name)
}

// CheckBuiltins reports every use of a built-in function that caps does not have,
// as joined ForbiddenBuiltinErrors. OPA's bundle plugin compiles with a compiler
// of its own that knows all built-in functions, so compiled modules are looked at
// again before they become live.
func CheckBuiltins(c *ast.Compiler, caps *ast.Capabilities) error {
	allowed := make(map[string]struct{}, len(caps.Builtins))
	for _, b := range caps.Builtins {
		allowed[b.Name] = struct{}{}
	}
	var found []*ForbiddenBuiltinError
	for _, module := range c.Modules {
		found = append(found, forbiddenIn(module, allowed)...)
	}
	slices.SortFunc(found, func(a, b *ForbiddenBuiltinError) int { return a.Location.Compare(b.Location) })
	problems := make([]error, len(found))
	for i, f := range found {
		problems[i] = f
	}
	return errors.Join(problems...)
}

func forbiddenIn(module *ast.Module, allowed map[string]struct{}) (found []*ForbiddenBuiltinError) {
	ast.WalkTerms(module, func(term *ast.Term) bool {
		ref, ok := term.Value.(ast.Ref)
		if !ok || len(ref) == 0 || ref[0].Equal(ast.DefaultRootDocument) || ref[0].Equal(ast.InputRootDocument) {
			return false
		}
		name := ref.String()
		if _, ok := ast.BuiltinMap[name]; !ok {
			return false
		}
		if _, ok := allowed[name]; !ok {
			found = append(found, &ForbiddenBuiltinError{Name: name, Location: term.Location})
		}
		return false
	})
	return found
}

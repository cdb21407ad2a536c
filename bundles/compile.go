package bundles

import (
	"encoding/json"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/sallyport/sallyport/engine/document"
	"github.com/sallyport/sallyport/policies"
)

// compilation says how strictly to compile.
type compilation struct {
	caps      *ast.Capabilities
	strict    bool                         // unused variables and imports are errors
	conflicts func([]string) (bool, error) // whether data has a path that a rule has too; nil: not checked
	schemas   bool                         // check what the policies read of input
}

// compile compiles all modules together and reports every error.
func (c compilation) compile(modules map[string]*ast.Module) (*ast.Compiler, error) {
	compiler := ast.NewCompiler().
		SetErrorLimit(0).
		WithStrict(c.strict).
		WithDefaultRegoVersion(ast.RegoV1)
	if c.caps != nil {
		compiler = compiler.WithCapabilities(c.caps)
	}
	if c.conflicts != nil {
		compiler = compiler.WithPathConflictsCheck(c.conflicts)
	}
	if c.schemas {
		set, err := schemaSet(modules)
		if err != nil {
			return nil, err
		}
		compiler = compiler.WithSchemas(set).WithUseTypeCheckAnnotations(true)
	}
	giveWayBetweenStages(compiler)
	if compiler.Compile(modules); compiler.Failed() {
		return nil, compiler.Errors
	}
	return compiler, nil
}

// giveWayBetweenStages lets requests go first after each of the compiler's passes,
// which take a few milliseconds each where there are hundreds of rules.
func giveWayBetweenStages(compiler *ast.Compiler) {
	for _, id := range ast.AllStages() {
		compiler.WithStageAfterID(id, ast.CompilerStageDefinition{
			Name: "GiveWay", MetricName: "give_way",
			Stage: func(*ast.Compiler) *ast.Error { document.GiveWay(); return nil },
		})
	}
}

// schemaSet makes the input schema the type of `input` in every module, so that
// input.user.eamil is an error whether or not the module is annotated, and gives
// the schemas the names schema.input and schema.decision for annotations. Schemas
// of other names are the policy authors' own: what they describe may be anything.
func schemaSet(modules map[string]*ast.Module) (*ast.SchemaSet, error) {
	var input, decision any
	if err := json.Unmarshal(policies.InputSchema(), &input); err != nil {
		return nil, fmt.Errorf("read input schema: %w", err)
	}
	if err := json.Unmarshal(policies.DecisionSchema(), &decision); err != nil {
		return nil, fmt.Errorf("read decision schema: %w", err)
	}
	set := ast.NewSchemaSet()
	for _, m := range modules {
		for _, ref := range schemaRefs(m) {
			set.Put(ref, map[string]any{})
		}
	}
	set.Put(ast.SchemaRootRef, input)
	set.Put(ast.MustParseRef("schema.input"), input)
	set.Put(ast.MustParseRef("schema.decision"), decision)
	return set, nil
}

func schemaRefs(m *ast.Module) []ast.Ref {
	var out []ast.Ref
	for _, a := range m.Annotations {
		for _, s := range a.Schemas {
			if s.Schema != nil {
				out = append(out, s.Schema)
			}
		}
	}
	return out
}

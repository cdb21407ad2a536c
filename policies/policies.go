// Package policies holds what the gateway knows about policies before anybody
// writes one: the default policy with its data and tests, a small Rego library,
// and the JSON Schemas of the input and the decision document.
//
// It is embedded in the binary, so that the demo and `check` need no files. It
// evaluates nothing: the engine does, and bundles brings policies there.
package policies

import (
	"embed"
	"io/fs"
)

// Entrypoint is the rule of the default policy that decides.
const Entrypoint = "gateway/decision"

//go:embed gateway lib access
var tree embed.FS

//go:embed schema/input.json
var inputSchema []byte

//go:embed schema/decision.json
var decisionSchema []byte

// Tree returns the default policy as a policy directory: its Rego, its data
// (access/data.json is data.access), the library and their tests. Loaded as
// `policy.paths` or written to disk with os.CopyFS it is ready to use.
func Tree() fs.FS { return tree }

// InputSchema returns the JSON Schema of the input document. It serves OPA's
// type checker too.
func InputSchema() []byte { return append([]byte(nil), inputSchema...) }

// DecisionSchema returns the JSON Schema of the decision document.
func DecisionSchema() []byte { return append([]byte(nil), decisionSchema...) }

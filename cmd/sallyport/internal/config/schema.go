package config

import (
	"bytes"
	_ "embed"
)

// schema is written by the test TestGenerated with -update; see make generate.
//
//go:generate go test -run ^TestGenerated$ . -update
//go:embed schema.json
var schema []byte

// Schema returns the JSON Schema of the configuration file, for editors and for
// charts.
func Schema() []byte { return bytes.Clone(schema) }

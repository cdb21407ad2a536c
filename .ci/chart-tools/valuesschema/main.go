// Command valuesschema makes the chart's values.schema.json: the hand-written
// schema of the chart's own values, with the gateway's schema of its
// configuration (`sallyport schema config` on standard input) in the place of $defs.config. So
// helm refuses a mistyped key of the configuration before anything is installed.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
)

// prefix keeps the definitions of the configuration apart from the chart's.
const prefix = "config."

func main() {
	log.SetFlags(0)
	log.SetPrefix("valuesschema: ")
	values := flag.String("values", "", "hand-written schema of the chart's values")
	out := flag.String("out", "", "file to write")
	flag.Parse()
	if err := run(os.Stdin, *values, *out); err != nil {
		log.Fatal(err)
	}
}

func run(config io.Reader, values, out string) error {
	text, err := os.ReadFile(values)
	if err != nil {
		return err
	}
	var outer, inner map[string]any
	if err := json.Unmarshal(text, &outer); err != nil {
		return fmt.Errorf("read %s: %w", values, err)
	}
	if err := json.NewDecoder(config).Decode(&inner); err != nil {
		return fmt.Errorf("read the schema of the configuration: %w", err)
	}
	if err := graft(outer, inner); err != nil {
		return err
	}
	merged, err := json.MarshalIndent(outer, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(out, append(merged, '\n'), 0o644) //nolint:gosec // a source file, not a secret
}

// graft puts the schema inner into outer as $defs.config, and its definitions
// beside it under names of their own.
func graft(outer, inner map[string]any) error {
	definitions, ok := outer["$defs"].(map[string]any)
	if !ok {
		return fmt.Errorf("the schema of the values has no $defs")
	}
	nested, _ := inner["$defs"].(map[string]any)
	for _, key := range []string{"$defs", "$schema", "$id"} {
		delete(inner, key)
	}
	for name, schema := range nested {
		definitions[prefix+name] = rename(schema)
	}
	definitions["config"] = rename(inner)
	return nil
}

// rename points every reference to where graft put its target.
func rename(schema any) any {
	switch s := schema.(type) {
	case map[string]any:
		for key, value := range s {
			ref, ok := value.(string)
			if ok && key == "$ref" {
				s[key] = "#/$defs/" + prefix + strings.TrimPrefix(ref, "#/$defs/")
				continue
			}
			s[key] = rename(value)
		}
	case []any:
		for i, value := range s {
			s[i] = rename(value)
		}
	}
	return schema
}

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRunPutsTheConfigurationInPlace(t *testing.T) {
	dir := t.TempDir()
	values, out := filepath.Join(dir, "values.json"), filepath.Join(dir, "out.json")
	write(t, values, `{"properties": {"config": {"$ref": "#/$defs/config"}}, "$defs": {"config": {}, "name": {"type": "string"}}}`)
	inner := `{"$schema": "s", "$id": "i", "properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"items": [{"$ref": "#/$defs/A"}]}}}`
	if err := run(strings.NewReader(inner), values, out); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var got any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	compact, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"$defs":{"config":{"properties":{"a":{"$ref":"#/$defs/config.A"}}},` +
		`"config.A":{"items":[{"$ref":"#/$defs/config.A"}]},"name":{"type":"string"}},` +
		`"properties":{"config":{"$ref":"#/$defs/config"}}}`
	if string(compact) != want {
		t.Errorf("got  %s\nwant %s", compact, want)
	}
}

func TestRunRefusesWhatIsNoSchema(t *testing.T) {
	dir := t.TempDir()
	values := filepath.Join(dir, "values.json")
	write(t, values, `{}`)
	for _, config := range []string{"", "{", "{}"} {
		if err := run(strings.NewReader(config), values, filepath.Join(dir, "out.json")); err == nil {
			t.Errorf("%q: no error", config)
		}
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

package policies_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/format"

	"github.com/sallyport/sallyport/bundles"
	"github.com/sallyport/sallyport/policies"
)

func TestRegoTestsPassWithFullCoverage(t *testing.T) {
	t.Parallel()
	report, err := bundles.RunTests(context.Background(), bundles.Tests{Paths: []string{"."}, FS: policies.Tree()})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range report.Results {
		if r.Failure != "" {
			t.Errorf("%s:%d: %s.%s: %s", r.File, r.Row, r.Package, r.Name, r.Failure)
		}
	}
	if len(report.Results) < 20 {
		t.Errorf("ran %d tests, expected at least 20", len(report.Results))
	}
	for _, rows := range report.NotCovered {
		t.Errorf("%s:%d-%d is not covered", rows.File, rows.From, rows.To)
	}
	if report.Coverage != 100 {
		t.Errorf("coverage is %.1f %%, want 100 %%", report.Coverage)
	}
}

func TestRegoIsFormatted(t *testing.T) {
	t.Parallel()
	err := fs.WalkDir(policies.Tree(), ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".rego") {
			return err
		}
		src, err := fs.ReadFile(policies.Tree(), path)
		if err != nil {
			return err
		}
		want, err := format.Source(path, src)
		if err != nil {
			return err
		}
		if !bytes.Equal(src, want) {
			t.Errorf("%s differs from what `opa fmt` writes:\n%s", path, want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSchemasAreJSON(t *testing.T) {
	t.Parallel()
	for name, raw := range map[string][]byte{"input": policies.InputSchema(), "decision": policies.DecisionSchema()} {
		var schema map[string]any
		if err := json.Unmarshal(raw, &schema); err != nil {
			t.Errorf("schema %s: %v", name, err)
		}
	}
}

func TestSchemaCopiesAreTheCallers(t *testing.T) {
	t.Parallel()
	policies.InputSchema()[0] = 'x'
	if policies.InputSchema()[0] != '{' {
		t.Error("changing a returned schema changed the embedded one")
	}
}

// blocks returns the fenced blocks of a language in the README.
func blocks(t *testing.T, language string) []string {
	t.Helper()
	raw, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, part := range strings.Split(string(raw), "```"+language+"\n")[1:] {
		block, _, _ := strings.Cut(part, "```")
		out = append(out, block)
	}
	if len(out) == 0 {
		t.Fatalf("README.md has no block of %s", language)
	}
	return out
}

func TestREADMEShowsTheEmbeddedData(t *testing.T) {
	t.Parallel()
	raw, err := fs.ReadFile(policies.Tree(), "access/data.json")
	if err != nil {
		t.Fatal(err)
	}
	var want, got any
	if err := json.Unmarshal(raw, &want); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(blocks(t, "json")[0]), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("README.md and access/data.json (-want +got):\n%s", diff)
	}
}

func TestREADMEPolicyChecks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.CopyFS(dir, policies.Tree()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "gateway", "gateway.rego"), []byte(blocks(t, "rego")[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range bundles.CheckPaths(context.Background(), []string{dir}, bundles.Checking{Entrypoints: []string{policies.Entrypoint}}) {
		t.Error(p)
	}
}

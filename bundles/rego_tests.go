package bundles

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"
)

// Tests says which Rego tests to run. A test is a rule whose name starts with
// "test_", as for `opa test`.
type Tests struct {
	Paths        []string
	FS           fs.FS             // nil: the file system
	Capabilities *ast.Capabilities // what policies may call; tests may print as well. nil: all of OPA
	Filter       string            // regular expression on package and name; empty: all
	Timeout      time.Duration     // per test; 0: 5s
}

// TestResult is the outcome of one test.
type TestResult struct {
	Package, Name string
	File          string
	Row           int
	Skipped       bool
	Failure       string // why it failed; empty when it passed
	Output        string // what the test printed
	Duration      time.Duration
}

// Passed reports whether the test ran and held.
func (r *TestResult) Passed() bool { return r.Failure == "" && !r.Skipped }

// Rows is a range of rows of a file.
type Rows struct {
	File     string
	From, To int
}

// TestReport is the outcome of a run.
type TestReport struct {
	Results    []TestResult
	Coverage   float64 // percent of the rows that the tests reached; the tests themselves do not count
	NotCovered []Rows
}

// Failed returns the number of tests that did not hold.
func (r *TestReport) Failed() int {
	n := 0
	for i := range r.Results {
		if r.Results[i].Failure != "" {
			n++
		}
	}
	return n
}

// RunTests runs the Rego tests below the paths. The error is about policies that
// do not load or compile (see Problems); a test that fails is a result.
func RunTests(ctx context.Context, t Tests) (*TestReport, error) {
	tree, err := loading{paths: t.Paths, fsys: t.FS, tests: true, caps: testCapabilities(t.Capabilities)}.load()
	if err != nil {
		return nil, err
	}
	cov := cover.New()
	results, err := t.run(ctx, tree, cov)
	if err != nil {
		return nil, err
	}
	report := &TestReport{Results: results}
	report.addCoverage(cov, tree.modules)
	return report, nil
}

func (t Tests) run(ctx context.Context, tree *tree, cov *cover.Cover) ([]TestResult, error) {
	store := inmem.NewFromObject(tree.data)
	txn, err := store.NewTransaction(ctx, storage.TransactionParams{})
	if err != nil {
		return nil, fmt.Errorf("open data: %w", err)
	}
	defer store.Abort(ctx, txn)

	compiler := ast.NewCompiler().
		SetErrorLimit(0).
		WithDefaultRegoVersion(ast.RegoV1).
		WithCapabilities(testCapabilities(t.Capabilities)).
		WithEnablePrintStatements(true).
		WithPathConflictsCheck(storage.NonEmpty(ctx, store, txn))
	ch, err := tester.NewRunner().
		SetCompiler(compiler).
		SetStore(store).
		SetModules(tree.modules).
		SetCoverageQueryTracer(cov).
		SetCoverageRuns(nil).
		SetTimeout(cmp.Or(t.Timeout, 5*time.Second)).
		Filter(t.Filter).
		RunTests(ctx, txn)
	if err != nil {
		return nil, err
	}
	var out []TestResult
	for r := range ch {
		out = append(out, newTestResult(r))
	}
	slices.SortFunc(out, func(a, b TestResult) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Row, b.Row), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

func newTestResult(r *tester.Result) TestResult {
	out := TestResult{
		Package: r.Package, Name: r.Name, Skipped: r.Skip,
		Output: string(r.Output), Duration: r.Duration,
	}
	if r.Location != nil {
		out.File, out.Row = r.Location.File, r.Location.Row
	}
	switch {
	case r.Error != nil:
		out.Failure = r.Error.Error()
	case r.Fail:
		out.Failure = failure(r)
	}
	return out
}

// failure names the cases that failed, or the expression that did not hold.
func failure(r *tester.Result) string {
	text := "did not hold"
	if r.FailedAt != nil && r.FailedAt.Location != nil {
		at := r.FailedAt.Location
		text = fmt.Sprintf("%s:%d: %s did not hold", at.File, at.Row, at.Text)
	}
	for path, sub := range r.SubResults.Iter {
		if sub.Fail && len(sub.SubResults) == 0 {
			text += fmt.Sprintf("\n\tcase %q", path)
		}
	}
	return text
}

func (r *TestReport) addCoverage(cov *cover.Cover, modules map[string]*ast.Module) {
	subject := map[string]*ast.Module{}
	for name, m := range modules {
		if !isTest(name) {
			subject[name] = m
		}
	}
	report := cov.Report(subject)
	covered, total := 0, 0
	for file, fr := range report.Files {
		if isTest(file) {
			continue
		}
		covered += fr.CoveredLines
		total += fr.CoveredLines + fr.NotCoveredLines
		for _, rng := range fr.NotCovered {
			r.NotCovered = append(r.NotCovered, Rows{file, rng.Start.Row, rng.End.Row})
		}
	}
	slices.SortFunc(r.NotCovered, func(a, b Rows) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.From, b.From))
	})
	r.NotCovered = slices.Compact(r.NotCovered)
	r.Coverage = 100
	if total > 0 {
		r.Coverage = 100 * float64(covered) / float64(total)
	}
}

// testCapabilities adds what only tests may call: print, and the marker of a
// case that the test runner itself puts in.
func testCapabilities(caps *ast.Capabilities) *ast.Capabilities {
	all := ast.CapabilitiesForThisVersion()
	if caps == nil {
		return all
	}
	out := *caps
	out.Builtins = slices.Clone(caps.Builtins)
	for _, b := range all.Builtins {
		if !forTests(b.Name) || slices.ContainsFunc(out.Builtins, func(o *ast.Builtin) bool { return o.Name == b.Name }) {
			continue
		}
		out.Builtins = append(out.Builtins, b)
	}
	return &out
}

func forTests(builtin string) bool {
	return builtin == ast.Print.Name || builtin == ast.InternalPrint.Name || builtin == ast.InternalTestCase.Name
}

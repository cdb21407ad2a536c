package bundles_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/bundles"
)

func runTests(t *testing.T, files ...string) (*bundles.TestReport, string, error) {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, files...)
	report, err := bundles.RunTests(context.Background(), bundles.Tests{
		Paths: []string{dir}, Capabilities: newEngine(t).Capabilities(), Timeout: 2 * time.Second,
	})
	return report, dir, err
}

func TestRunTests(t *testing.T) {
	t.Parallel()
	report, dir, err := runTests(t,
		"gateway.rego", "package gateway\n\ndecision if data.open\n\nunused if input.request.method == \"PUT\"\n",
		"data.json", `{"open": true}`,
		"gateway_test.rego", `package gateway_test

import data.gateway

test_passes if gateway.decision

test_fails if {
	print("saw", gateway.decision)
	not gateway.decision
}

test_cases[name] if {
	some name, want in {"right": true, "wrong": false}
	gateway.decision == want
}

todo_test_later if false
`)
	if err != nil {
		t.Fatal(err)
	}
	type outcome struct {
		Name, Failure, Output string
		Row                   int
		Skipped               bool
	}
	var got []outcome
	for _, r := range report.Results {
		got = append(got, outcome{r.Name, strings.ReplaceAll(r.Failure, dir+"/", ""), r.Output, r.Row, r.Skipped})
	}
	want := []outcome{
		{Name: "test_passes", Row: 5},
		{Name: "test_fails", Row: 7, Output: "saw true\n", Failure: "did not hold"},
		{Name: "test_cases", Row: 12, Failure: "did not hold\n\tcase [\"wrong\"]"},
		{Name: "todo_test_later", Row: 17, Skipped: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
	if report.Failed() != 2 {
		t.Errorf("%d failed, want 2", report.Failed())
	}
	if report.Coverage >= 100 || len(report.NotCovered) != 1 || report.NotCovered[0].From != 5 {
		t.Errorf("coverage %.0f, not covered %v, want row 5 of gateway.rego", report.Coverage, report.NotCovered)
	}
}

func TestRunTestsReportsWhatDoesNotCompile(t *testing.T) {
	t.Parallel()
	_, dir, err := runTests(t, "a.rego", "package a\n\nx := y\n\nz := w\n", "a_test.rego", "package a_test\n")
	var got []string
	for _, p := range bundles.Problems(err) {
		got = append(got, strings.ReplaceAll(p.Error(), dir+"/", ""))
	}
	want := []string{"a.rego:3:6: rego_unsafe_var_error: var y is unsafe", "a.rego:5:6: rego_unsafe_var_error: var w is unsafe"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

func TestRunTestsOfNothing(t *testing.T) {
	t.Parallel()
	if _, _, err := runTests(t, "data.json", "{}"); err == nil {
		t.Error("a directory without Rego passes")
	}
}

package guard_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/bench/guard"
	"github.com/sallyport/sallyport/bench/report"
	"github.com/sallyport/sallyport/bench/system"
)

// sample is one system in one round.
type sample struct{ cpu, others float64 }

func quiet(cpu ...float64) (out []sample) {
	for _, c := range cpu {
		out = append(out, sample{cpu: c})
	}
	return out
}

func measured(ours, base []sample) []report.Measured {
	return []report.Measured{named("sallyport", ours), named("fasthttp", base)}
}

func named(name string, samples []sample) report.Measured {
	m := report.Measured{System: system.System{Name: name}}
	for round, s := range samples {
		m.Samples = append(m.Samples, report.Sample{Round: round, CPU: s.cpu, Others: s.others})
	}
	return m
}

func thresholds() *guard.Thresholds {
	return &guard.Thresholds{Slack: 1.5, Rows: []guard.Threshold{
		{System: "sallyport", Against: "fasthttp", Most: 3, Reason: "the whole way of a request"},
	}}
}

func TestCheck(t *testing.T) {
	for name, tc := range map[string]struct {
		ours, base []sample
		fails      string
	}{
		"below":                      {quiet(20, 22, 21), quiet(10, 10, 10), ""},
		"one round is good":          {quiet(50, 90, 29), quiet(10, 10, 10), ""},
		"every round is bad":         {quiet(50, 40, 35), quiet(10, 10, 10), "sallyport costs 3.50 times the CPU of fasthttp"},
		"ratios are taken by round":  {quiet(20, 70), quiet(5, 20), "costs 3.50 times"},
		"the machine is slower":      {quiet(200, 220), quiet(100, 100), ""},
		"disturbed rounds, one good": {[]sample{{90, .9}, {29, .9}, {80, .6}}, quiet(10, 10, 10), ""},
		"only a disturbed one good":  {[]sample{{40, .1}, {29, .9}, {35, .2}}, quiet(10, 10, 10), "in the best of 2 rounds"},
		"the base was disturbed":     {quiet(40, 40), []sample{{10, 0}, {40, .8}}, "costs 4.00 times"},
		"a bad one not measured":     {quiet(20, 20), nil, "nothing can be said"},
	} {
		t.Run(name, func(t *testing.T) {
			lines, err := thresholds().Check(measured(tc.ours, tc.base))
			if tc.fails == "" {
				if err != nil || len(lines) != 1 || !strings.Contains(lines[0], "at most 3.00") {
					t.Errorf("got %q, %v", lines, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.fails) {
				t.Errorf("got %v, want %q", err, tc.fails)
			}
		})
	}
}

// TestAbove: what one row adds to another does not grow when the other becomes
// faster, and does when it adds more.
func TestAbove(t *testing.T) {
	th := &guard.Thresholds{Slack: 1.5, Rows: []guard.Threshold{
		{System: "sallyport", Above: "plain", Against: "fasthttp", Most: 3, Reason: "what a decision costs"},
	}}
	if names := th.Systems(); !slices.Equal(names, []string{"fasthttp", "plain", "sallyport"}) {
		t.Errorf("systems %v", names)
	}
	for name, tc := range map[string]struct {
		plain, ours []sample
		fails       string
	}{
		"as before":       {quiet(30, 30), quiet(55, 56), ""},
		"plain is faster": {quiet(10, 10), quiet(35, 36), ""},
		"it adds more":    {quiet(10, 10), quiet(45, 60), "what sallyport adds to plain costs 3.50 times the CPU of fasthttp"},
		"plain is absent": {nil, quiet(45, 60), "nothing can be said"},
	} {
		m := append(measured(tc.ours, quiet(10, 10)), named("plain", tc.plain))
		if _, err := th.Check(m); (err == nil) != (tc.fails == "") || err != nil && !strings.Contains(err.Error(), tc.fails) {
			t.Errorf("%s: got %v, want %q", name, err, tc.fails)
		}
	}
}

func TestRenew(t *testing.T) {
	th := thresholds()
	if err := th.Renew(measured(quiet(40, 42, 90), quiet(10, 10, 10)), "today"); err != nil {
		t.Fatal(err)
	}
	want := []guard.Threshold{{System: "sallyport", Against: "fasthttp", Most: 6.3, Measured: 4.2, Reason: "the whole way of a request"}}
	if d := cmp.Diff(want, th.Rows); d != "" || th.Measured != "today" {
		t.Errorf("%s, %s", d, th.Measured)
	}
	if err := th.Renew(measured(nil, quiet(10)), "today"); err == nil {
		t.Error("a threshold was set from nothing")
	}
	file := filepath.Join(t.TempDir(), "thresholds.json")
	if err := th.Write(file); err != nil {
		t.Fatal(err)
	}
	got, err := guard.Read(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(th, got); d != "" {
		t.Error(d)
	}
}

func TestReadRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON":     `thresholds`,
		"other key":   `{"slack": 1.5, "limits": []}`,
		"no row":      `{"slack": 1.5, "thresholds": []}`,
		"no slack":    `{"thresholds": [{"system": "a", "against": "b", "most": 1, "reason": "c"}]}`,
		"no number":   `{"slack": 1.5, "thresholds": [{"system": "a", "against": "b", "reason": "c"}]}`,
		"no reason":   `{"slack": 1.5, "thresholds": [{"system": "a", "against": "b", "most": 1}]}`,
		"no baseline": `{"slack": 1.5, "thresholds": [{"system": "a", "most": 1, "reason": "c"}]}`,
	} {
		file := filepath.Join(t.TempDir(), "thresholds.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := guard.Read(file); err == nil {
			t.Errorf("%s: read %+v", name, got)
		}
	}
	if _, err := guard.Read(filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("a file that is not there was read")
	}
}

// TestCommitted: the committed file is one, and names systems that there are.
func TestCommitted(t *testing.T) {
	th, err := guard.Read("../thresholds.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range th.Systems() {
		if !slices.ContainsFunc(system.All(), func(s system.System) bool { return s.Name == name }) {
			t.Errorf("there is no system %q", name)
		}
	}
}

func TestQuiet(t *testing.T) {
	m := measured([]sample{{1, .1}, {1, .5}}, []sample{{1, .4}, {1, 0}})
	if !guard.Quiet(m, 0) || guard.Quiet(m, 1) || !guard.Quiet(m, 2) {
		t.Error("a round is quiet when no sample of it was disturbed")
	}
}

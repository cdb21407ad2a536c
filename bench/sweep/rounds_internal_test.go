package sweep

import (
	"testing"

	"github.com/sallyport/sallyport/bench/report"
)

// seen is a subject with a figure of each round.
func seen(at int, values ...float64) *subject {
	s := &subject{at: at, label: count(at)}
	for round, v := range values {
		s.see(round, map[string]float64{"decision_us": v})
	}
	return s
}

// A target compares what was seen in the same round: the second round was slow for
// both.
func TestFlatComparesWithinARound(t *testing.T) {
	page := report.Sweep{}
	all := []*subject{seen(200, 10, 30, 11), seen(10_000, 11, 33, 11)}
	flat(&page, all, 0, 10_000, 200, "decision_us", "flat")
	flat(&page, all, 0, 10_000, 300, "decision_us", "of a size that was left out")
	flat(&page, all, 1, 10_000, 200, "decision_us", "of a line that was left out")
	flat(&page, all, 0, 10_000, 200, "rss_mib", "of what was not measured")
	if len(page.Targets) != 1 || !page.Targets[0].Met || page.Targets[0].Measured != "1.10x (1.00–1.10)" {
		t.Errorf("%+v", page.Targets)
	}
	flat(&page, []*subject{seen(200, 10), seen(10_000, 13)}, 0, 10_000, 200, "decision_us", "not flat")
	if len(page.Targets) != 2 || page.Targets[1].Met {
		t.Errorf("%+v", page.Targets)
	}
}

// A sweep is described once and may run many times: what one run saw is not in
// the next.
func TestPagesDoNotShareTheirLines(t *testing.T) {
	described := report.Sweep{Lines: []report.Line{{Name: "a"}}}
	first, second := described, described
	fillPage(&first, []*subject{seen(1, 10)})
	fillPage(&second, []*subject{seen(1, 10), seen(2, 20), {at: 3, label: "never measured"}})
	if len(described.Lines[0].Points) != 0 || len(first.Lines[0].Points) != 1 || len(second.Lines[0].Points) != 2 {
		t.Errorf("%+v\n%+v\n%+v", described, first, second)
	}
}

func TestReloadTargets(t *testing.T) {
	page := report.Sweep{Lines: []report.Line{{Name: "files"}}}
	with, without := &subject{at: 1}, &subject{at: 0}
	with.see(0, map[string]float64{"longest_ms": 9, "p99_ms": 2, "failed": 0})
	without.see(0, map[string]float64{"longest_ms": 3, "p99_ms": 1, "failed": 0})
	reloadTargets(&page, without, with)
	if len(page.Targets) != 3 || page.Targets[0].Met || page.Targets[1].Met || !page.Targets[2].Met {
		t.Errorf("%+v", page.Targets)
	}
}

func TestWaitingTargets(t *testing.T) {
	for name, c := range map[string]struct {
		idle, wake, failed float64
		memory, answers    bool
	}{
		"all hold":        {11, 900, 0, true, true},
		"too much memory": {13, 900, 0, false, true},
		"too slow":        {11, 1100, 0, true, false},
		"one failed":      {11, 900, 1, true, false},
	} {
		page, s := report.Sweep{}, &subject{at: 10_000}
		s.see(0, map[string]float64{"idle_kib": c.idle, "wake_ms": c.wake, "wake_failed": c.failed})
		waitingTargets(&page, s)
		if len(page.Targets) != 2 || page.Targets[0].Met != c.memory || page.Targets[1].Met != c.answers {
			t.Errorf("%s: %+v", name, page.Targets)
		}
	}
}

func TestCountAndSize(t *testing.T) {
	for n, want := range map[int]string{1: "1", 100: "100", 1_000: "1,000", 65_536: "65,536", 1_000_000: "1,000,000"} {
		if got := count(n); got != want {
			t.Errorf("count of %d: %s", n, got)
		}
	}
	for n, want := range map[int]string{0: "0 B", 1 << 10: "1 KiB", 64 << 10: "64 KiB", 10 << 20: "10 MiB"} {
		if got := size(n); got != want {
			t.Errorf("size of %d: %s", n, got)
		}
	}
}

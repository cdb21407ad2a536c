package statistic_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/bench/statistic"
)

func TestSummarize(t *testing.T) {
	for name, c := range map[string]struct {
		values []float64
		want   statistic.Summary
	}{
		"none": {nil, statistic.Summary{}},
		"one":  {[]float64{3}, statistic.Summary{Median: 3, Min: 3, Max: 3}},
		"odd":  {[]float64{9, 1, 2}, statistic.Summary{Median: 2, Min: 1, Max: 9}},
		"even": {[]float64{8, 1, 4, 2}, statistic.Summary{Median: 3, Min: 1, Max: 8}},
	} {
		t.Run(name, func(t *testing.T) {
			before := slices.Clone(c.values)
			if d := cmp.Diff(c.want, statistic.Summarize(c.values)); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(before, c.values); d != "" {
				t.Errorf("the samples were changed: %s", d)
			}
		})
	}
}

func TestRatiosStayWithinARound(t *testing.T) {
	a := map[int]float64{0: 10, 1: 30, 3: 7}
	b := map[int]float64{0: 5, 1: 10, 2: 1, 3: 0}
	if d := cmp.Diff([]float64{2, 3}, statistic.Ratios(a, b)); d != "" {
		t.Error(d)
	}
}

func TestRotatedHoldsEachOnceAndMovesTheFirst(t *testing.T) {
	firsts := map[int]bool{}
	for round := range 4 {
		order := statistic.Rotated(4, round)
		firsts[order[0]] = true
		if d := cmp.Diff([]int{0, 1, 2, 3}, slices.Sorted(slices.Values(order))); d != "" {
			t.Errorf("round %d: %s", round, d)
		}
	}
	if len(firsts) < 2 {
		t.Error("each round begins with the same system")
	}
}

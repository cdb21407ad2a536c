package engine

import (
	"context"
	"testing"
	"time"
)

// TestDeadlineCountsRunningTime looks at the clock at the given times, in
// milliseconds after the start, and demands at which look it is over.
func TestDeadlineCountsRunningTime(t *testing.T) {
	steps := func(from, to, by int) (out []int) {
		for at := from; at <= to; at += by {
			out = append(out, at)
		}
		return out
	}
	for name, c := range map[string]struct {
		looks  []int
		strict bool
		over   int // the look at which it is over, -1: at none
	}{
		"a loop runs into it":                {steps(1, 60, 1), false, 51},
		"in time":                            {steps(1, 50, 1), false, -1},
		"a pause is not counted":             {append(steps(1, 10, 1), 100, 101, 102), false, -1},
		"a loop around a pause":              {append(steps(1, 30, 1), steps(200, 240, 1)...), false, 221},
		"pauses have a bound":                {steps(100, 700, 100), false, 600},
		"one pause beyond the bound":         {[]int{1, 600}, false, 600},
		"waiting for the network is counted": {[]int{1, 2, 60}, true, 60},
	} {
		t.Run(name, func(t *testing.T) {
			begin := time.Unix(0, 0)
			var d deadline
			d.begin(context.Background(), begin, 50*time.Millisecond, c.strict)
			over := -1
			for _, at := range c.looks {
				if d.over(begin.Add(time.Duration(at) * time.Millisecond)) {
					over = at
					break
				}
			}
			if over != c.over {
				t.Errorf("over at %d ms, want %d", over, c.over)
			}
		})
	}
}

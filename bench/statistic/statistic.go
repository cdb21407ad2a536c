// Package statistic reduces the samples of interleaved rounds to what is
// reported: medians with their range, and ratios that are taken within a round.
// It knows nothing of what was measured.
//
// A machine that is shared drifts by more than most differences that matter, so
// that only values of the same round are ever compared.
package statistic

import (
	"maps"
	"slices"
)

// Summary is the median of samples and their range.
type Summary struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// Summarize returns the summary of values; that of none is zero.
func Summarize(values []float64) Summary {
	if len(values) == 0 {
		return Summary{}
	}
	sorted := slices.Sorted(slices.Values(values))
	return Summary{Median: median(sorted), Min: sorted[0], Max: sorted[len(sorted)-1]}
}

func median(sorted []float64) float64 {
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// Ratios divides the values of a by those of b, round by round. Rounds that one
// of them lacks are left out, as are those in which b is zero.
func Ratios(a, b map[int]float64) []float64 {
	var out []float64
	for _, round := range slices.Sorted(maps.Keys(a)) {
		if divisor := b[round]; divisor != 0 {
			out = append(out, a[round]/divisor)
		}
	}
	return out
}

// Rotated returns 0 to n-1 beginning at round, so that no system is always
// measured behind the same neighbour's start or at the same place of a round.
func Rotated(n, round int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = (i + round) % n
	}
	if round%2 == 1 {
		slices.Reverse(out)
	}
	return out
}

// Package metertest reads for tests what was counted. It is apart from package
// meter, so that nothing outside of tests takes numbers by name.
package metertest

import (
	"strings"

	"github.com/sallyport/sallyport/engine/meter"
)

// Counts returns the values of counters and the counts of histograms by name and
// attributes, such as "sallyport.decisions fault=type,outcome=fault".
func Counts(r *meter.Registry) map[string]int64 {
	out := map[string]int64{}
	for _, m := range r.Snapshot() {
		for _, s := range m.Series {
			attrs := make([]string, len(s.Attrs))
			for i, a := range s.Attrs {
				attrs[i] = a.Key + "=" + a.Value
			}
			n := s.Value
			for _, b := range s.Buckets {
				n += int64(b) //nolint:gosec // a test does not count that far
			}
			out[m.Name+" "+strings.Join(attrs, ",")] = n
		}
	}
	return out
}

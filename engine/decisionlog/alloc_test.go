//go:build !race

package decisionlog_test

import (
	"io"
	"testing"
)

// TestRecordAllocations bounds what a record costs from the request's side to the
// line that is written. Making and ending the log is spread over many records.
func TestRecordAllocations(t *testing.T) {
	const batch = 1000
	r := record()
	got := testing.AllocsPerRun(5, func() {
		l := newLog(t, io.Discard, nil)
		for range batch {
			l.Record(r)
		}
		runToEnd(t, l)
	}) / batch
	t.Logf("%v allocations", got)
	if got > 10 {
		t.Errorf("%v allocations a record, want at most 10", got)
	}
}

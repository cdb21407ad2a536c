package engine

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/engine/meter/metertest"
)

// A kind of fault without a series of its own is counted all the same.
func TestUnknownFaultIsCounted(t *testing.T) {
	r := meter.New()
	newInstruments(r).decision(&authz.Decision{Fault: &authz.Fault{Kind: "new"}}, 0)
	want := map[string]int64{"sallyport.decisions outcome=fault": 1, "sallyport.decision.duration outcome=fault": 1}
	if diff := cmp.Diff(want, metertest.Counts(r)); diff != "" {
		t.Error(diff)
	}
}

//go:build !race

package wire

import (
	"testing"
)

// TestHeadAllocations pins the reading of a head: one copy of its bytes, one list
// of its fields.
func TestHeadAllocations(t *testing.T) {
	const head = "GET /v1/orders/42?a=1 HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: test\r\nAccept: */*\r\nAuthorization: Bearer x\r\n\r\n"
	buffer := make([]byte, len(head))
	got := testing.AllocsPerRun(200, func() {
		copy(buffer, head)
		if h, err := ParseHead(buffer); err != nil || len(h.Headers) != 4 {
			t.Fatal(h, err)
		}
	})
	if got > 2 {
		t.Errorf("%v allocations, want at most 2", got)
	}
}

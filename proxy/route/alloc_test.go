//go:build !race

package route

import (
	"fmt"
	"testing"
)

// TestMatchAllocations pins the search for a route, however many there are.
func TestMatchAllocations(t *testing.T) {
	for _, n := range []int{1, 1000} {
		var routes []Config
		for i := range n {
			routes = append(routes, route(fmt.Sprint("r", i), Match{Path: fmt.Sprintf("/v1/s%d/{id}", i), Methods: []string{"GET"}}))
		}
		table, err := New(routes)
		if err != nil {
			t.Fatal(err)
		}
		q := query("GET", "h", fmt.Sprintf("/v1/s%d/42", n-1))
		got := testing.AllocsPerRun(200, func() {
			if table.Match(q) == nil {
				t.Fatal("no match")
			}
		})
		if got > 0 {
			t.Errorf("%d routes: %v allocations, want 0", n, got)
		}
	}
}

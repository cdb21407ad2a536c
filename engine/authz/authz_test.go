package authz_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sallyport/sallyport/engine/authz"
)

func TestMemoIsSharedAndKept(t *testing.T) {
	id := &authz.Identity{Subject: "alice"}
	var built atomic.Int32
	build := func(id *authz.Identity) any {
		built.Add(1)
		return &id.Subject
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if got, ok := id.Memo(build).(*string); !ok || *got != "alice" {
					t.Errorf("memo %v", got)
				}
			}
		})
	}
	wg.Wait()
	if n := built.Load(); n < 1 || n > 8 {
		t.Errorf("built %d times by 8 goroutines", n)
	}
}

func TestZeroDecisionDenies(t *testing.T) {
	var d authz.Decision
	if d.Allow {
		t.Error("the zero value allows")
	}
	f := &authz.Fault{Kind: authz.FaultType, Detail: "allow is string"}
	if got := f.Error(); got != "type: allow is string" {
		t.Errorf("fault reads %q", got)
	}
}

package process_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/bench/process"
)

func TestStartSaysWhyAProgramEnded(t *testing.T) {
	address, err := process.FreeAddress(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = process.Start(t.Context(), t.TempDir(), process.Spec{
		Name: "broken", Path: "/bin/sh", Args: []string{"-c", "echo no such option >&2; exit 3"}, Listens: address,
	})
	if err == nil || !strings.Contains(err.Error(), "no such option") {
		t.Errorf("got %v", err)
	}
}

func TestStartSaysThatAProgramIsMissing(t *testing.T) {
	if _, err := process.Start(t.Context(), t.TempDir(), process.Spec{Name: "x", Path: "/no/such/program"}); err == nil {
		t.Error("started")
	}
}

func TestFreeAddressesAreDifferent(t *testing.T) {
	for range 20 {
		all, err := process.FreeAddresses(t.Context(), 50)
		if err != nil {
			t.Fatal(err)
		}
		if len(slices.Compact(slices.Sorted(slices.Values(all)))) != 50 {
			t.Fatalf("an address came twice: %q", all)
		}
	}
}

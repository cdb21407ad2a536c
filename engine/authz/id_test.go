package authz_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
)

func TestDecisionIDsAreUniqueAndSort(t *testing.T) {
	now := time.UnixMilli(1_767_326_645_678)
	seen := map[string]bool{}
	for range 1000 {
		id := authz.NewID(now)
		if seen[id] || len(id) != 36 || id[14] != '7' || !strings.ContainsRune("89ab", rune(id[19])) {
			t.Fatalf("id %q is not a new UUID of version 7", id)
		}
		seen[id] = true
		if later := authz.NewID(now.Add(time.Millisecond)); later <= id {
			t.Fatalf("%q does not sort behind %q", later, id)
		}
	}
}

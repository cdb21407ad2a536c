//go:build !race

package httpsignature

import (
	"testing"

	"github.com/sallyport/sallyport/proxy/authn"
)

// TestAllocations bounds what one accepted request costs beside its signature check.
func TestAllocations(t *testing.T) {
	s := newTestSigner(t, "k1", edwards)
	a := newTest(t, nil, s)
	r := s.request(t, "sig1", s.order())
	got := testing.AllocsPerRun(100, func() {
		again := authn.Request{
			Method: r.Method, Scheme: r.Scheme, Host: r.Host, Path: r.Path, RawQuery: r.RawQuery, Headers: r.Headers, Now: r.Now, Client: r.Client,
		}
		if _, err := a.Authenticate(t.Context(), &again); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("%v allocations", got)
	if got > 90 {
		t.Errorf("%v allocations, want at most 90", got)
	}
}

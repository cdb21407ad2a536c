package authn_test

import (
	"slices"
	"testing"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
)

// TestTake: what is left on a copy of a request reaches the request, which stays where
// it is.
func TestTake(t *testing.T) {
	r := &authn.Request{Scheme: "http", Host: "gateway.internal", Path: "/x", Response: []authz.Header{{Name: "x-a", Value: "1"}}}
	r.Spend("authorization")
	c := r.At("https", "app.example")
	if c.Scheme != "https" || c.Host != "app.example" || c.Path != "/x" || r.Host != "gateway.internal" {
		t.Fatalf("copy %+v of %+v", c, r)
	}
	c.Spend("x-key")
	c.SpendCookie("session")
	c.Token, c.Response = "t", append(c.Response, authz.Header{Name: "set-cookie", Value: "s=1"})
	for range 2 { // the second time with itself
		r.Take(c)
		headers, cookies := r.Spent()
		if r.Scheme != "http" || r.Host != "gateway.internal" || r.Token != "t" || len(r.Response) != 2 ||
			!slices.Equal(headers, []string{"authorization", "x-key"}) || !slices.Equal(cookies, []string{"session"}) {
			t.Errorf("%+v, spent %q and %q", r, headers, cookies)
		}
		c = r
	}
}

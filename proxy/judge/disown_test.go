package judge

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/route"
)

// TestHeadersOfThePolicyAreNoOneElses: what a rule sets in one of its answers is not
// taken from the client in another, in no spelling, and not because a trusted proxy,
// which does not look at it, passes it on.
func TestHeadersOfThePolicyAreNoOneElses(t *testing.T) {
	owned := []string{"x-forwarded-user", "X-Groups", "x-forwarded-for", "true-client-ip", "authorization"}
	d := &authz.Decision{Allow: true, Owned: owned}
	for _, trusted := range []bool{false, true} {
		j := judgeWith(t, alice(nil, nil), func(c *Config, r *route.Config) {
			c.Decider, r.ForwardCredentials = fixedDecider{d}, true
		})
		a := arrival("GET", "/x")
		for _, name := range []string{"x-forwarded-user", "x-forwarded.user", "x-groups", "x.groups", "true-client-ip", "x-forwarded-proto", "x-forwarded-port", "authorization", "x-other"} {
			a.Headers = append(a.Headers, authz.Header{Name: name, Value: "https"})
		}
		if trusted {
			a.Listener.Trusted = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		}
		v := j.Judge(t.Context(), a)
		if v.Forward == nil {
			t.Fatal(v.Err)
		}
		var got []string
		for _, h := range v.Forward.Headers {
			got = append(got, h.Name)
		}
		slices.Sort(got)
		// What the gateway writes anew, and a credential that the route forwards, stay.
		want := []string{"authorization", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-other", "x-request-id"}
		if trusted {
			want = append(want, "x-forwarded-port")
			slices.Sort(want)
		}
		if !slices.Equal(got, want) {
			t.Errorf("trusted %v: forwarded are %q, want %q", trusted, got, want)
		}
	}
}

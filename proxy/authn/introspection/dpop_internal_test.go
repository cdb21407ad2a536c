package introspection

import (
	"errors"
	"testing"

	"github.com/sallyport/sallyport/proxy/authn"
)

// A token that is bound to a key is a credential, which nobody may overlook: a
// chain that ends in anonymous must not take its sender for nobody.
func TestBoundTokensAreSomebodyElses(t *testing.T) {
	a := &Authenticator{}
	for _, value := range []string{"DPoP abc", "dpop abc"} {
		if _, err := a.Authenticate(t.Context(), &authn.Request{Authorization: value}); !errors.Is(err, authn.ErrForeign) {
			t.Errorf("%s: %v", value, err)
		}
	}
	if _, err := a.Authenticate(t.Context(), &authn.Request{Authorization: "Basic YTpi"}); !errors.Is(err, authn.ErrNotMine) || errors.Is(err, authn.ErrForeign) {
		t.Errorf("Basic: %v", err)
	}
}

package session

import (
	"testing"

	"github.com/sallyport/sallyport/proxy/authn"
)

// What is dropped from every request is known by its name.
func TestCookiesAreKnownAsTheGateways(t *testing.T) {
	for _, domain := range []string{"", "example.com"} {
		c := NewCookies("corp", domain)
		for _, name := range []string{c.secure, c.plain, c.secure + ".1"} {
			if !authn.OwnCookie(name) {
				t.Errorf("%s would be forwarded", name)
			}
		}
	}
	if authn.OwnCookie("sallyport") || authn.OwnCookie("theme") {
		t.Error("somebody else's cookie is dropped")
	}
}

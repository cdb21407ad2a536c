package oidc

import (
	"strings"
	"testing"

	"github.com/sallyport/sallyport/engine/authz"
)

// TestSessionsDoNotTravelInTheOpen: over plain HTTP whoever is on the way, or has a
// neighbouring host, can give a browser cookies, and so a session of another account.
func TestSessionsDoNotTravelInTheOpen(t *testing.T) {
	for where, change := range map[string]func(*Config){"in cookies": nil, "in Redis": inRedis(t, startRedis(t))} {
		s := newSetup(t, change)
		attacker := s.browser()
		attacker.logIn("/")
		for _, tc := range []struct {
			scheme, host string
			in           bool
		}{{"https", "app.example", true}, {"http", "app.example", false}, {"http", "app.example:8080", false}, {"http", "127.0.0.1:8080", true}, {"http", "localhost", true}} {
			victim := s.browser()
			r := victim.request("GET", "/x", "accept", "*/*")
			r.Scheme, r.Host = tc.scheme, tc.host
			value := "__Host-sallyport-login=" + attacker.jar["__Host-sallyport-login"]
			value += "; " + strings.Replace(value, "__Host-sallyport-", "sallyport-insecure-", 1)
			r.Headers = append(r.Headers, authz.Header{Name: "cookie", Value: value})
			if _, id, _ := victim.through(s.a, r); (id != nil) != tc.in {
				t.Errorf("%s, %s://%s: identity %+v", where, tc.scheme, tc.host, id)
			}
		}
	}
}

package jwt

import (
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
)

// What follows reads the members of a JSON object as claims are read here, for
// mechanisms that are told the same facts about a token in another wrapping.

// Date reads a NumericDate (RFC 7519 section 2). A missing one is an error.
func Date(members map[string]any, name string) (time.Time, error) { return numericDate(members, name) }

// Strings reads a member that is a string or an array of strings; nil if it is
// absent.
func Strings(members map[string]any, name string) ([]string, error) {
	return stringOrList(members, name)
}

// Bearer returns the token of an Authorization value (RFC 6750 section 2.1). The error
// is authn.ErrNotMine, or authn.ErrInvalid for the scheme without a token.
func Bearer(authorization string) (string, error) {
	token, proven, err := Credential(authorization)
	if proven {
		return "", authn.ErrNotMine
	}
	return token, err
}

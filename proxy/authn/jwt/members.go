package jwt

import (
	"strings"
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

// AppendScopes appends to scopes those of a member: text with spaces between them (RFC
// 6749 section 3.3), or an array. Some issuers put such text into an array in scope and
// scp. In other members an element is one name, and one with a space is left out: no scope
// has one, and "billing admin" must not pass for admin.
func AppendScopes(scopes []string, members map[string]any, name string) ([]string, error) {
	elements, err := stringOrList(members, name)
	if err != nil {
		return nil, err
	}
	_, names := members[name].([]any)
	names = names && name != "scope" && name != "scp"
	for _, e := range elements {
		if names && strings.Contains(e, " ") {
			continue
		}
		for s := range strings.SplitSeq(e, " ") {
			if s != "" {
				scopes = append(scopes, s)
			}
		}
	}
	return scopes, nil
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

package jwt

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
)

// What follows reads the members of a JSON object as claims are read here, for
// mechanisms that are told the same facts about a token in another wrapping.

// Object reads data as exactly one JSON object, without duplicate members at any
// depth; numbers are json.Number.
func Object(data []byte) (map[string]any, error) { return decodeObject(data) }

// Date reads a NumericDate (RFC 7519 section 2). A missing one is an error.
func Date(members map[string]any, name string) (time.Time, error) { return numericDate(members, name) }

// Strings reads a member that is a string or an array of strings; nil if it is
// absent.
func Strings(members map[string]any, name string) ([]string, error) {
	return stringOrList(members, name)
}

// Binding is the thumbprint of the client certificate that a token is bound to; empty
// if it is not bound (RFC 8705 section 3).
type Binding string

// BindingOf reads the cnf member. A token that is bound by anything that is not
// checked here is an error.
func BindingOf(members map[string]any) (Binding, error) {
	b, err := bindingOf(members)
	if err == nil && b.key != "" {
		err = fmt.Errorf("token is bound by %q, whose possession is not checked here", keyMember)
	}
	if err != nil {
		return "", err
	}
	return Binding(b.certificate), nil
}

// Check reports whether the client of this connection holds what the token is bound
// to. It is to be asked on each request. The error is authn.ErrInvalid.
func (b Binding) Check(cs *tls.ConnectionState) error { return checkCertificate(string(b), cs) }

// Bearer returns the token of an Authorization value (RFC 6750 section 2.1). The error
// is authn.ErrNotMine, or authn.ErrInvalid for the scheme without a token.
func Bearer(authorization string) (string, error) {
	token, proven, err := credential(authorization)
	if proven {
		return "", authn.ErrNotMine
	}
	return token, err
}

// MaxToken bounds a bearer token in bytes.
const MaxToken = maxToken

// Compact reports whether text looks like a JWS in compact serialization: three
// parts, of which the first decodes to what begins like a JSON object. It looks at
// the beginning only, allocates nothing, and is no check.
func Compact(text string) bool {
	head, rest, _ := strings.Cut(text, ".")
	if strings.Count(rest, ".") != 1 {
		return false
	}
	var raw [48]byte
	n, _ := base64.RawURLEncoding.Decode(raw[:], []byte(head[:min(len(head), 64)&^3])) // what was read before an error counts
	for _, c := range raw[:n] {
		switch c {
		case ' ', '\t', '\r', '\n':
		case '{':
			return true
		default:
			return false
		}
	}
	return false
}

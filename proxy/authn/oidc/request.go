package oidc

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn/jose"
)

const (
	requestObjectType = "oauth-authz-req+jwt" // RFC 9101 section 10.8
	// The browser takes a request object to the provider at once, or the gateway does;
	// the rest is for clocks that are apart.
	requestObjectLife = 2 * time.Minute
)

// ofRequestObject are the claims of a request object that are not parameters of the
// request. sub is there so that no request object is a client assertion (RFC 9101
// section 10.8).
func ofRequestObject() []string {
	return []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti"}
}

func (c Config) validateRequestObject() error {
	file, _ := c.requestObjectKey()
	switch {
	case c.RequestObject && file == "":
		return setting.Problemf("request_object", "needs request_object_key_file, or client_key_file: something has to sign it")
	case !c.RequestObject && c.RequestObjectKeyFile != "":
		return setting.Problemf("request_object_key_file", "is not used without request_object")
	case c.RequestObjectKeyID != "" && c.RequestObjectKeyFile == "":
		return setting.Problemf("request_object_key_id", "is not used without request_object_key_file")
	}
	return nil
}

// requestObjectKey is the file of the key that signs requests, and the key's name; both
// empty if none does.
func (c Config) requestObjectKey() (file, kid string) {
	switch {
	case !c.RequestObject:
		return "", ""
	case c.RequestObjectKeyFile != "":
		return c.RequestObjectKeyFile, c.RequestObjectKeyID
	}
	return c.ClientKeyFile, c.ClientKeyID
}

// signed returns the parameters of a login as a signed request object (RFC 9101), if
// that is configured, and as they are if not. An object that is pushed stands alone
// (RFC 9126 section 3); beside one that the browser carries go those parameters which
// OpenID Connect Core section 6.1 wants there, and that say nothing of this login.
func (a *Authenticator) signed(m *metadata, params url.Values, pushed bool) (url.Values, error) {
	if !a.config.RequestObject {
		if m.signRequired {
			return nil, fmt.Errorf("%w: the provider requires signed request objects; set request_object", errRequest)
		}
		return params, nil
	}
	object, err := a.client.requestObject(m, params)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRequest, err)
	}
	out := url.Values{"client_id": {a.config.ClientID}, "request": {object}}
	if !pushed {
		out.Set("response_type", params.Get("response_type"))
		out.Set("scope", params.Get("scope"))
	}
	return out, nil
}

// requestObject is a JWT of parameters for this provider alone, once and for a moment
// (RFC 9101 section 4).
func (c *client) requestObject(m *metadata, params url.Values) (string, error) {
	s, err := c.requestSigner(m)
	if err != nil {
		return "", err
	}
	now := c.now()
	claims := map[string]any{
		"iss": c.config.ClientID, "aud": c.config.Issuer, "jti": newJTI(),
		"iat": now.Unix(), "nbf": now.Add(-c.config.Leeway).Unix(), "exp": now.Add(requestObjectLife).Unix(),
	}
	for name, values := range params {
		claims[name] = claim(name, values[0])
	}
	object, err := s.sign(claims)
	if err != nil {
		return "", fmt.Errorf("request object: %w", err)
	}
	return object, nil
}

// requestSigner is the first of the ways in which our key signs that the provider says
// it accepts, the usual one if it does not say.
func (c *client) requestSigner(m *metadata) (*signer, error) {
	all := *c.requests.Load()
	if len(m.requestAlgorithms) == 0 {
		return all[0], nil
	}
	var ours []string
	for _, s := range all {
		if slices.Contains(m.requestAlgorithms, s.alg) {
			return s, nil
		}
		ours = append(ours, s.alg)
	}
	return nil, fmt.Errorf("request object: the key signs with %s, and the provider accepts %.256s; use a key of another kind",
		strings.Join(ours, " or "), strings.Join(m.requestAlgorithms, ", "))
}

// claim is the value of a parameter as a request object has it: numbers are numbers,
// and JSON is not text (RFC 9101 section 4, OpenID Connect Core section 6.1, RFC 9396
// section 3).
func claim(name, value string) any {
	switch name {
	case "max_age":
		if n, err := strconv.Atoi(value); err == nil {
			return n
		}
	case "claims":
		if doc, err := jose.Object([]byte(value)); err == nil {
			return doc
		}
	case "authorization_details":
		if json.Valid([]byte(value)) {
			return json.RawMessage(value)
		}
	}
	return value
}

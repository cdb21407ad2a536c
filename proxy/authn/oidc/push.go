package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose"
)

// When authorization requests are pushed to the provider (RFC 9126).
const (
	pushAuto     = "auto"
	pushRequired = "required"
	pushOff      = "off"
)

// maxPushes is how many requests are pushed at a time: whoever asks for pages without
// a session has the gateway ask the provider.
const maxPushes = 32

// errRequest is a login that cannot begin, since the provider does not take our
// authorization request, or we do not make the one that it wants. Trying again does
// not help; the operator has to do something.
var errRequest = errors.New("login cannot begin")

func (c Config) validatePush() error {
	switch c.PushedAuthorizationRequests {
	case pushAuto, pushRequired, pushOff:
		return nil
	}
	return setting.Problemf("pushed_authorization_requests", "%q is not one of %s, %s, %s", c.PushedAuthorizationRequests, pushAuto, pushRequired, pushOff)
}

// pushes reports whether the parameters of a login go to the provider directly. What
// the provider requires is done whatever the configuration says.
func (a *Authenticator) pushes(m *metadata) (bool, error) {
	mode := a.config.PushedAuthorizationRequests
	switch {
	case m.pushed != "":
		return mode != pushOff || m.pushRequired, nil
	case m.pushRequired:
		return false, fmt.Errorf("%w: the provider requires pushed authorization requests, and its metadata has no pushed_authorization_request_endpoint", errRequest)
	case mode == pushRequired:
		return false, fmt.Errorf("%w: pushed_authorization_requests is required, and the provider's metadata has no pushed_authorization_request_endpoint", errRequest)
	}
	return false, nil
}

// push gives the provider the parameters of a login, and returns those that the
// browser takes there in their place: a reference. There is no way back to plain
// parameters, which whoever disturbs the push could bring about.
func (c *client) push(ctx context.Context, m *metadata, params url.Values) (url.Values, error) {
	ctx, cancel := context.WithTimeout(ctx, providerTimeout)
	defer cancel()
	if err := c.pushing.Acquire(ctx, 1); err != nil {
		return nil, fmt.Errorf("%w: pushed authorization request: %d are under way: %w", authn.ErrUnavailable, maxPushes, err)
	}
	defer c.pushing.Release(1)
	status, body, err := c.post(ctx, m.pushed, params)
	if err != nil {
		return nil, fmt.Errorf("%w: pushed authorization request: %w", authn.ErrUnavailable, err)
	}
	doc, err := jose.Object(body)
	code, _ := doc["error"].(string)
	switch {
	case busy(status, code):
		return nil, fmt.Errorf("%w: pushed authorization request: the provider answered %d %s", authn.ErrUnavailable, status, refusal(doc))
	case status != http.StatusCreated:
		return nil, fmt.Errorf("%w: pushed authorization request: the provider answered %d %s", errRequest, status, refusal(doc))
	case err != nil:
		return nil, fmt.Errorf("%w: pushed authorization request: %w", errRequest, err)
	}
	uri, err := reference(doc)
	if err != nil {
		return nil, fmt.Errorf("%w: pushed authorization request: %w", errRequest, err)
	}
	return url.Values{"client_id": {c.config.ClientID}, "request_uri": {uri}}, nil
}

// maxReference bounds a request_uri in bytes; it travels in an address.
const maxReference = 1024

// reference reads the answer to a pushed request (RFC 9126 section 2.2).
func reference(doc map[string]any) (string, error) {
	uri, _ := doc["request_uri"].(string)
	if u, err := url.Parse(uri); err != nil || u.Scheme == "" || len(uri) > maxReference || strings.ContainsFunc(uri, unprintable) {
		return "", errors.New("the answer has no request_uri that is an absolute URI")
	}
	life, _ := doc["expires_in"].(json.Number)
	if seconds, err := life.Int64(); err != nil || seconds <= 0 {
		return "", errors.New("expires_in of the answer is not a positive number of seconds")
	}
	return uri, nil
}

func unprintable(r rune) bool { return r <= ' ' || r >= 0x7f }

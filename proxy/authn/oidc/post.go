package oidc

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/sallyport/sallyport/proxy/authn/fetch"
)

// maxReply bounds what is read of an answer to post, in bytes: an address or an error
// code and little else.
const maxReply = 64 << 10

// post sends a form to an endpoint of the provider, and says there who we are as at the
// token endpoint. The caller bounds the time. Redirects are errors.
func (c *client) post(ctx context.Context, endpoint string, form url.Values) (status int, body []byte, err error) {
	if err := c.authenticate(form); err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	if c.config.ClientAuth == authBasic { // RFC 6749 section 2.3.1: each is encoded as in a form
		req.SetBasicAuth(url.QueryEscape(c.config.ClientID), url.QueryEscape(*c.secret.Load()))
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // nothing is written; a read error shows below
	body, err = fetch.Read(resp.Body, maxReply, "answer of "+endpoint)
	return resp.StatusCode, body, err
}

// authenticate adds to a form who we are, where that does not go into a header. The
// audience of an assertion is the issuer, which RFC 9126 section 2 recommends: the
// assertion is then good at this provider alone, whatever addresses another one names.
func (c *client) authenticate(form url.Values) error {
	switch c.config.ClientAuth {
	case authPost:
		form.Set("client_secret", *c.secret.Load())
	case authKey:
		if err := c.prove(c.config.Issuer, form); err != nil {
			return err
		}
	case authBasic:
		return nil
	}
	form.Set("client_id", c.config.ClientID)
	return nil
}

// busy reports whether an answer says that the same question may do later.
func busy(status int, code string) bool {
	return status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || code == "temporarily_unavailable"
}

// refusal is the error in an answer (RFC 6749 section 5.2), for the log.
func refusal(doc map[string]any) string {
	code, _ := doc["error"].(string)
	if text, ok := doc["error_description"].(string); ok && text != "" {
		return fmt.Sprintf("%.64q (%.200q)", code, text)
	}
	return fmt.Sprintf("%.64q", code)
}

package introspection

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/proxy/authn/jose"
)

// credentials are how the gateway says who it is.
type credentials struct {
	config Config
	secret atomic.Pointer[string]
	signer atomic.Pointer[jose.Signer]
}

// file returns the file that the credential is in; empty if it is none of ours but
// the certificate of the connection.
func (c *credentials) file() string {
	switch c.config.ClientAuth {
	case authBasic, authPost:
		return c.config.ClientSecretFile
	case authKey:
		return c.config.ClientKeyFile
	case authBearer:
		return c.config.BearerTokenFile
	}
	return ""
}

// reload reads the file. On error what was read before stays.
func (c *credentials) reload() error {
	name := c.file()
	if name == "" {
		return nil
	}
	data, err := os.ReadFile(name) //nolint:gosec // the operator names the file
	if err != nil {
		return fmt.Errorf("read credential for %s: %w", c.config.URL, err)
	}
	if c.config.ClientAuth == authKey {
		s, err := jose.NewSigner(data)
		if err != nil {
			return fmt.Errorf("read key for %s: %s: %w", c.config.URL, name, err)
		}
		c.signer.Store(s)
		return nil
	}
	secret := string(bytes.TrimRight(data, "\r\n"))
	if secret == "" {
		return fmt.Errorf("read credential for %s: %s is empty", c.config.URL, name)
	}
	c.secret.Store(&secret)
	return nil
}

// lifetime is how long a signed assertion is good: long enough for clocks that are a
// little off, and of no use to who finds it in a log.
const lifetime = time.Minute

// apply puts the credential into a question.
func (c *credentials) apply(form url.Values, h http.Header) error {
	switch c.config.ClientAuth {
	case authBasic:
		// RFC 6749 section 2.3.1: both are form-encoded before they are joined.
		r := http.Request{Header: h}
		r.SetBasicAuth(url.QueryEscape(c.config.ClientID), url.QueryEscape(*c.secret.Load()))
	case authPost:
		form.Set("client_id", c.config.ClientID)
		form.Set("client_secret", *c.secret.Load())
	case authBearer:
		h.Set("Authorization", "Bearer "+*c.secret.Load())
	case authKey:
		audience := c.config.Issuer
		if audience == "" {
			audience = c.config.URL
		}
		assertion, err := c.signer.Load().Assertion(c.config.ClientID, audience, time.Now(), lifetime)
		if err != nil {
			return err
		}
		form.Set("client_id", c.config.ClientID)
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", assertion)
	case authTLS:
		form.Set("client_id", c.config.ClientID) // RFC 8705 section 2
	}
	return nil
}

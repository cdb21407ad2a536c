package clientcredentials

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose"
	"github.com/sallyport/sallyport/proxy/authn/jwt"
)

// credentials are what a caller sent. They go to the provider and nowhere else.
type credentials struct {
	id     string
	secret string
	// assertion is a JWT that the client signed, in place of a secret (RFC 7523 section
	// 2.2). It names the client, so that the identifier may be missing.
	assertion string
}

var (
	errTwice = fmt.Errorf("%w: the client identifier, the secret or the assertion stands twice", authn.ErrInvalid)
	errHalf  = fmt.Errorf("%w: the client identifier or the secret is missing", authn.ErrInvalid)
	errBoth  = fmt.Errorf("%w: a secret and an assertion; a client authenticates in one way (RFC 6749 section 2.3)", authn.ErrInvalid)
	errForm  = fmt.Errorf("%w: the client identifier or the secret is too long, or has characters that none has (RFC 6749 appendix A)", authn.ErrInvalid)
	errJWT   = fmt.Errorf("%w: the assertion is no JWT, or longer than %d bytes", authn.ErrInvalid, jose.MaxToken)
)

// find returns the one client of the request. Of two, the log and the provider could
// each mean another.
func (a *Authenticator) find(r *authn.Request) (c credentials, err error) {
	ids, secrets, assertions := 0, 0, 0
	for i := range r.Headers {
		switch h := &r.Headers[i]; h.Name {
		case a.config.ClientIDHeader:
			c.id, ids = h.Value, ids+1
		case a.config.ClientSecretHeader:
			c.secret, secrets = h.Value, secrets+1
		case a.config.ClientAssertionHeader:
			c.assertion, assertions = h.Value, assertions+1
		}
	}
	switch {
	case ids+secrets+assertions == 0:
		return c, authn.ErrNotMine
	case ids > 1 || secrets > 1 || assertions > 1:
		return c, errTwice
	case assertions > 0 && secrets > 0:
		return c, errBoth
	case assertions > 0 && !compact(c.assertion):
		return c, errJWT
	case assertions == 0 && (c.id == "" || c.secret == ""), ids > 0 && c.id == "":
		return c, errHalf
	case !printable(c.id, maxID) || !printable(c.secret, maxSecret):
		return c, errForm
	}
	return c, nil
}

const (
	maxID     = 512  // bytes
	maxSecret = 2048 // bytes
)

// printable reports whether text is made of VSCHAR (RFC 6749 appendices A.1 and A.2).
func printable(text string, most int) bool {
	return len(text) <= most && !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' })
}

// compact reports whether text has the form of a JWT that is signed and not encrypted.
// Whose it is and whether it is good is for the provider to say.
func compact(text string) bool {
	other := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	}
	return len(text) <= jose.MaxToken && jose.Compact(text) && !strings.ContainsFunc(text, other)
}

// clone copies what belongs to the connection's buffer.
func (c credentials) clone() credentials {
	return credentials{id: strings.Clone(c.id), secret: strings.Clone(c.secret), assertion: strings.Clone(c.assertion)}
}

// end returns when the assertion ends by its own word, which nobody has verified and
// which can only shorten what the provider says; zero if there is no assertion, or none
// with an end that can be read.
func (c *credentials) end() time.Time {
	if c.assertion == "" {
		return time.Time{}
	}
	claims, err := jose.Peek(c.assertion)
	if err != nil {
		return time.Time{}
	}
	end, err := jwt.Date(claims, "exp")
	if err != nil {
		return time.Time{}
	}
	return end
}

// hash stands for credentials in memory. It is keyed, so that what a dump of the
// process shows of it cannot be tried out against lists of secrets without the key.
func (a *Authenticator) hash(c credentials) string {
	mac := hmac.New(sha256.New, a.salt[:])
	text := make([]byte, 0, 8+len(c.id)+len(c.secret)+len(c.assertion))
	text = binary.BigEndian.AppendUint32(text, uint32(len(c.id)))     //nolint:gosec // at most maxID
	text = binary.BigEndian.AppendUint32(text, uint32(len(c.secret))) //nolint:gosec // at most maxSecret
	mac.Write(append(append(append(text, c.id...), c.secret...), c.assertion...))
	return string(mac.Sum(nil))
}
